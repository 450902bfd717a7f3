"""Sees where values leave the graph: ``detach``, ``.data``, ``item``, ``tolist``, ``no_grad``.

For each such place the leaves upstream are noted (weakly), and what would prove that the value came
back into a loss: the storage of the detached tensor (weakly, so that its address cannot be taken over
by another), or the plain numbers. Nothing is kept alive and no value changes.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import FrameType
from typing import Any

import torch
from torch.multiprocessing.reductions import StorageWeakRef
from torch.nn.modules.module import register_module_forward_hook

from hooks.blocks import Blocks
from hooks.edits import Edits, How
from hooks.handles import Handles
from hooks.lines import user_place
from hooks.memory import storage_of
from hooks.nodes import AutogradNode, is_leaf
from hooks.places import OURS, TORCH, USER, Place, kind_of
from hooks.saved import read
from hooks.unseen import unseen

PER_PLACE = 8
"""Cuts noted per line: a line in a loop cuts the same way every time."""
UPSTREAM = 2000
"""Nodes walked upstream of a cut; leaves beyond are left out (silence, never a wrong name)."""
_PLAIN = (torch.Tensor, torch.nn.Parameter)


@dataclass(frozen=True, slots=True)
class CutSeen:
    """One cut: `how` as the source spells it, the `leaves` upstream, and what it left behind."""

    place: Place
    how: str
    leaves: tuple[weakref.ref[torch.Tensor], ...]
    storage: StorageWeakRef | None = None
    value: object = None


class Cuts:
    """Attach with `attach`; `feeding` then tells which cuts a graph is fed by."""

    def __init__(self) -> None:
        self._seen: dict[tuple[int, int, str], list[CutSeen]] = {}
        self.edits = Edits()
        self._open = True

    def attach(self, handles: Handles) -> None:
        """Patch the few methods through which values leave; `handles` puts everything back."""
        handles.callback(self._retire)
        self.edits.attach(handles)
        # Not `__float__`: torch warns from within, and would name a line of ours.
        for name in ("detach", "detach_", "item", "tolist"):
            self._wrap(handles, name)
        self._wrap_data(handles)
        Blocks(self._note_block).attach(handles)
        handles.add(register_module_forward_hook(self._ran))

    def feeding(self, live: Sequence[AutogradNode], roots: Sequence[Any]) -> list[tuple[CutSeen, int | None]]:
        """The cuts whose value this graph uses, each with the index of a node that uses it (None: a root).

        Proven by the storage of a saved tensor, of a leaf or of a root, or by the plain number a leaf was
        made from.
        """
        cuts = [cut for cuts in list(self._seen.values()) for cut in cuts]
        if not cuts:
            return []
        used: dict[int, int | None] = {}
        scalars: dict[float, int | None] = {}
        for tensor in (root for root in roots if isinstance(root, torch.Tensor)):
            _note(tensor, None, used, scalars)
        for index, node in enumerate(live):
            if is_leaf(node):
                if not isinstance(node.variable, torch.nn.Parameter):
                    _note(node.variable, index, used, scalars)
                continue
            for saved in read(node).values():
                if isinstance(saved.value, torch.Tensor):
                    storage = storage_of(saved.value)
                    if storage is not None:
                        used.setdefault(storage, index)
        found: list[tuple[CutSeen, int | None]] = []
        for cut in cuts:
            if cut.storage is not None:
                if cut.storage.cdata in used and _alive(cut.storage):
                    found.append((cut, used[cut.storage.cdata]))
            elif isinstance(cut.value, float) and cut.value in scalars:
                found.append((cut, scalars[cut.value]))
        return found

    def exits_of(self, leaf: torch.Tensor) -> list[CutSeen]:
        """Where something computed from `leaf` left the graph, whatever became of it."""
        return [
            cut
            for cuts in list(self._seen.values())
            for cut in cuts
            if any(ref() is leaf for ref in cut.leaves)
        ]

    def _retire(self) -> None:
        self._open = False

    def _wrap(self, handles: Handles, name: str) -> None:
        original: Callable[..., Any] = getattr(torch.Tensor, name)

        def wrapper(self_: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or not self._open or type(self_) not in _PLAIN or _ours():
                return original(self_, *args, **kwargs)
            frame = sys._getframe(1)
            node = None
            with unseen():
                noted = self_.requires_grad
                if noted and name == "detach":
                    self._note_hold(self_, "detach", frame)
                if noted and self_.is_leaf and kind_of(frame.f_code.co_filename) == TORCH:
                    noted = False  # state_dict, a wrapper being made
                if noted and name == "detach_":
                    node = self_.grad_fn
            result = original(self_, *args, **kwargs)
            if not noted:
                return result
            try:
                with unseen():
                    self._note_cut(self_, name, result, node, user_place(frame))
            except Exception:  # noqa: BLE001 - the user's call has succeeded and must return
                self._open = False
            return result

        wrapper.__name__, wrapper.__doc__ = name, original.__doc__
        handles.patch(torch.Tensor, name, wrapper)

    def _wrap_data(self, handles: Handles) -> None:
        """See the user's own lines read ``.data`` of a result; a parameter's is read to change it."""
        original: Any = torch.Tensor.data

        def read(self_: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = original.__get__(self_)
            if torch.compiler.is_compiling() or not self._open or type(self_) not in _PLAIN:
                return result
            frame = sys._getframe(1)
            with unseen():
                self._note_hold(self_, "data", frame)
                if (
                    type(self_) is not torch.Tensor
                    or self_.grad_fn is None
                    or kind_of(frame.f_code.co_filename) != USER
                ):
                    return result
            try:
                with unseen():
                    self._note_cut(self_, "data", result, None, Place(frame.f_code, frame.f_lasti))
            except Exception:  # noqa: BLE001 - the user's read has succeeded and must return
                self._open = False
            return result

        def assign(self_: torch.Tensor, value: torch.Tensor) -> None:
            original.__set__(self_, value)
            if not torch.compiler.is_compiling() and self._open and type(self_) in _PLAIN:
                with unseen():
                    self._note_hold(self_, "assigned", sys._getframe(1))  # its memory is another one now

        seen = property(read, assign, original.__delete__, original.__doc__)
        handles.patch(torch.Tensor, "data", seen)

    def _note_hold(self, tensor: torch.Tensor, how: How, frame: FrameType) -> None:
        try:
            self.edits.note(tensor, how, frame)
        except Exception:  # noqa: BLE001 - the user's own access must go on
            self.edits.stop()

    def _note_cut(
        self, tensor: torch.Tensor, how: str, result: Any, node: AutogradNode | None, place: Place | None
    ) -> None:
        if place is None or torch._C._current_graph_task_id() != -1:
            return
        key = (id(place.code), place.lasti, how)
        known = self._seen.setdefault(key, [])
        if len(known) >= PER_PLACE:
            return
        node = node or tensor.grad_fn
        leaves = (weakref.ref(tensor),) if node is None else upstream(node)
        if isinstance(result, torch.Tensor):
            known.append(CutSeen(place, how, leaves, _weak(result)))
        else:
            known.append(CutSeen(place, how, leaves, None, result if isinstance(result, float) else None))

    def _note_block(self, place: Place, value: torch.Tensor, leaves: list[torch.Tensor]) -> None:
        """Note a variable that a block under ``no_grad`` has bound."""
        known = self._seen.setdefault((id(place.code), place.lasti, "no_grad"), [])
        if self._open and len(known) < PER_PLACE and storage_of(value) is not None:
            known.append(CutSeen(place, "no_grad", tuple(map(weakref.ref, leaves)), _weak(value)))

    def _ran(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        """Note what a module with parameters gave under ``no_grad``."""
        if torch.compiler.is_compiling() or torch.is_grad_enabled() or not self._open:
            return
        if type(output) is not torch.Tensor or torch._C._current_graph_task_id() != -1:
            return
        key = (id(module), -1, "no_grad")
        known = self._seen.setdefault(key, [])
        if len(known) >= PER_PLACE:
            return
        place = user_place(sys._getframe(1))
        with unseen():
            leaves: tuple[weakref.ref[torch.Tensor], ...] = tuple(
                weakref.ref(parameter) for parameter in module.parameters() if parameter.requires_grad
            )
            if place is not None and leaves and storage_of(output) is not None:
                known.append(CutSeen(place, "no_grad", leaves, _weak(output)))


def _ours() -> bool:
    """Whether the caller of the patched method is the explorer itself."""
    return kind_of(sys._getframe(2).f_code.co_filename) == OURS


def _weak(tensor: torch.Tensor) -> StorageWeakRef:
    return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _alive(storage: StorageWeakRef) -> bool:
    return not storage.expired()  # type: ignore[no-untyped-call]  # torch leaves it untyped


def _note(
    tensor: torch.Tensor, index: int | None, used: dict[int, int | None], scalars: dict[float, int | None]
) -> None:
    """Note the storage of a leaf or root, and its number if it is one."""
    storage = storage_of(tensor)
    if storage is not None:
        used.setdefault(storage, index)
    if tensor.is_leaf and tensor.numel() == 1 and tensor.is_floating_point() and not tensor.is_meta:
        with torch.no_grad():
            scalars.setdefault(float(tensor), index)


def upstream(start: AutogradNode | None) -> tuple[weakref.ref[torch.Tensor], ...]:
    """The leaves behind `start`, as far as `UPSTREAM` nodes reach."""
    waiting, seen = [start], {start}
    leaves: list[weakref.ref[torch.Tensor]] = []
    while waiting and len(seen) < UPSTREAM:
        node = waiting.pop()
        if node is None:
            continue
        if is_leaf(node):
            leaves.append(weakref.ref(node.variable))
            continue
        for target, _ in node.next_functions:
            if target is not None and target not in seen:
                seen.add(target)
                waiting.append(target)
    return tuple(leaves)
