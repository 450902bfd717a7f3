"""Learns of every backward node the moment it is made, by three ways; the first that works is taken.

1. **anomaly**: with torch's anomaly flag on and its NaN check off, the constructor of every node calls
   ``torch.fx.traceback.format_stack`` and keeps the answer in ``node.metadata["traceback_"]``. Ours
   answers with a shared `Record`. All threads, all nodes, hidden ones of composites included.
2. **creation hook**: ``torch.autograd.graph.node_creation_hook`` (torch 2.14). It wraps every node in a
   Python object, and freeing a chain of some 50,000 wrapped nodes overflows the stack: so it is second.
3. **function**: a function mode and sequence numbers, in `hooks.intervals`.

The flag also changes what a failing backward prints, and ``torch.is_anomaly_enabled()``. So it is off
while a backward runs (nodes made then, by ``create_graph``, belong to the line that called backward),
and the three functions that read or set it tell the user's code what that code itself has set.

A `Record` stays in the metadata: strings and code objects, shared by the nodes of a line, gone with
the node.
"""

from __future__ import annotations

import functools
import sys
import threading
import traceback
from types import FrameType
from typing import Any

import torch
import torch.fx.traceback as fx_traceback

from hooks.handles import Handles
from hooks.lines import users_part
from hooks.modules import Call, ModuleCalls, Site
from hooks.nodes import is_leaf
from hooks.places import LIBRARY, OURS, USER, Place, kind_of, kinds
from hooks.unseen import unseen
from hooks.values import YoungValues

TRACE_KEY = "traceback_"
CONTEXT_KEY = "explorer.context"


class Record(list[str]):
    """Where nodes were made; a list of text, because torch joins it when a user's anomaly mode prints it.

    `place` is the user's line, `inner` the innermost instruction (often torch's own Python),
    `library` the innermost line of another package below the user's, `call` the module's call, `thread` the
    number of the thread, by `hooks.threads`.
    """

    __slots__ = ("call", "inner", "library", "place", "thread")
    place: Place | None
    inner: Place | None
    library: Place | None
    call: Call
    thread: int


def record_here(frame: FrameType | None, modules: ModuleCalls) -> Record:
    """The record of whatever is made now, `frame` being the innermost frame to look at.

    The frames are walked outward to the user's line, or to a module's call whose line is known already.
    """
    local = modules.local
    running = local.items
    depth = len(running)
    edge = running[depth - 1].frame if depth else None
    inner: FrameType | None = None
    user: Place | None = None
    library: Place | None = None
    while frame is not None:
        if frame is edge:
            depth -= 1
            site = running[depth].site
            if site is not None:
                user, library = site.user, library or site.library
                depth += 1
                break
            edge = running[depth - 1].frame if depth else None
        code = frame.f_code
        kind = kinds.get(code.co_filename)
        if kind is None:
            kind = kind_of(code.co_filename)
        if inner is None and kind != OURS:
            inner = frame
        if kind == USER:
            user = Place(code, frame.f_lasti)
            break
        if kind == LIBRARY and library is None:
            library = Place(code, frame.f_lasti)
        frame = frame.f_back
    for passed in running[depth:]:
        passed.site = Site(user, library)
    call = running[-1].call if running else modules.outside
    # A code object is safe to know by its id here: the record that is found under it holds it.
    thread = local.thread
    key: tuple[int, ...] = (thread,) if inner is None else (thread, id(inner.f_code), inner.f_lasti)
    if user is not None:
        key += (id(user.code), user.lasti)
    if library is not None:
        key += (id(library.code), library.lasti)
    found: Record | None = call.records.get(key)
    if found is not None:
        return found
    record = call.records[key] = Record()
    record.inner = None if inner is None else Place(inner.f_code, inner.f_lasti)
    record.library = library
    record.place = user or library
    record.call = call
    record.thread = thread
    record.append("" if record.place is None else str(record.place))
    return record


def thread_of(node: Any) -> int | None:
    """The number of the thread that made a live node; None for one that was made while nobody observed."""
    notes = node.metadata
    found = notes.get(TRACE_KEY)
    if type(found) is not Record:
        found = notes.get(CONTEXT_KEY)
    return found.thread if type(found) is Record else None


