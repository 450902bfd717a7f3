"""Who laid hands on a tensor's memory past autograd's version counters, and when.

A change through ``.data`` is counted nowhere, so the reads of ``.data``, assignments to it and ``detach()``
are noted: the storage, the user's line, and the number that the next backward node would take. That number
says which operations came before, and that the storage is the same one: what an operation saved lives
since, so nothing else can have taken its address. A read proves no change; a change that is found by other
means can then be told with its line.

Each thread numbers its nodes by itself, so a note is ordered with the nodes of its own thread alone: of two
threads nobody knows which came first.

Versions of parameters are noted as their modules run, one number each: what has the same version now as
before an operation was not changed with autograd's knowledge in between.
"""

from __future__ import annotations

import dis
import weakref
from collections.abc import Iterable, Sequence
from functools import lru_cache
from types import FrameType
from typing import Any, Literal, NamedTuple, TypeVar

import torch
from torch.nn.modules.module import register_module_forward_pre_hook

from hooks.creation import anomaly_reaches_us, thread_of
from hooks.handles import Handles
from hooks.lines import user_place
from hooks.memory import storage_of
from hooks.places import TORCH, Place, kind_of
from hooks.threads import current, newest, others_live
from hooks.unseen import unseen

MOST, EACH = 20_000, 8
"""Storages remembered, and the latest notes on each."""

LAST = 2**62
"""A number after that of every node."""

How = Literal["data", "assigned", "detach"]
_Key = TypeVar("_Key")


class Moment(NamedTuple):
    """A place in the order of what one thread does: the thread, and the number of a node made there."""

    thread: int
    number: int


class Hold(NamedTuple):
    """One taking hold of memory, by the instruction `at`, on the user's line `place`.

    `moment` is that of the node its thread makes next.
    """

    moment: Moment
    how: How
    at: Place
    place: Place | None

    def before(self, made: Moment | None) -> bool:
        """Whether it surely was before the node `made` then."""
        return made is not None and self.moment.thread == made.thread and self.moment.number <= made.number

    def after(self, made: Moment | None) -> bool:
        """Whether it surely was after the node `made` then."""
        return made is not None and self.moment.thread == made.thread and self.moment.number > made.number


class Version(NamedTuple):
    """The version that a parameter had at a moment."""

    of: weakref.ref[torch.Tensor]
    version: int
    moment: Moment


class Edits:
    """The notes of one run: complete from its beginning, in its own thread and in those met later."""

    def __init__(self) -> None:
        self._since = _now()
        self._met = newest()
        self._by_storage: dict[int, list[Hold]] = {}
        self._by_node: dict[Moment, list[Hold]] = {}
        self._versions: dict[int, Version] = {}
        self._open = True
        self._trusted = True

    def attach(self, handles: Handles) -> None:
        """Note the versions of parameters before their modules run; `handles` ends it."""
        anomaly_reaches_us()  # asks in a thread of its own, which is not met later then
        self._since, self._met = _now(), newest()
        handles.callback(self._retire)
        handles.add(register_module_forward_pre_hook(self._before))

    def note(self, tensor: torch.Tensor, how: How, frame: FrameType) -> None:
        """Note that the code at `frame` takes hold of the memory of `tensor`, a plain one."""
        storage = storage_of(tensor) if self._open else None
        if storage is None:
            return
        moment = _now()
        made: list[Moment] = []
        if tensor.requires_grad and kind_of(frame.f_code.co_filename) != TORCH:
            # What is seen through a view is its base's memory.
            owners = (tensor, tensor._base) if tensor._is_view() else (tensor,)
            nodes: list[Any] = [None if one is None else one.grad_fn for one in owners]
            made = [one for one in (self.made(node) for node in nodes if node is not None) if one is not None]
        hold = Hold(moment, how, Place(frame.f_code, frame.f_lasti), user_place(frame))
        if len(self._by_storage) >= MOST or len(self._by_node) >= MOST:
            self._begin_anew(moment)
        _add(self._by_storage, storage, hold)
        for one in made:
            _add(self._by_node, one, hold)

    def made(self, node: Any) -> Moment | None:
        """When a live node that is no leaf's was made; None where its thread is not known.

        Nodes made while a backward runs have no note of theirs: they are this thread's if there is no other.
        """
        thread = thread_of(node)
        if thread is None:
            first = self._since.thread
            if newest() > self._met or others_live(first):
                return None
            thread = first
        return Moment(thread, int(node._sequence_nr()))

    def complete(self, moment: Moment | None) -> bool:
        """Whether all that laid hands on memory since then is noted."""
        if not self._trusted or moment is None:
            return False
        if moment.thread == self._since.thread:
            return moment.number >= self._since.number
        return moment.thread > self._met

    def on(self, storage: int) -> tuple[Hold, ...]:
        """What is noted of a storage, the earliest first, without what only reads."""
        return _writing(self._by_storage.get(storage, ()))

    def of_node(self, made: Moment) -> tuple[Hold, ...]:
        """What is noted of the result of the node that was made then."""
        return _writing(self._by_node.get(made, ()))

    def unchanged(self, leaf: torch.Tensor, users: Iterable[Any]) -> bool:
        """Whether a parameter has the version now that it had before any of the nodes `users` was made."""
        known = self._versions.get(id(leaf))
        if known is None or known.of() is not leaf or known.version != leaf._version:
            return False
        used = [self.made(user) for user in users]
        first = min((one for one in used if one is not None), default=None)
        if first is None or any(one is None or one.thread != known.moment.thread for one in used):
            return False
        return known.moment.number <= first.number and all(
            hold.before(first) for hold in self.on(storage_of(leaf) or 0)
        )

    def stop(self) -> None:
        """Note nothing more; what is known is complete for nothing that comes."""
        self._open = self._trusted = False

    def _begin_anew(self, moment: Moment) -> None:
        """Let go of all notes: what came before is known no more, in other threads not even when that was."""
        for notes in (self._by_storage, self._by_node, self._versions):
            notes.clear()
        number = moment.number if moment.thread == self._since.thread else LAST
        self._since, self._met = Moment(self._since.thread, number), newest()

    def _retire(self) -> None:
        self._open = False

    def _before(self, module: torch.nn.Module, inputs: Any) -> None:
        if torch.compiler.is_compiling() or not self._open:
            return
        try:
            with unseen():
                for parameter in module._parameters.values():
                    if type(parameter) is torch.nn.Parameter:
                        self._note_version(parameter)
        except Exception:  # noqa: BLE001 - the user's forward must not notice
            self.stop()

    def _note_version(self, parameter: torch.nn.Parameter) -> None:
        known, version = self._versions.get(id(parameter)), parameter._version
        if known is None or known.version != version or known.of() is not parameter:
            if len(self._versions) >= MOST:
                self._versions.clear()
            self._versions[id(parameter)] = Version(weakref.ref(parameter), version, _now())


def _now() -> Moment:
    """The moment of the node that this thread makes next."""
    return Moment(current(), int(torch._C._autograd._get_sequence_nr()))


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


def _add(notes: dict[_Key, list[Hold]], key: _Key, hold: Hold) -> None:
    known = notes.setdefault(key, [])
    known.append(hold)
    if len(known) > EACH:
        del known[0]
