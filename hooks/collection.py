"""Holds the garbage collector back while many objects are made that all stay."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def no_collection() -> Iterator[None]:
    """Do not collect while this block is open.

    For where millions of records are made and none is garbage: the collector would look through all of
    them again and again (a third of the time on a graph of a million nodes).
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
