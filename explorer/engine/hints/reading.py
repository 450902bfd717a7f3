"""How hints look at saved tensors: a bounded number of reads, at the same places on every run.

A hint may read `READS` elements of a tensor and no more, however large the tensor is: at about 10 ns each
that is less than what one more element of a gradient may cost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import Point
from explorer.engine.elementwise import Missing
from explorer.engine.memory import Box, Values
from explorer.engine.rounding import ROUNDINGS
from explorer.engine.rules.indexing import unravel
from explorer.engine.run import Run
from explorer.engine.sampling import stride

Hinted = list[list[Point]]

READS = 2048
"""So many elements of one saved tensor may be read for hints."""


@dataclass(frozen=True, slots=True)
class Seen:
    """Some elements of an array: `values` at the flat row-major `places` of its `shape`."""

    shape: tuple[int, ...]
    places: range
    values: Values

    def point(self, at: int) -> Point:
        """The index of the element ``values[at]``."""
        return unravel(self.places[at], self.shape)

    def first(self, *wanted: Callable[[Any], bool]) -> list[Point]:
        """For each condition the first and the last element that fulfils it, as far as there are such."""
        found: dict[Point, None] = {}
        for holds in wanted:
            hits = [at for at, value in enumerate(self.values) if holds(value)]
            found.update(dict.fromkeys(map(self.point, hits[:1] + hits[-1:])))
        return list(found)

    def edge(self) -> list[Point]:
        """Two elements in a row of which one is true."""
        values = [bool(value) for value in self.values]
        at = values.index(not values[0]) if values and (not values[0]) in values else 0
        return [self.point(at - 1), self.point(at)] if at else []


def seen(one: Any, limit: int = READS) -> Seen:
    """At most `limit` elements, evenly spread; all of a small array, none of one that cannot be read."""
    if not isinstance(one, Array) or isinstance(one, Missing) or not one.numel:
        return Seen((), range(0), [])
    total = one.numel
    places = range(0, total, stride(total, limit, one.shape))
    return Seen(one.shape, places, read(one.reshape(total), (places,)))


def run_of(one: Any, limit: int) -> Seen:
    """At most `limit` elements in a row, in the middle of the array: neighbours beside each other."""
    if not isinstance(one, Array) or isinstance(one, Missing) or not one.numel:
        return Seen((), range(0), [])
    total = one.numel
    start = max((total - limit) // 2, 0)
    places = range(start, min(start + limit, total))
    return Seen(one.shape, places, read(one.reshape(total), (places,)))


def line(one: Array, dim: int, through: Sequence[int]) -> Values:
    """The elements along axis `dim` through a point, at most `READS` of them."""
    box: Box = tuple(
        range(min(size, READS)) if axis == dim else (place,)
        for axis, (size, place) in enumerate(zip(one.shape, through, strict=True))
    )
    return read(one, box)


def read(one: Array, box: Box) -> Values:
    """The values of a box, without bounds."""
    return one.eval(box, Run(ROUNDINGS["float64"], bounds=False))[0]


def element(one: Array, point: Sequence[int]) -> Any:
    """The value of one element."""
    return read(one, tuple((i,) for i in point))[0]


def known(*arrays: Any) -> bool:
    """Whether all of these can be read and hold something."""
    return all(
        isinstance(one, Array) and not isinstance(one, Missing) and one.numel and one.ndim for one in arrays
    )


def onto(point: Sequence[int], shape: Sequence[int]) -> Point:
    """The element of an array of `shape` that stands at `point` of what it is broadcast with.

    Axes that only `shape` has are taken in their middle.
    """
    lead = len(shape) - len(point)
    return tuple(
        size // 2 if axis < lead else 0 if size == 1 else point[axis - lead]
        for axis, size in enumerate(shape)
    )


def through(shape: Sequence[int], dim: int, row: int) -> Point:
    """A point whose index along `dim` is `row`; along the other axes it changes with the row."""
    return tuple(row if axis == dim else (size // 2 + 7 * row) % size for axis, size in enumerate(shape))


def lines_of(shape: Sequence[int]) -> list[Point]:
    """The points through which lines are looked at: the first and the middle one."""
    return list(dict.fromkeys([tuple(0 for _ in shape), tuple(size // 2 for size in shape)]))
