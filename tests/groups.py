"""A process group of this process only, gone afterwards with all that torch leaves behind."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import distributed


@contextmanager
def group_of_one() -> Iterator[None]:
    """A gloo group of rank 0 alone.

    The work of its last all-reduce holds a Python object, which gloo's own thread drops under the
    interpreter's lock; the group's destructor joins that thread while it holds the lock. Without a moment in
    between, torch 2.13 hangs in it once in some 50 runs, with or without us. And torch puts a hook of its
    own in ``sys.excepthook`` that stays.
    """
    hook = sys.excepthook
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        time.sleep(0.2)
        distributed.destroy_process_group()
        sys.excepthook = hook
