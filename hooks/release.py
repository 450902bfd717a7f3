"""Releases deep graphs without overflowing the C++ stack.

A node whose Python wrapper was ever touched keeps that wrapper for life (torch 2.13), and freeing a
chain of such nodes recurses in C++: 50,000 in a row end the process on an 8 MB stack, 10,000 in a
thread with 1 MB. Looking at a graph touches every wrapper, so whoever looked has to see to the end.

`keep` therefore parks the nodes of a deep graph here, which owns each one separately, and they are let
go root first: when a node goes, those behind it are still owned, so nothing recurses. A node may go
once nobody else owns it, and torch shows that: a wrapper has one reference more while C++ owns its
node. Whoever drops the loss, and whenever, finds the nodes parked; `sweep` collects them soon after.
"""

from __future__ import annotations

import _thread
import atexit
import ctypes
import gc
import signal
import sys
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from hooks.nodes import AutogradNode, is_leaf

SHALLOW = 1000
"""Graphs of at most this many nodes are released by torch alone: a tenth of what a small stack bears."""

_parked: list[list[AutogradNode | None]] = []
"""One list per graph, root last, so that going from the end goes root first; None where one was let go."""

TRIES = 500
"""How often a sweep asked for by a dying root is tried at once, a microsecond each."""

_tries = 0
_sweeping = threading.Lock()
_due = threading.Event()


def keep(nodes: Sequence[AutogradNode], owners: Iterable[Any] = ()) -> None:
    """Take part in owning `nodes` until nobody else does.

    Args:
        nodes: all live nodes of one graph, in any order. Leaves are left out: they end every chain, and
            owning them would keep their hooks alive.
        owners: tensors whose death makes a sweep worthwhile, usually the roots.
    """
    if len(nodes) <= SHALLOW:
        return
    # Parents were created after those they send gradients to, so ascending numbers put the root last.
    # What is parked already must not be owned twice: each list would wait for the other.
    held = {id(node) for graph in _parked for node in graph}
    inner = [node for node in nodes if not is_leaf(node) and id(node) not in held]
    inner.sort(key=_created)
    _parked.append(inner)
    for owner in owners:
        weakref.finalize(owner, _ask).atexit = False
    if _after_collection not in gc.callbacks:
        gc.callbacks.append(_after_collection)


def sweep() -> int:
    """Let go of every parked node that nobody else owns; return how many stay parked."""
    if not _sweeping.acquire(blocking=False):
        return parked()
    try:
        _due.clear()
        # Another round helps where numbers do not follow the graph, as with several threads, and where
        # one graph stands on another.
        while sum(_pass(graph) for graph in _parked):
            pass
        _parked[:] = [graph for graph in _parked if graph]
        if not _parked and _after_collection in gc.callbacks:
            gc.callbacks.remove(_after_collection)
        return parked()
    finally:
        _sweeping.release()


def parked() -> int:
    """How many nodes are parked now."""
    return sum(map(len, _parked))


def _pass(graph: list[AutogradNode | None]) -> bool:
    """Drop what is free, root first; return whether anything was.

    Ctrl-C may come between any two statements: until the last one every node that stays is in `graph`.
    """
    alone = _references_when_alone() + 1
    dropped = False
    for place in range(len(graph) - 1, -1, -1):
        node = graph[place]
        if node is not None and sys.getrefcount(node) <= alone:
            graph[place] = node = None
            dropped = True
    graph[:] = [node for node in graph if node is not None]
    return dropped


def _references_when_alone() -> int:
    """What ``sys.getrefcount`` says of an object held by one local variable alone."""
    probe = object()
    return sys.getrefcount(probe)


def _created(node: AutogradNode) -> int:
    number: int = node._sequence_nr()
    return number


def _ask() -> None:
    """A root is dying, but still owns its node: sweep as soon as this is over."""
    global _tries
    _due.set()
    _tries = TRIES
    ctypes.pythonapi.Py_AddPendingCall(_pending, None)


def _sweep_pending(_: int | None) -> int:
    """Sweep if a root has gone; else ask to be called again.

    This runs between bytecodes, the first time even before the finalizer that asked has returned, when
    the dying tensor still owns its node. A few dozen calls later it does not.
    """
    with _passed_on():
        _try()
    return 0


def _try() -> None:
    global _tries
    _tries -= 1
    if any(sys.getrefcount(graph[-1]) <= _alone_in_list() for graph in list(_parked) if graph):
        sweep()
    elif _tries > 0:
        ctypes.pythonapi.Py_AddPendingCall(_pending, None)


def _alone_in_list() -> int:
    """What ``sys.getrefcount`` says of an object held by one list alone."""
    probe = [object()]
    return sys.getrefcount(probe[-1])


# Runs between two bytecodes of the main thread. If it comes too early, the next collection does it.
_pending = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(_sweep_pending)


def _after_collection(phase: str, info: dict[str, int]) -> None:
    """Sweep after a full garbage collection, or after any when a root has died."""
    if phase == "stop" and (_due.is_set() or info["generation"] == 2):
        with _passed_on():
            sweep()


@contextmanager
def _passed_on() -> Iterator[None]:
    """Ctrl-C within a callback would be lost, for Python cannot raise there: it comes again right after."""
    try:
        yield
    except KeyboardInterrupt:
        if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            raise  # a handler of the user's has had its say
        _thread.interrupt_main()


def _at_exit() -> None:
    """Leave to the end of the process what is still owned: the interpreter drops it in any order."""
    if sweep():
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(_parked))


atexit.register(_at_exit)
