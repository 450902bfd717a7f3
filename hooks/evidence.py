"""The collector of what the diagnoses need beside the graph: one object around the whole run.

Used as::

    with Collector() as collector:          # around the user's script or with-block
        ...
        collector.before(call)              # before each of the user's backward calls, explored or not
        collector.saw(leaves)               # the leaves of a graph that was walked
        collector.after(call)               # after it, whatever happened
    ...
    explorer.gather.look(collector, trace, names, ...)     # before an explored backward: per report
    explorer.gather.of_run(collector, ...)                 # when the run is over: for the whole run

Everything attached is detached when the block ends. Nothing here keeps a tensor or a graph alive.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from types import TracebackType

import torch

from hooks.backward import BackwardCall
from hooks.cuts import Cuts
from hooks.flight import Flight
from hooks.handles import Handles
from hooks.history import History
from hooks.idle import Idle
from hooks.steps import Steps
from hooks.warned import NonLeafReads


class Collector:
    """See the module. `problems` says which part stopped, and why; the user's code never notices.

    `overlapped`: backward calls of several threads ran at once, so that not all gradients could be looked at.
    What was not seen is not held against anybody then.
    """

    def __init__(self) -> None:
        self.steps = Steps()
        self.cuts = Cuts()
        self.history = History()
        self.reads = NonLeafReads()
        self.problems: list[str] = []
        self.complete = False
        self.derived = False
        self.earlier: int | None = None
        self.flight = Flight()
        self.overlapped = False
        self._reached: dict[int, weakref.ref[torch.Tensor]] = {}
        # Given what it needs, not this object: a circle would wait for the garbage collector.
        self.idle = Idle(partial(_only, self._reached))
        self._handles = Handles()

    def __enter__(self) -> Collector:
        try:
            for part in (self.steps, self.cuts, self.reads, self.idle):
                part.attach(self._handles)
        except BaseException:
            self._handles.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self.complete = kind is None
        with self._guard("detaching"):
            self._handles.close()
        if self.steps.problem:
            self.problems.append(self.steps.problem)
        if self.idle.problem:
            self.problems.append(self.idle.problem)

    def before(self, call: BackwardCall) -> None:
        """Look at gradients and the graph's size right before a backward call."""
        self.derived |= call.create_graph
        with self._guard("following gradients"):
            self.steps.before_backward()
            with self.looking() as may_look:
                if may_look:
                    self.idle.before_backward()
        with self._guard("following the graph's size"):
            self.history.before(call)

    def saw(self, leaves: Iterable[torch.Tensor]) -> None:
        """Note leaves that a backward call reaches."""
        for leaf in leaves:
            self._reached[id(leaf)] = weakref.ref(leaf)

    def after(self, call: BackwardCall) -> None:
        """Note what a backward call reached and accumulated."""
        self.earlier = torch._C._autograd._get_sequence_nr()
        with self._guard("following gradients"):
            self.steps.after_backward()
        with self._guard("following the graph's size"):
            self.history.after(call)
        with self._guard("noting which parameters were reached"):
            results = call.result or ()
            self.saw(
                tensor
                for tensor, result in zip(call.inputs, results, strict=False)
                if isinstance(tensor, torch.Tensor) and result is not None
            )

    def look_at(self, parameters: Iterable[torch.Tensor]) -> None:
        """Note those of `parameters` that have a gradient now: some backward reached them."""
        with self._guard("noting which parameters were reached"):
            for parameter in parameters:
                if id(parameter) not in self._reached and parameter.grad is not None:
                    self._reached[id(parameter)] = weakref.ref(parameter)

    def reached(self, parameter: torch.Tensor) -> bool:
        """Whether some backward call reached `parameter`; where calls overlapped, whether one may have."""
        return self.overlapped or self.surely_reached(parameter)

    def surely_reached(self, parameter: torch.Tensor) -> bool:
        """Whether some backward call was seen to reach `parameter`."""
        known = self._reached.get(id(parameter))
        if known is not None and known() is parameter:
            return True
        return not self.overlapped and parameter.grad is not None

    def was_reached(self, parameter: weakref.ref[torch.Tensor]) -> bool:
        """`surely_reached` of a tensor that may be gone."""
        tensor = parameter()
        # A tensor has one plain weak reference, however often it is asked for.
        return (
            self.surely_reached(tensor) if tensor is not None else parameter in list(self._reached.values())
        )

    @contextlib.contextmanager
    def looking(self) -> Iterator[bool]:
        """Whether gradients may be looked at that may be another thread's; once not, never again."""
        with self.flight.alone() as alone:
            if not alone and not self.overlapped:
                self.overlapped = True
                self.idle.give_up()
            yield not self.overlapped

    @contextlib.contextmanager
    def _guard(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.problems.append(f"{what} failed: {type(error).__name__}: {error}")


def _only(reached: Mapping[int, weakref.ref[torch.Tensor]], held: Iterable[torch.Tensor]) -> bool:
    """Whether some leaves were `reached`, and all of them live and are among `held`."""
    ids = {id(one) for one in held}
    return bool(reached) and all(
        (leaf := ref()) is not None and id(leaf) in ids for ref in list(reached.values())
    )
