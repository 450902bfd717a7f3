"""Small forward values, copied while the script runs, without standing in its way.

A function mode would see every result, but it moves the place where torch's warnings appear, makes
compiled code compile again, and must leave in the order it came. Instead this looks at the youngest
objects of the garbage collector whenever a node is made: the result of the operation before is
among them, for the next operation holds it. Nothing of the user's is wrapped, and a large model
pays for a dozen looks at most, for none inside modules that are given much. Where the collector is
off, or seldom runs, too many are young to look at.

Values: nested lists as ``Tensor.tolist`` gives them, left in the node's ``metadata``: they go when
the node goes. Only plain CPU tensors that have not been modified in place since they were made; a
change that torch does not count (through ``.data`` or numpy) before the next operation is not seen.
"""

from __future__ import annotations

import gc
from typing import Any

import torch

VALUES_KEY = "explorer.values"
SMALL = 64
_CREDIT = 12
_MOST = 20_000
_ever = [False]
_OLD_LOOKS = 8
_YOUNG = 20_000
"""So many objects are looked through at most, those of the oldest generation left out; about 10 ns each."""

Number = float | complex
_autograd: Any = torch._C._autograd
_creation = getattr(_autograd, "_get_creation_meta", lambda tensor: None)
_WITHOUT_GRAD = tuple(
    getattr(getattr(_autograd, "CreationMeta", None), name, ()) for name in ("NO_GRAD_MODE", "INFERENCE_MODE")
)
_is_wrapped = getattr(torch._C._functorch, "is_functorch_wrapped_tensor", lambda tensor: False)
_inside_transform = getattr(torch._C._functorch, "maybe_current_level", lambda: None)


class YoungValues:
    """Copies small results into their nodes until the script turns out not to be small.

    `looking`: another look is worth its time, for lately there were small values.
    """

    def __init__(self) -> None:
        self.looking = True
        self._credit = _CREDIT
        self._left = _MOST
        self._old_looks = _OLD_LOOKS
        self._collections = list(gc.get_count()[1:])

    def look(self, apart: bool = True) -> None:
        """Copy the small results among the youngest objects; about 20 us.

        `apart`: this thread is not just making a node that accumulates into a leaf.
        """
        self._credit -= 1
        found = 0
        plain = torch.Tensor
        for tensor in [thing for thing in self._youngest() if type(thing) is plain]:
            if self.keep(tensor, apart):
                found += 1
        if found:
            self._credit = min(self._credit + 3 * found, 2 * _CREDIT)
            self._left -= found
        self.looking = self._credit > 0 and self._left > 0

    def pass_by(self) -> None:
        """Count a node whose surroundings say that there is nothing small to find, without a look."""
        self._credit -= 1
        self.looking = self._credit > 0 and self._left > 0

    def keep(self, tensor: torch.Tensor, apart: bool = True) -> bool:
        """Copy the values of one result into its node; False where they are known, large or out of reach."""
        # A view whose base was modified gets a new grad_fn when that, or is_leaf, is read: not neutral, and
        # a deadlock when it is just being made. So the version comes before either.
        if tensor.is_inference():  # has no version to ask for, and no node
            return False
        if tensor._version != 0 or not tensor.requires_grad or _may_be_a_leaf_view(tensor, apart):
            return False
        if tensor.is_leaf or not tensor.is_cpu:
            return False
        if tensor.layout is not torch.strided or tensor.is_nested or tensor.numel() > SMALL:
            return False
        if _inside_transform() is not None or _is_wrapped(tensor):
            return False
        if torch._C._get_tracing_state() is not None:
            return False
        node: Any = tensor.grad_fn
        if node is None:
            return False
        slots: dict[int, Any] = node.metadata.setdefault(VALUES_KEY, {})
        if tensor.output_nr in slots:
            return False
        try:
            slots[tensor.output_nr] = tensor.tolist()
        except RuntimeError:  # a fake or functional tensor has no memory to read
            return False
        _ever[0] = True
        return True

    def _youngest(self) -> list[Any]:
        made, *collections = gc.get_count()
        if made > _YOUNG:
            return []
        young = gc.get_objects(generation=0)
        if collections != self._collections:  # what was young has been promoted since the last look
            often, rounds, _ = gc.get_threshold()
            if often * rounds <= _YOUNG:
                young += gc.get_objects(generation=1)
            if collections[1] != self._collections[1] and self._old_looks > 0:
                self._old_looks -= 1
                young += gc.get_objects(generation=2)
            self._collections = collections
        return young


def _may_be_a_leaf_view(tensor: torch.Tensor, apart: bool) -> bool:
    """Whether `tensor` is a view that is perhaps a leaf; told without asking it whether it is.

    ``view.is_leaf`` takes a lock of the view's. torch holds that lock while it makes the node that
    accumulates into a leaf, and calls us from within: in this thread, or waiting for Python in another.
    A view is no leaf where its base is a result, and it was not made under ``no_grad``; where its base is a
    leaf it is one only if the base came to require its gradient after the view was made.
    """
    if not tensor._is_view():
        return False
    base = tensor._base
    if base is None or not base.requires_grad:
        return True
    if not apart and base.is_leaf:  # a base is no view: it has no such lock
        return True
    return _creation(tensor) in _WITHOUT_GRAD


def any_kept() -> bool:
    """Whether a result's values were ever kept: until then no node need be asked for them."""
    return _ever[0]


def value_of(node: Any, slot: int) -> tuple[Number, ...] | None:
    """The flat, row-major forward values of output `slot` of `node`, None where they were not kept.

    A leaf's value is read from its tensor now, so ask before the optimizer steps.
    """
    variable = getattr(node, "variable", None) if type(node).__name__ == "AccumulateGrad" else None
    if variable is not None:
        if variable.numel() > SMALL or variable.layout is not torch.strided or variable.is_meta:
            return None
        return flat(variable.tolist())
    slots = node.metadata.get(VALUES_KEY)
    return None if slots is None or slot not in slots else flat(slots[slot])


def flat(nested: Any) -> tuple[Number, ...]:
    """The numbers of nested lists, in row-major order."""
    if not isinstance(nested, list):
        return (nested,)
    while nested and isinstance(nested[0], list):
        nested = [number for part in nested for number in part]
    return tuple(nested)
