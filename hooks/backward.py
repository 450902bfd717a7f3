"""Sees every backward call: ``Tensor.backward``, ``autograd.backward``, ``autograd.grad`` and their kin.

They all pass one door, ``torch.autograd._engine_run_backward``. Calls made while another backward runs
(reentrant checkpoint), while torch compiles, or under a ``torch.func`` transform go through unseen.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any, TypeAlias, TypeVar

import torch
import torch.autograd.graph

from hooks.faults import Faults
from hooks.handles import Handles

PACKAGES = tuple(
    f"{Path(path).resolve().parent}{end}"
    for path, end in ((torch.__file__, "/"), (__file__, "/"), (str(Path(__file__).parent), "/explorer/"))
)
"""Folders whose frames are not the user's: torch, hooks, explorer."""

F = TypeVar("F", bound=Callable[..., Any])
DOOR = "_engine_run_backward"
UNCOUNTED = str(Path(__file__).parent / "importlib" / "_bootstrap")
"""A file name of ours that the `warnings` module leaves out of its counting, like the import system's."""


def uncounted(function: F) -> F:
    """Keep a function that stands around a backward from shifting the lines that warnings name.

    Some count frames up to the user's (``stacklevel=5`` of full backward hooks).
    """
    plain: Any = function
    plain.__code__ = plain.__code__.replace(co_filename=UNCOUNTED)
    return function


@dataclass
class BackwardCall:
    """One outermost backward call.

    `roots` are tensors (or GradientEdges); `grad_tensors` match them, None where torch fills in a 1.
    `inputs` is empty when every leaf is meant. `accumulate`: into ``.grad`` (backward), or not (grad).
    `frame` is the innermost frame of the user's own code; it is dropped when the call ends.
    `result` is what torch returned: one gradient per input for ``grad``; None until then.
    """

    roots: tuple[Any, ...]
    grad_tensors: tuple[torch.Tensor | None, ...]
    inputs: tuple[Any, ...]
    keep_graph: bool
    create_graph: bool
    accumulate: bool
    frame: FrameType | None
    result: tuple[torch.Tensor | None, ...] | None = None


Around: TypeAlias = Callable[[BackwardCall], AbstractContextManager[object]]


@contextmanager
def watch_backward(around: Around, faults: Faults | None = None) -> Iterator[None]:
    """Enter ``around(call)`` for each outermost backward call made while this block is open.

    The call itself runs inside ``around(call)``: what is raised there before or after it reaches the
    user, so `around` must guard itself. An exception of the backward passes through `around`.

    Args:
        around: given a `BackwardCall`, returns a context manager; its value is not used.
        faults: told of calls that could not be understood; they go through unseen.
    """
    state = threading.local()
    open_ = True

    def watching(original: Any) -> Any:
        @uncounted
        def watched(t_outputs: Any, *args: Any, **kwargs: Any) -> Any:
            # Every test first: tracing code must find nothing here but the call.
            if torch.compiler.is_compiling() or not open_ or getattr(state, "inside", False):
                return original(t_outputs, *args, **kwargs)
            if torch._C._current_graph_task_id() != -1 or _transformed(t_outputs):
                return original(t_outputs, *args, **kwargs)
            try:
                call = _describe(t_outputs, *args, **kwargs)
            except Exception as error:  # noqa: BLE001 - the user's backward must not notice
                if faults is not None:
                    faults.note("reading the arguments of a backward call", error)
                return original(t_outputs, *args, **kwargs)
            state.inside = True
            try:
                with around(call):
                    call.result = result = original(t_outputs, *args, **kwargs)
                return result
            finally:
                state.inside = False
                call.frame = None
                call.result = None

        return watched

    with Handles() as handles:
        for owner in _doors():  # somebody else may stand at one of them already
            handles.patch(owner, DOOR, watching(vars(owner)[DOOR]))
        try:
            yield
        finally:
            open_ = False
            # Who patched over one of ours meanwhile may keep it, but not what we were called by.
            around = _nothing


def _nothing(call: BackwardCall) -> AbstractContextManager[object]:
    """What goes around a backward call that nobody watches any more."""
    return nullcontext()


def user_frame(frame: FrameType | None) -> FrameType | None:
    """The first frame from `frame` outward that is neither torch's nor ours."""
    while frame is not None and is_foreign(frame.f_code.co_filename):
        frame = frame.f_back
    return frame


def is_foreign(file: str) -> bool:
    """Whether code in `file` is torch's, ours, or made up by the interpreter."""
    return file.startswith(PACKAGES) or file.startswith("<frozen")


def _doors() -> list[Any]:
    """Every loaded module of torch's autograd that binds the door under its name."""
    package: Any = torch.autograd
    found, seen = [package], {id(package)}
    for module in found:  # grows while it is read
        for inner in list(vars(module).values()):
            if type(inner) is not ModuleType or id(inner) in seen:
                continue
            if inner.__name__.startswith("torch.autograd."):
                seen.add(id(inner))
                found.append(inner)
    return [module for module in found if callable(vars(module).get(DOOR))]


def _transformed(roots: Any) -> bool:
    """Whether this is a call of AOTAutograd's tracing or of a ``torch.func`` transform."""
    if torch._guards.TracingContext.try_get() is not None:
        return True
    return any(
        isinstance(root, torch.Tensor) and torch._C._functorch.is_functorch_wrapped_tensor(root)
        for root in roots
    )


def _describe(
    roots: Any,
    grad_tensors: Any = (),
    keep_graph: bool = False,
    create_graph: bool = False,
    inputs: Any = (),
    allow_unreachable: bool = False,
    accumulate_grad: bool = False,
) -> BackwardCall:
    """Read the arguments of the engine's own call, by position as torch passes them."""
    return BackwardCall(
        roots=tuple(roots),
        grad_tensors=tuple(grad_tensors),
        inputs=tuple(inputs or ()),
        keep_graph=bool(keep_graph),
        create_graph=bool(create_graph),
        accumulate=bool(accumulate_grad),
        frame=user_frame(sys._getframe(2)),
    )
