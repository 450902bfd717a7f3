"""Remembers which tensors the user hooked: torch keeps a hook where Python cannot see it again.

While `observe_hooks` is open, ``Tensor.register_hook`` notes the hook's name beside the node that made the
tensor, in the node's own metadata (plain text, gone with the node). Leaves need no note: their hooks can be
read. Nothing else of the call changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from hooks.handles import Handles
from hooks.nodes import AutogradNode
from hooks.unseen import unseen

_KEY = "explorer.hooks"
_ever = [False]
"""Whether any hook was ever noted: until then no node's metadata, which reading would make, is read."""


@contextmanager
def observe_hooks() -> Iterator[None]:
    """Note the hooks registered inside the ``with`` block on results of operations, in all threads."""
    original = torch.Tensor.register_hook
    open_ = True

    def register_hook(self: torch.Tensor, hook: Any) -> Any:
        handle = original(self, hook)  # type: ignore[no-untyped-call] # torch leaves it untyped
        if not open_ or torch.compiler.is_compiling():
            return handle
        with unseen():
            if self.grad_fn is not None:
                metadata: Any = self.grad_fn.metadata  # torch annotates the property as a method
                noted = metadata.setdefault(_KEY, [])
                noted.append((self.output_nr, name_of(hook)))
                _ever[0] = True
        return handle

    register_hook.__doc__ = original.__doc__
    with Handles() as handles:
        handles.patch(torch.Tensor, "register_hook", register_hook)
        try:
            yield
        finally:
            open_ = False


def hooks_of(node: AutogradNode) -> tuple[tuple[int, str], ...]:
    """(output number, the hook's name) of each hook noted on results of `node`."""
    if not _ever[0]:
        return ()
    try:
        return tuple(node.metadata.get(_KEY, ()))
    except AttributeError:  # a CppFunction has no metadata
        return ()


def name_of(hook: Any) -> str:
    """The function's own name; the class of another callable. Runs nothing of the user's."""
    hook = hook.__func__ if type(hook).__name__ == "method" else hook
    if type(hook).__name__ in ("function", "builtin_function_or_method"):
        return str(hook.__qualname__)
    return type(hook).__name__