class AnomalyRecords:
    """The first way: torch's anomaly flag, with the formatting of the stack replaced."""

    def __init__(self, modules: ModuleCalls, values: YoungValues | None) -> None:
        self._modules = modules
        self._values = values
        self._set = torch.set_anomaly_enabled
        self._format = fx_traceback.format_stack
        self._wanted = torch.is_anomaly_enabled()
        self._wanted_check = torch.is_anomaly_check_nan_enabled()
        self._paused = 0
        self._backwards = 0
        self._numbers = threading.local()
        self._open = True
        self._lock = threading.Lock()

    def attach(self, handles: Handles) -> None:
        """Turn the flag on and patch what would show it; `handles` undoes both."""
        handles.callback(self._close)
        handles.patch(fx_traceback, "format_stack", self._format_stack)
        handles.patch(torch, "is_anomaly_enabled", self._is_enabled)
        handles.patch(torch, "is_anomaly_check_nan_enabled", self._is_check_enabled)
        handles.patch(torch, "set_anomaly_enabled", self._set_enabled)
        self._apply()

    def pause(self) -> None:
        """A backward begins: what it prints when it fails must be what the user's own settings print."""
        with self._lock:
            self._paused += 1
            self._apply()

    def resume(self) -> None:
        """A backward has ended."""
        with self._lock:
            self._paused -= 1
            self._backwards += 1
            self._apply()

    def record_of(self, node: Any) -> Record | None:
        """The record the constructor left in the node, if it was made while this was attached."""
        found = node.metadata.get(TRACE_KEY)
        return found if type(found) is Record else None

    def _close(self) -> None:
        with self._lock:
            self._open = False
            self._apply()

    def _apply(self) -> None:
        ours = self._open and not self._paused
        if self._wanted or not ours:
            self._set(self._wanted, self._wanted_check)
        else:
            self._set(True, False)

    def _is_enabled(self) -> bool:
        return self._wanted if self._open else torch.is_anomaly_enabled()

    def _is_check_enabled(self) -> bool:
        return self._wanted_check if self._open else torch.is_anomaly_check_nan_enabled()

    def _set_enabled(self, enabled: bool, check_nan: bool = True) -> None:
        if not self._open:
            self._set(enabled, check_nan)
            return
        with self._lock:
            self._wanted, self._wanted_check = enabled, check_nan
            self._apply()

    def _took_a_number(self) -> bool:
        """Whether the node that is being made is surely none that accumulates into a leaf.

        Those alone take no sequence number. Numbers are per thread, and unknown after a backward.
        """
        now = (self._backwards, int(torch._C._autograd._get_sequence_nr()))
        before: tuple[int, int] | None = getattr(self._numbers, "last", None)
        self._numbers.last = now
        return before is not None and before[0] == now[0] and before[1] != now[1]

    def _format_stack(self) -> list[str]:
        if not self._open or fx_traceback.should_preserve_node_meta:
            return self._format()
        values = self._values
        try:
            if values is not None and values.looking:
                if self._modules.in_large():
                    values.pass_by()
                else:
                    with unseen():
                        values.look(apart=self._took_a_number())
            record = record_here(sys._getframe(1), self._modules)
        except Exception as error:  # noqa: BLE001 - the user's forward must not notice
            self._modules.faults.note("noting where nodes were made", error)
            return self._format() if self._wanted else []
        if not self._wanted:
            return record
        shown = Record(users_part(traceback.format_list(traceback.extract_stack()[:-1])))
        shown.place, shown.inner = record.place, record.inner
        shown.library, shown.call, shown.thread = record.library, record.call, record.thread
        return shown


class CreationHookRecords:
    """The second way: torch's own hook, which hands over every node made in the thread that entered it."""

    def __init__(self, modules: ModuleCalls, values: YoungValues | None) -> None:
        self._modules = modules
        self._values = values

    def attach(self, handles: Handles) -> None:
        """Enter torch's hook until `handles` closes."""
        hook: Any = torch.autograd.graph
        handles.enter(hook.node_creation_hook(self._made))

    def pause(self) -> None:
        """Nothing to do: this way changes nothing that a backward shows."""

    def resume(self) -> None:
        """Nothing to do."""

    def record_of(self, node: Any) -> Record | None:
        """The record the hook put into the node's metadata."""
        found = node.metadata.get(CONTEXT_KEY)
        return found if type(found) is Record else None

    def _made(self, node: Any) -> None:
        if torch.compiler.is_compiling():
            return
        try:
            values = self._values
            if values is not None and values.looking:
                if self._modules.in_large():
                    values.pass_by()
                else:
                    with unseen():
                        values.look(apart=not is_leaf(node))
            node.metadata.setdefault(CONTEXT_KEY, record_here(sys._getframe(1), self._modules))
        except Exception as error:  # noqa: BLE001 - the user's forward must not notice
            self._modules.faults.note("noting where nodes were made", error)


@functools.cache
def anomaly_reaches_us() -> bool:
    """Whether this torch asks ``format_stack`` for every new node and keeps the answer in the metadata.

    Tried on one node in a thread of its own, where no mode of the user's is active.
    """
    seen: list[bool] = []

    def attempt() -> None:
        handles = Handles()
        with handles:
            records = AnomalyRecords(ModuleCalls(), None)
            records.attach(handles)
            leaf = torch.ones((), requires_grad=True)
            seen.append(records.record_of((leaf * leaf).grad_fn) is not None)

    try:
        thread = threading.Thread(target=attempt, daemon=True)
        thread.start()
        thread.join()
    except (AttributeError, RuntimeError):
        return False
    return seen == [True]
