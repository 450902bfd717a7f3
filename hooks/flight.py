"""Backward calls in flight, thread by thread: while one runs, no other thread may touch its gradients.

The engine works without Python's lock. It takes a leaf's ``.grad`` away or puts another one there, and frees
what was there, while a thread that reads that ``.grad`` makes Python objects of the same tensor and storage:
torch 2.13 then dies of a corrupted heap or a failed assertion (``THPStorage_dealloc``), in one run of four
where three threads train a model each.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

PATIENCE = 1.0
"""Seconds that one waits at most for another thread's reading, which takes a thousandth of that."""


class Flight:
    """Which threads are inside a backward; and reading while no other one is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._inside: dict[int, int] = {}

    @contextmanager
    def backward(self) -> Iterator[None]:
        """Around a backward call: it begins when nobody reads."""
        here = threading.get_ident()
        self._count(here, 1)
        try:
            yield
        finally:
            self._count(here, -1)

    @contextmanager
    def alone(self) -> Iterator[bool]:
        """Whether no other thread is inside a backward; if so, none begins one before the block ends.

        False too where another thread reads for long, or did when this process was forked from it.
        """
        here = threading.get_ident()
        mine = self._lock.acquire(timeout=PATIENCE)
        try:
            yield mine and not any(thread != here for thread in list(self._inside))
        finally:
            if mine:
                self._lock.release()

    def _count(self, thread: int, change: int) -> None:
        mine = self._lock.acquire(timeout=PATIENCE)
        try:
            count = self._inside.get(thread, 0) + change
            if count > 0:
                self._inside[thread] = count
            else:
                self._inside.pop(thread, None)
        finally:
            if mine:
                self._lock.release()
