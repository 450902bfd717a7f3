"""What we ask of the user's tensors is not seen by the modes that are active around it.

A ``TorchDispatchMode`` sees every operation of its thread, a ``TorchFunctionMode`` even the reading of an
attribute: a script that counts them would count ours.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType

import torch
from torch.utils._python_dispatch import _disable_current_modes

_dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
_function_modes: Callable[[], int] = torch._C._len_torch_function_stack
_FAKE = torch._C._TorchDispatchModeKey.FAKE


class unseen:  # noqa: N801 - reads as what it is in a with statement, like torch.no_grad
    """Modes are off inside the block; where there are none it costs a fraction of a microsecond.

    Args:
        but_fake: with a ``FakeTensorMode`` among them all stay on. So it must be where a backward is run:
            what its formulas make of fake tensors is to be fake.
    """

    __slots__ = ("_but_fake", "_stack")

    def __init__(self, but_fake: bool = False) -> None:
        self._but_fake = but_fake
        self._stack: ExitStack | None = None

    def __enter__(self) -> None:
        if not _dispatch_modes() and not _function_modes():
            return
        if not self._but_fake or torch._C._get_dispatch_mode(_FAKE) is None:
            self._stack = ExitStack()
            try:
                self._stack.enter_context(torch._C.DisableTorchFunction())
                self._stack.enter_context(_disable_current_modes())
            except BaseException:  # Ctrl-C must not leave the user's modes off
                self._stack.close()
                raise

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._stack is not None:
            self._stack.close()
