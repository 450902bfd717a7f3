"""What we ask of the user's tensors is not seen by the modes that are active around it, nor by their classes.

A ``TorchDispatchMode`` sees every operation of its thread, a ``TorchFunctionMode`` even the reading of an
attribute, and so does ``__torch_function__`` of a tensor's own class: a script that counts would count ours.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from threading import get_ident
from types import TracebackType
from typing import Any

import torch
from torch.utils._python_dispatch import _disable_current_modes

from hooks.handles import Handles

_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
_FAKE = torch._C._TorchDispatchModeKey.FAKE


class unseen:  # noqa: N801 - reads as what it is in a with statement, like torch.no_grad
    """Modes and ``__torch_function__`` are off inside the block; without modes it costs 0.5 microseconds.

    Args:
        but_fake: with a ``FakeTensorMode`` among them all stay on. So it must be where a backward is run:
            what its formulas make of fake tensors is to be fake.
    """

    __slots__ = ("_but_fake", "_classes", "_stack")

    def __init__(self, but_fake: bool = False) -> None:
        self._but_fake = but_fake
        self._stack: ExitStack | None = None
        self._classes: AbstractContextManager[object] | None = None

    def __enter__(self) -> None:
        # Ctrl-C must leave neither the user's modes off nor his classes unasked.
        if not _dispatch_modes() and not _function_modes():
            self._classes = torch._C.DisableTorchFunctionSubclass()
            try:
                self._classes.__enter__()
            except BaseException:
                self._classes.__exit__(None, None, None)
                raise
        elif not self._but_fake or torch._C._get_dispatch_mode(_FAKE) is None:
            self._stack = ExitStack()
            try:
                self._stack.enter_context(torch._C.DisableTorchFunction())
                self._stack.enter_context(_disable_current_modes())
            except BaseException:
                self._stack.close()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._classes is not None:
            self._classes.__exit__(None, None, None)
        elif self._stack is not None:
            self._stack.close()


def asked() -> AbstractContextManager[object]:
    """Inside `unseen`: here the user's own code runs, and the classes of his tensors are asked as always.

    Where a function mode is active it cannot be told from them, and neither is asked.
    """
    return nullcontext() if _function_modes() else torch._C._EnableTorchFunction()


@contextmanager
def asked_by_engine() -> Iterator[None]:
    """Inside `unseen`: a backward that this thread calls is as `asked` from the engine on.

    ``torch.autograd.grad`` itself is not: it would ask them about that very call.
    """
    engine: Any = torch.autograd._engine_run_backward  # type: ignore[attr-defined] # private
    thread = get_ident()

    def run(*args: Any, **kwargs: Any) -> Any:
        with asked() if get_ident() == thread else nullcontext():
            return engine(*args, **kwargs)

    with Handles() as handles:
        handles.patch(torch.autograd, "_engine_run_backward", run)
        yield
