"""Who laid hands on a tensor's memory past autograd's version counters, and when.

A change through ``.data`` is counted nowhere, so the reads of ``.data``, assignments to it and ``detach()``
are noted: the storage, the user's line, and the number that the next backward node would take. That number
says which operations came before, and that the storage is the same one: what an operation saved lives
since, so nothing else can have taken its address. A read proves no change; a change that is found by other
means can then be told with its line.

Versions of parameters are noted as their modules run, one number each: what has the same version now as
before an operation was not changed with autograd's knowledge in between.
"""

from __future__ import annotations

import dis
import threading
import weakref
from collections.abc import Sequence
from functools import lru_cache
from types import FrameType
from typing import Any, Literal, NamedTuple

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from hooks.handles import Handles
from hooks.lines import user_place
from hooks.memory import storage_of
from hooks.places import TORCH, Place, kind_of

MOST, EACH = 20_000, 8
"""Storages remembered, and the latest notes on each."""

LAST = 2**62
"""A number after that of every node."""

How = Literal["data", "assigned", "detach"]


class Hold(NamedTuple):
    """One taking hold of memory, by the instruction `at`, on the user's line `place`.

    `number` is that of the node made next.
    """

    number: int
    how: How
    at: Place
    place: Place | None


class Edits:
    """The notes of one run; `since` is the number from which on they are complete."""

    def __init__(self) -> None:
        self.since = int(torch._C._autograd._get_sequence_nr())
        self._thread = threading.get_ident()
        self._by_storage: dict[int, list[Hold]] = {}
        self._by_node: dict[int, list[Hold]] = {}
        self._versions: dict[int, tuple[weakref.ref[torch.Tensor], int, int]] = {}
        self._open = True

    def attach(self, handles: Handles) -> None:
        """Note the versions of parameters before their modules run; `handles` ends it."""
        handles.callback(self._retire)
        handles.add(register_module_forward_pre_hook(self._before))

    def note(self, tensor: torch.Tensor, how: How, frame: FrameType) -> None:
        """Note that the code at `frame` takes hold of the memory of `tensor`, a plain one."""
        storage = storage_of(tensor) if self._open else None
        if storage is None:
            return
        # Numbers are per thread: what another thread does may have come after everything.
        ours = threading.get_ident() == self._thread
        number = int(torch._C._autograd._get_sequence_nr()) if ours else LAST
        made: list[int] = []
        if ours and tensor.requires_grad and kind_of(frame.f_code.co_filename) != TORCH:
            # What is seen through a view is its base's memory.
            owners = (tensor, tensor._base) if tensor._is_view() else (tensor,)
            nodes: list[Any] = [None if one is None else one.grad_fn for one in owners]
            made = [int(node._sequence_nr()) for node in nodes if node is not None]
        hold = Hold(number, how, Place(frame.f_code, frame.f_lasti), user_place(frame))
        if len(self._by_storage) >= MOST or len(self._by_node) >= MOST:
            self._by_storage.clear()
            self._by_node.clear()
            self._versions.clear()
            self.since = max(self.since, number)
        _add(self._by_storage, storage, hold)
        for one in made:
            _add(self._by_node, one, hold)

    def on(self, storage: int) -> tuple[Hold, ...]:
        """What is noted of a storage, the earliest first, without what only reads."""
        return _writing(self._by_storage.get(storage, ()))

    def of_node(self, number: int) -> tuple[Hold, ...]:
        """What is noted of the result of the node with this number."""
        return _writing(self._by_node.get(number, ()))

    def unchanged(self, leaf: torch.Tensor, number: int) -> bool:
        """Whether a parameter has the version now that it had before node `number` was made."""
        known = self._versions.get(id(leaf))
        return (
            known is not None
            and known[0]() is leaf
            and known[1] == leaf._version
            and known[2] <= number
            and not any(hold.number > number for hold in self.on(storage_of(leaf) or 0))
        )

    def stop(self) -> None:
        """Note nothing more; what is known is complete for nothing that comes."""
        self._open = False
        self.since = LAST

    def _retire(self) -> None:
        self._open = False

    def _before(self, module: torch.nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or not self._open or threading.get_ident() != self._thread:
            return
        try:
            for parameter in module._parameters.values():
                if type(parameter) is torch.nn.Parameter:
                    self._note_version(parameter)
        except Exception:  # noqa: BLE001 - the user's forward must not notice
            self.stop()

    def _note_version(self, parameter: torch.nn.Parameter) -> None:
        known, version = self._versions.get(id(parameter)), parameter._version
        if known is None or known[1] != version or known[0]() is not parameter:
            if len(self._versions) >= MOST:
                self._versions.clear()
            number = int(torch._C._autograd._get_sequence_nr())
            self._versions[id(parameter)] = (weakref.ref(parameter), version, number)


def _writing(holds: Sequence[Hold]) -> tuple[Hold, ...]:
    return tuple(one for one in holds if one.how != "data" or not only_reads(one.at))


_FRESH = frozenset(
    {
        "max", "min", "mean", "sum", "norm", "std", "var", "item", "clone",
        "argmax", "argmin", "tolist", "abs", "topk", "sort", "sign", "eq", "ne",
        "gt", "lt", "ge", "le", "any", "all", "size", "shape", "dim",
        "dtype", "device", "numel", "new", "mul", "add", "sub", "div", "pow",
        "sqrt", "exp", "log", "clamp", "round", "matmul", "mm", "isnan", "isinf",
        "ndim", "new_zeros", "new_ones", "new_empty", "nonzero", "median", "square",
    }
)  # fmt: skip
"""Attributes of a tensor that give no way to change it."""


@lru_cache(maxsize=4096)
def only_reads(place: Place) -> bool:
    """Whether the instruction after the one at `place` asks a tensor for something that cannot change it.

    ``y.data.max(1)`` is so; ``y.data.mul_(2)``, ``y.data[0] = 1`` and ``d = y.data`` are not, or may not be.
    """
    after = [one for one in dis.get_instructions(place.code) if one.offset > place.lasti][:1]
    return bool(after) and after[0].opname in ("LOAD_ATTR", "LOAD_METHOD") and after[0].argval in _FRESH


def _add(notes: dict[int, list[Hold]], key: int, hold: Hold) -> None:
    known = notes.setdefault(key, [])
    known.append(hold)
    if len(known) > EACH:
        del known[0]
