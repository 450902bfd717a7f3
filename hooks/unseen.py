"""What we ask of the user's tensors is not seen by the modes that are active around it, nor by their classes.

A ``TorchDispatchMode`` sees every operation of its thread, a ``TorchFunctionMode`` even the reading of an
attribute, and so does ``__torch_function__`` of a tensor's own class: a script that counts would count ours.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType

import torch
from torch.utils._python_dispatch import _disable_current_modes

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
