"""Reads what a node saved for its backward, without ever disturbing that backward.

Three things make a saved value unreadable, and each becomes a `problem`, never an exception: it was
freed by a backward, it was modified in place since (torch's version check), or it is packed by
``saved_tensors_hooks``. The last is never unpacked here: unpacking runs code of the user, and under
non-reentrant checkpoint it runs the forward again (inside a hook it even makes the real backward fail).
What torch itself unpacked for a checkpointed node is read from `hooks.checkpointed`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from hooks.checkpointed import given
from hooks.nodes import AutogradNode

UNSIGNED = 2**64
"""Negative integers are stored unsigned: a ``_saved_dim`` of -1 reads 2**64 - 1."""

CHECKPOINTED = "checkpointed: computed again while backward runs"
PACKED = "packed by saved_tensors_hooks"


@dataclass(frozen=True, slots=True)
class SavedValue:
    """One saved value: a tensor, a plain Python value, or the reason there is neither."""

    value: Any = None
    problem: str = ""


Held = tuple[str, Any, str]
"""A name, its value, and the reason there is none."""

_getters: dict[type, tuple[tuple[str, str, str], ...]] = {}
"""Per generated class: name, attribute of the value, attribute of the packed tensor ("": there is none)."""
_NONE = object()
_UNSIGNABLE = (int, tuple, list)
_SAVED = torch._C._autograd.SavedTensor

_names: dict[type, tuple[str, ...]] = {}
"""What each generated class keeps; there are a few hundred, and none goes away."""


def saved_names(kind: type) -> tuple[str, ...]:
    """The names, without ``_saved_``, of what nodes of the generated class `kind` keep, sorted."""
    found = _names.get(kind)
    if found is None:
        getters = sorted(name for name in vars(kind) if name.startswith("_saved_"))
        found = _names[kind] = tuple(name.removeprefix("_saved_") for name in getters)
    return found


def read(node: AutogradNode) -> dict[str, SavedValue]:
    """All saved values of `node`, by torch's own names without the ``_saved_`` prefix.

    A list of tensors appears as ``name[0]``, ``name[1]``, ...; the saved tensors of a Python Function
    as ``0``, ``1``, ... Works before, after and inside the hooks of the node.

    Args:
        node: any live node; a leaf and a CppFunction have no saved values.

    Returns:
        One `SavedValue` per name. ``SavedValue(None)`` is torch's own None: the value was not needed.
    """
    return {name: SavedValue(value, problem) for name, value, problem in held(node)}


def held(node: AutogradNode) -> list[Held]:
    """What `read` tells, as (name, value, problem)."""
    kind = type(node)
    getters = _getters.get(kind)
    if getters is None:
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            return [(name, value.value, value.problem) for name, value in _read_function(node).items()]
        getters = _getters[kind] = tuple(
            (name, f"_saved_{name}", f"_raw_saved_{name}" if hasattr(kind, f"_raw_saved_{name}") else "")
            for name in saved_names(kind)
        )
    found: list[Held] = []
    for name, plain, raw_name in getters:
        raw: Any = _NONE
        if raw_name:
            raw = _raw(node, raw_name)
            if raw is None or type(raw) is str:
                found.append((name, None, raw or ""))
                continue
            if type(raw) is _Unpacked:
                many = type(getattr(node, raw_name)) is tuple
                found.extend((f"{name}[{k}]" if many else name, one, "") for k, one in enumerate(raw.values))
                continue
        # A saved *output* can be unpacked only through its node: read `_saved_x`, not `_raw_saved_x`.
        try:
            value = getattr(node, plain)
        except (RuntimeError, ValueError, TypeError) as problem:
            found.append((name, None, _first_line(problem)))
            continue
        if type(value) in _UNSIGNABLE:
            value = _signed(value)
        if type(raw) is tuple:
            found.extend((f"{name}[{index}]", item, "") for index, item in enumerate(value or ()))
        else:
            found.append((name, value, ""))
    return found


def _read_function(node: AutogradNode) -> dict[str, SavedValue]:
    """The tensors a Python Function saved with ``save_for_backward``."""
    raw = _raw(node, "_raw_saved_tensors")
    if raw is None or type(raw) is str:
        return {"saved_tensors": SavedValue(problem=raw)} if raw else {}
    if type(raw) is _Unpacked:
        return {str(index): SavedValue(item) for index, item in enumerate(raw.values)}
    try:
        value = node.saved_tensors
    except (RuntimeError, ValueError, TypeError) as problem:
        return {"saved_tensors": SavedValue(problem=_first_line(problem))}
    return {str(index): SavedValue(item) for index, item in enumerate(value or ())}


def _raw(node: AutogradNode, raw_name: str) -> Any:
    """The raw saved tensor(s), None where none was needed, or the reason why they must not be read.

    Where torch has just unpacked them for a checkpointed node: what it was given, as `_Unpacked`.
    """
    try:
        raw = getattr(node, raw_name)
    except RuntimeError as problem:
        return _first_line(problem)
    if type(raw) is _SAVED and getattr(raw, "unpack_hook", None) is None:
        return raw
    items = raw if type(raw) is tuple else (raw,)
    for item in items:
        hook = getattr(item, "unpack_hook", None)
        if hook is not None:
            seen = [given(one) for one in items]
            return _Unpacked([one[0] for one in seen]) if all(seen) else _packed_by(hook)
    return raw


@dataclass(frozen=True, slots=True)
class _Unpacked:
    """What torch unpacked for the formula of a node that is still in its hooks."""

    values: list[Any]


def _packed_by(hook: Any) -> str:
    name = getattr(hook, "__qualname__", "")
    module = getattr(hook, "__module__", "")
    if module == "torch.utils.checkpoint" and "_checkpoint_hook" in name:
        return CHECKPOINTED
    return f"{PACKED} ({name})" if name else PACKED


def _signed(value: Any) -> Any:
    """Undo torch's unsigned spelling of negative integers."""
    if type(value) is int and value >= UNSIGNED // 2:
        return value - UNSIGNED
    if type(value) in (tuple, list):
        for item in value:
            kind = type(item)
            if (kind is int and item >= UNSIGNED // 2) or kind is tuple or kind is list:
                return type(value)(_signed(item) for item in value)
    return value


def _first_line(problem: BaseException) -> str:
    lines = str(problem).splitlines()
    return lines[0] if lines else type(problem).__name__
