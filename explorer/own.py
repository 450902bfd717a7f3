"""Backward calls that are the explorer's own: no watch takes them for the user's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import local

import torch

_ours = local()
"""``_ours.running``: this thread is inside a backward of the explorer's own."""


def is_own() -> bool:
    """Whether the backward that runs on this thread is the explorer's own."""
    return bool(getattr(_ours, "running", False))


@contextmanager
def own_backward() -> Iterator[None]:
    """Marks this thread's backward as ours, and gives back the generators' state."""
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call] # torch leaves it untyped
    _ours.running = True
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        _ours.running = False
