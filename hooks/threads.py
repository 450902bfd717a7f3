"""Numbers for threads, in the order in which they are first asked for; none is given twice.

Autograd's sequence numbers begin anew in each thread, and the interpreter gives the identity of a thread that
has ended to another one, so neither tells where a node or a note comes from.
"""

from __future__ import annotations

import threading
import weakref

_living: dict[int, weakref.ref[threading.Thread]] = {}
_lock = threading.Lock()
_newest = 0


class _Here(threading.local):
    """The number of a thread, taken when the thread first looks."""

    def __init__(self) -> None:
        global _newest
        with _lock:
            _newest += 1
            self.number = _newest
            for number, ref in list(_living.items()):
                if not _lives(ref):
                    del _living[number]
            _living[self.number] = weakref.ref(threading.current_thread())


_here = _Here()


def current() -> int:
    """The number of this thread."""
    return _here.number


def newest() -> int:
    """The number that was given last."""
    return _newest


def others_live(than: int) -> bool:
    """Whether a thread that has a number, other `than` this one, may be running still."""
    return any(_lives(ref) for number, ref in list(_living.items()) if number != than)


def _lives(ref: weakref.ref[threading.Thread]) -> bool:
    thread = ref()
    return thread is not None and thread.is_alive()
