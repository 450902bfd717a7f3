"""`Weighted`: sums whose weights are themselves rounded, as those of an interpolation are.

An element is Σ w·source[q] over a few places q, and each weight w comes with its slack s: torch computed it
in the precision of the tensor, from a position that was rounded before. The bound is that of the sum plus
Σ s·|source[q]|.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul
from typing import TypeAlias

from explorer.engine.array import Array, Bounded, Box, Coords, Values
from explorer.engine.contract import Point
from explorer.engine.elementwise import Missing
from explorer.engine.reduce import rounded_sum
from explorer.engine.run import Run

Term: TypeAlias = "tuple[Point, float, float]"
"""A place of the source, its weight, the slack of the weight (absolute; infinite where nothing is known)."""
WeightedTerms: TypeAlias = "Callable[[Point, Run], Sequence[Term]]"


class Weighted(Array):
    """Element p is Σ w·source[q] over the ``(q, w, slack of w)`` of ``terms(p, run)``."""

    __slots__ = ("source", "terms")

    def __init__(self, shape: Sequence[int], source: Array, terms: WeightedTerms) -> None:
        super().__init__(shape)
        source.uses += 1
        self.source = source
        self.terms = terms

    @property
    def is_complex(self) -> bool:
        return self.source.is_complex

    def _box(self, box: Box, run: Run) -> Bounded:
        points: list[Point] = [()]
        for index in box:
            points = [(*point, i) for point in points for i in index]
        return self._points(points, run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return self._points(list(zip(*coords, strict=True)) if coords else [()] * count, run)

    def _points(self, points: Sequence[Point], run: Run) -> Bounded:
        asked = [self.terms(point, run) for point in points]
        places = [place for found in asked for place, _, _ in found]
        coords = list(zip(*places, strict=True)) if places else [()] * self.source.ndim
        parts, part_errors = self.source.at(coords, len(places), run) if places else ([], None)
        values: Values = []
        errors: list[float] = []
        start = 0
        for found in asked:
            stop = start + len(found)
            weights = [weight for _, weight, _ in found]
            read = parts[start:stop]
            known = part_errors and zip(weights, part_errors[start:stop], strict=True)
            error = [abs(w) * e for w, e in known] if known else None
            value, bound = rounded_sum(list(map(mul, weights, read)), error, run)
            if run.bounds:
                bound += sum(slack * abs(one) for (_, _, slack), one in zip(found, read, strict=True) if one)
            values.append(value if found else 0.0)
            errors.append(bound if found else 0.0)
            start = stop
        return values, errors if run.bounds else None


def weighted(shape: Sequence[int], source: Array, terms: WeightedTerms) -> Array:
    """The `Weighted` recipe, missing where the source is."""
    return source if isinstance(source, Missing) else Weighted(shape, source, terms)
