"""Hooks on every node of a graph, and off again, at a third of the usual cost.

``Node.register_hook`` makes an ``OrderedDict``, a ``RemovableHandle`` and a weak reference for each node, in
Python: ``registerFunctionHook`` (torch/csrc/autograd/python_cpp_function.cpp) calls
``torch.autograd.Function._register_hook(hooks, hook)``, which returns the dictionary that the node keeps
and the handle that the caller gets. While hooks of ours are registered another function stands there, which
makes a small dictionary and no handle: all of ours are taken off by one key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch

from hooks.handles import Handles, Removable

_NAME = "_register_hook"


class _Hooks(dict[object, Any]):
    """What a node keeps its hooks in: weakly referable, as the handle of a later hook of the user's needs."""

    __slots__ = ("__weakref__",)


class NodeHooks:
    """Hooks registered inside `registering`, until `remove`."""

    def __init__(self) -> None:
        self._key = object()
        self._dicts: list[dict[object, Any]] = []
        self._handles: list[Removable] = []

    @contextmanager
    def registering(self) -> Iterator[Callable[[Removable | None], object]]:
        """Every hook that this thread registers on a node inside the block is one of ours.

        Yields:
            what is to be called with the result of each ``register_hook`` and ``register_prehook``: a torch
            that does not ask `_register_hook` gives a handle, which is kept.
        """
        original: Any = getattr(torch.autograd.Function, _NAME, None)
        thread, key, keep = get_ident(), self._key, self._dicts.append
        open_ = True

        def register(hooks: dict[object, Any] | None, hook: Any) -> tuple[dict[object, Any], Any]:
            if not open_ or get_ident() != thread:
                result: tuple[dict[object, Any], Any] = original(hooks, hook)
                return result
            if hooks is None:
                hooks = _Hooks()
            keep(hooks)
            hooks[key] = hook
            return hooks, None

        with Handles() as handles:
            if original is not None:
                handles.patch(torch.autograd.Function, _NAME, staticmethod(register))
            try:
                yield self._keep
            finally:
                open_ = False

    def remove(self) -> None:
        """Take all of them off."""
        key = self._key
        while self._dicts:
            self._dicts.pop().pop(key, None)
        while self._handles:
            self._handles.pop().remove()

    def _keep(self, handle: Removable | None) -> None:
        if handle is not None:
            self._handles.append(handle)
