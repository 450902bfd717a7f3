"""Blocks: whole lines or matrices computed at once, batch item by batch item.

Some gradients (a cumulative product, a solve with a factorised matrix) have no element that could be had
alone. `blocks` computes all of one batch item when one of its elements is asked for, and keeps it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import TypeAlias

from explorer.engine.array import Array, Bounded, Box, Values
from explorer.engine.elementwise import Missing
from explorer.engine.memory import box_points
from explorer.engine.run import Run

Part: TypeAlias = tuple[Values, list[float]]
"""Flat row-major values and the bounds on their errors."""
Compute: TypeAlias = Callable[[Run, Sequence[Part]], Part]

LARGEST = 1 << 16
"""A block of more elements than this is left unchecked."""


class Blocks(Array):
    """Leading axes are the batch; ``compute(run, parts)`` gives one batch item from those of the operands."""

    __slots__ = ("_batch", "_compute", "_operands")

    def __init__(
        self, batch: Sequence[int], block: Sequence[int], operands: Sequence[Array], compute: Compute
    ):
        super().__init__((*batch, *block))
        for one in operands:
            one.uses += 1
        self._batch = len(batch)
        self._operands = tuple(operands)
        self._compute = compute

    @property
    def is_complex(self) -> bool:
        return any(one.is_complex for one in self._operands)

    def _item(self, place: tuple[int, ...], run: Run) -> Part:
        key = (self, "block", place, run.bounds)
        found: Part | None = run.memo.get(key)
        if found is None:
            first = tuple((i,) for i in place)
            parts: list[Part] = []
            for one in self._operands:
                values, errors = one.eval((*first, *map(range, one.shape[len(place) :])), run)
                parts.append((values, list(errors) if errors is not None else [0.0] * len(values)))
            found = run.memo[key] = self._compute(run, parts)
            run.work += len(found[0])
        return found

    def _box(self, box: Box, run: Run) -> Bounded:
        values: Values = []
        errors: list[float] = []
        points = box_points(box[: self._batch])
        places = [0]
        for index, size in zip(box[self._batch :], self.shape[self._batch :], strict=True):
            places = [place * size + i for place in places for i in index]
        for point in points:
            found, bounds = self._item(point, run)
            values += [found[place] for place in places]
            errors += [bounds[place] for place in places]
        return values, errors if run.bounds else None


def blocks(batch: Sequence[int], block: Sequence[int], operands: Sequence[Array], compute: Compute) -> Array:
    """The `Blocks` recipe, missing where an operand is, or where a block is too large for pure Python."""
    for one in operands:
        if isinstance(one, Missing):
            return one
    if prod(block) > LARGEST:
        return Missing(f"a block of {prod(block)} elements is too large to compute as one", (*batch, *block))
    return Blocks(batch, block, operands, compute)


def lines(dim: int, operands: Sequence[Array], compute: Compute) -> Array:
    """`compute` on every line along `dim` of operands of one shape; lines keep their length."""
    shape = operands[0].shape
    if not shape:
        return lines(0, [one.reshape(1) for one in operands], compute).reshape()
    dim %= len(shape)
    last = [one.transpose(dim, -1) for one in operands]
    wide = last[0].shape
    return blocks(wide[:-1], wide[-1:], last, compute).transpose(dim, -1)
