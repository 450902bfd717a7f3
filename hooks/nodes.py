"""One event per autograd node while backward runs.

A post-hook on every node sees ``(grad_inputs, grad_outputs)``; a prehook before it may start the clock.
An ``AccumulateGrad`` gets a prehook only: a post-hook would make it copy the gradient it otherwise
steals, and ``.grad`` would no longer be the tensor it is without us.

Nothing is kept here. Who keeps an event's tensors must keep the very objects, for a short while, and
never those of a leaf (its ``.grad`` is stolen from a gradient nobody else holds).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from time import perf_counter
from types import TracebackType
from typing import Any, TypeAlias

import torch

from hooks.attached import NodeHooks
from hooks.checkpointed import forget, looking
from hooks.collection import no_collection
from hooks.handles import Handles
from hooks.unseen import unseen

AutogradNode: TypeAlias = Any
"""A live ``grad_fn``: generated C++ classes, CppFunction and Python Functions share no base class."""

Gradients: TypeAlias = "tuple[torch.Tensor | None, ...]"


@dataclass(slots=True)
class Event:
    """What one node did.

    `index` is the node's place among those given to `capture`. `grad_outputs[k]` is the total gradient
    for forward output k, summed over all consumers; `grad_inputs[i]` goes along ``next_functions[i]``,
    and is None as a whole for a leaf. `seconds` is the time of the node's formula (0.0 for a leaf), or
    without clocks the time since the event before: that holds what the engine did between the two, too
    (sums of gradients, a leaf's accumulation, the user's own hooks).
    `order` counts events from 0 in the order they came.
    """

    index: int
    node: AutogradNode
    grad_outputs: Gradients
    grad_inputs: Gradients | None
    seconds: float
    order: int


Observer: TypeAlias = Callable[[Event], object]

TIMED = 100_000
"""In graphs of more nodes than this no prehook starts the clock: attaching takes half the memory."""

_recording: Callable[[], bool] = torch.is_grad_enabled
_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack


class Capture:
    """The context manager behind `capture`.

    `problem` says why observing stopped or could not start, "" while all is well. An exception of the
    observer ends the observing and nothing else: the user's backward goes on.
    """

    def __init__(self, nodes: Sequence[AutogradNode], observe: Observer, clocks: bool) -> None:
        self.problem = ""
        self._nodes = nodes
        self._observe: Observer | None = observe
        self._timed = clocks and len(nodes) <= TIMED
        self._started = [0.0] * len(nodes) if self._timed else []
        self._ended = 0.0
        self._order = count()
        self._handles = Handles()

    def __enter__(self) -> Capture:
        try:
            with no_collection():
                self._attach()
            self._ended = perf_counter()
        except BaseException as problem:
            self._handles.close()
            if not isinstance(problem, Exception):
                raise
            self._stop(problem)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._observe = None
        self._handles.close()
        self._nodes = ()

    def _attach(self) -> None:
        hooks = NodeHooks()
        self._handles.callback(hooks.remove)
        self._handles.enter(looking())
        leaf, start, finish = self._leaf, self._start, self._finish
        with hooks.registering() as keep:
            for index, node in enumerate(self._nodes):
                if is_leaf(node):
                    keep(node.register_prehook(partial(leaf, index)))
                else:
                    if self._timed:
                        keep(node.register_prehook(partial(start, index)))
                    keep(node.register_hook(partial(finish, index)))

    def _stop(self, problem: Exception) -> None:
        self._observe = None
        self.problem = f"{type(problem).__name__}: {problem}"

    def _start(self, index: int, grad_outputs: Gradients) -> None:
        self._started[index] = perf_counter()

    def _leaf(self, index: int, grad_outputs: Gradients) -> None:
        if self._observe is not None:
            self._emit(Event(index, self._nodes[index], grad_outputs, None, 0.0, next(self._order)))
            if not self._timed:
                self._ended = perf_counter()

    def _finish(self, index: int, grad_inputs: Gradients, grad_outputs: Gradients) -> None:
        if self._observe is not None:
            now = perf_counter()
            seconds = now - (self._started[index] if self._timed else self._ended)
            if seconds < 0.0:  # another thread's event ended just now
                seconds = 0.0
            self._emit(
                Event(index, self._nodes[index], grad_outputs, grad_inputs, seconds, next(self._order))
            )
        forget()
        if not self._timed:
            self._ended = perf_counter()

    def _emit(self, event: Event) -> None:
        observe = self._observe
        if observe is None:
            return
        try:
            if _recording() or _dispatch_modes() or _function_modes():
                with torch.no_grad(), unseen():
                    observe(event)
            else:  # nothing is recorded and no mode looks: what is left of `unseen`, at a third of its cost
                with torch._C.DisableTorchFunctionSubclass():
                    observe(event)
        except Exception as problem:  # noqa: BLE001 - the user's backward must not notice
            self._stop(problem)


def capture(nodes: Sequence[AutogradNode], observe: Observer, clocks: bool = True) -> Capture:
    """Call `observe` with an `Event` for each of `nodes` that runs while the block is open.

    The observer runs with gradients and torch modes off: ``create_graph=True`` builds no graph of ours
    and a user's mode does not see our operations. It may run on several threads, and inside reentrant
    backwards.

    Args:
        nodes: live nodes; the sequence must stay alive and unchanged until the block ends.
        observe: called after a node's formula, or before a leaf accumulates.
        clocks: time each node's formula by itself, with a prehook on every node; without, `Event.seconds`
            counts from the event before, and observing costs a twelfth less.

    Returns:
        A context manager whose `problem` tells what went wrong, if something did.
    """
    return Capture(nodes, observe, clocks)


def is_leaf(node: AutogradNode) -> bool:
    """Whether `node` accumulates into a leaf's ``.grad``."""
    return type(node).__name__ == "AccumulateGrad"
