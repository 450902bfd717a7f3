"""Sequence numbers: which nodes were made between two moments of one thread.

``torch._C._autograd._get_sequence_nr()`` tells the next number, so the nodes numbered in [before, after)
were made in between, those hidden inside a composite operation included.

`FunctionRecords` is the way for a torch that tells nobody of new nodes: a function mode notes the
numbers around every call of torch. It does not see ``Function.apply``, scripted functions and other
threads, and warnings of torch's Python functions name its line instead of the user's.
"""

from __future__ import annotations

import sys
import threading
from bisect import bisect_right
from collections.abc import Callable
from types import FrameType
from typing import Any

import torch
from torch import overrides
from torch.overrides import TorchFunctionMode

from hooks.creation import Record, record_here
from hooks.handles import Handles
from hooks.modules import ModuleCalls
from hooks.values import YoungValues

_KEPT = 200_000
_stack: Any = overrides
next_number: Callable[[], int] = torch._C._autograd._get_sequence_nr


class Intervals:
    """Disjoint ranges of sequence numbers per thread, each with the record of its nodes.

    Only the newest 200,000 ranges of a thread are kept.
    """

    def __init__(self) -> None:
        self._threads: dict[int, tuple[list[int], list[int], list[Record]]] = {}

    def add(self, begin: int, end: int, record: Record) -> None:
        """Nodes numbered in [begin, end) of this thread belong to `record`; `begin` never decreases."""
        begins, ends, records = self._threads.setdefault(threading.get_ident(), ([], [], []))
        while begins and begins[-1] >= begin:  # an older thread with the same ident, or an outer range
            del begins[-1], ends[-1], records[-1]
        begins.append(begin)
        ends.append(end)
        records.append(record)
        if len(begins) > _KEPT:
            for column in (begins, ends, records):
                del column[: _KEPT // 2]

    def find(self, number: int) -> Record | None:
        """The record of node `number`; None where no range holds it, or threads contradict each other."""
        found: list[Record] = []
        for begins, ends, records in list(self._threads.values()):
            place = bisect_right(begins, number) - 1
            if place >= 0 and number < ends[place]:
                found.append(records[place])
        return found[0] if found and all(record is found[0] for record in found) else None


class FunctionRecords:
    """The third way: a function mode in the thread that attached it."""

    def __init__(self, modules: ModuleCalls, values: YoungValues | None) -> None:
        self._mode = _Mode(modules, values)

    def attach(self, handles: Handles) -> None:
        """Enter the mode; `handles` takes it out from wherever in the stack it then is."""
        _stack._push_mode(self._mode)
        handles.callback(self._withdraw)

    def pause(self) -> None:
        """Nothing to do: no flag of torch's is set."""

    def resume(self) -> None:
        """Nothing to do."""

    def record_of(self, node: Any) -> Record | None:
        """The record of the range that holds the node's number."""
        return self._mode.intervals.find(node._sequence_nr())

    def _withdraw(self) -> None:
        self._mode.closed = True
        above: list[Any] = []
        while _stack._len_torch_function_stack():
            mode = _stack._pop_mode()
            if mode is self._mode:
                break
            above.append(mode)
        for mode in reversed(above):
            _stack._push_mode(mode)


class _Mode(TorchFunctionMode):
    def __init__(self, modules: ModuleCalls, values: YoungValues | None) -> None:
        super().__init__()
        self.modules = modules
        self.values = values
        self.intervals = Intervals()
        self.closed = False

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        if torch.compiler.is_compiling() or self.closed:
            return func(*args, **(kwargs or {}))
        begin = next_number()
        try:
            result = func(*args, **(kwargs or {}))
        finally:
            end = next_number()
            if end > begin:
                self._note(begin, end, sys._getframe(1))
        if self.values is not None and self.values.looking and type(result) is torch.Tensor:
            self.values.keep(result)
        return result

    def _note(self, begin: int, end: int, frame: FrameType) -> None:
        try:
            self.intervals.add(begin, end, record_here(frame, self.modules))
        except Exception as error:  # noqa: BLE001 - the user's forward must not notice
            self.modules.faults.note("noting where nodes were made", error)
