"""What a non-reentrant checkpoint computes again, seen as torch unpacks it: nothing runs once more for us.

Under ``checkpoint(..., use_reentrant=False)`` a node keeps a holder in place of each tensor, and unpacking it
runs the forward again. Torch unpacks each holder once, right before the node's formula; a second time is an
error. So the unpack hook of checkpoints made inside `observe_checkpoints` also notes what it gave, and
whoever looks at the node in its post-hook is given that: the recomputation happens when, and as often as, it
would without us. What was noted is dropped as soon as the node is done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import torch
import torch.utils.checkpoint

from hooks.handles import Handles

MARK = "noted_for_the_explorer"

_given: dict[int, dict[Any, Any]] = {}
"""By thread (a device runs its nodes on one of its own): holder to what torch was given for it."""

_lookers: list[object] = []
"""Who looks at nodes while backward runs; nothing is noted while nobody does."""


@contextmanager
def observe_checkpoints() -> Iterator[None]:
    """Let checkpoints made inside the block note what they give to backward, which may run later."""
    hook = getattr(torch.utils.checkpoint, "_checkpoint_hook", None)
    with Handles() as handles:
        if hook is not None:
            handles.patch(hook, "__init__", _noting(hook.__init__, handles))
        yield


def _noting(original: Callable[..., None], handles: Handles) -> Callable[..., None]:
    @functools.wraps(original)
    def initialize(self: Any, *args: Any, **options: Any) -> None:
        original(self, *args, **options)
        unpack = getattr(self, "unpack_hook", None)
        if len(handles) and unpack is not None and not torch.compiler.is_compiling():
            self.unpack_hook = _noted(unpack)

    return initialize


def _noted(unpack: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`unpack`, which also notes its result while somebody looks."""

    @functools.wraps(unpack)
    def noted(holder: Any) -> Any:
        value = unpack(holder)
        if _lookers:
            _given.setdefault(get_ident(), {})[holder] = value
        return value

    setattr(noted, MARK, True)
    return noted


@contextmanager
def looking() -> Iterator[None]:
    """While the block is open, what checkpoints give is noted; `forget` it after each node."""
    looker = object()
    _lookers.append(looker)
    try:
        yield
    finally:
        _lookers.remove(looker)
        if not _lookers:
            _given.clear()


def forget() -> None:
    """Drop what was noted on this thread: its node is done."""
    if _given:
        _given.pop(get_ident(), None)


def given(saved: Any) -> tuple[Any, ...]:
    """What torch was given for a raw saved tensor during this node, as a tuple of one; empty if unknown."""
    if not getattr(getattr(saved, "unpack_hook", None), MARK, False):
        return ()
    known = _given.get(get_ident(), {})
    holder = saved.data
    return (known[holder],) if holder in known else ()
