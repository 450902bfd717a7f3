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


class unseen:  # noqa: N801 - reads as what it is in a with statement, like torch.no_grad
    """Modes are off inside the block; where there are none it costs a fraction of a microsecond."""

    __slots__ = ("_stack",)

    def __init__(self) -> None:
        self._stack: ExitStack | None = None

    def __enter__(self) -> None:
        if _dispatch_modes() or _function_modes():
            stack = ExitStack()
            stack.enter_context(torch._C.DisableTorchFunction())
            stack.enter_context(_disable_current_modes())
            self._stack = stack

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self._stack is not None:
            self._stack.close()
