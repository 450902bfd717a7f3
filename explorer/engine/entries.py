"""`Entries`: what a sparse tensor holds, as an array that is 0 where nothing is stored.

An entry is the block of `values` that stands at a place of the leading axes; entries at the same place add
up, as torch's uncoalesced tensors mean it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from explorer.engine.array import Array
from explorer.engine.contract import Linear, Point, linear
from explorer.engine.elementwise import Full
from explorer.engine.run import Run


class Entries(Linear):
    """Element p is Σ ``values[k, p[lead:]]`` over the entries k whose place is ``p[:lead]``."""

    __slots__ = ("_lead", "_where")

    def __init__(self, shape: Sequence[int], places: Iterable[Point], values: Array) -> None:
        where: dict[Point, list[int]] = {}
        for number, place in enumerate(places):
            where.setdefault(tuple(place), []).append(number)
        self._where = where
        self._lead = len(shape) - values.ndim + 1
        super().__init__(shape, values, self._terms)

    def _terms(self, point: Point, run: Run) -> tuple[list[Point], None]:
        rest = point[self._lead :]
        return [(number, *rest) for number in self._where.get(tuple(point[: self._lead]), ())], None

    @property
    def stored(self) -> Array:
        """True where something is stored."""
        return linear(self.shape, Full(1.0, self.source.shape), self._terms).ne(0)
