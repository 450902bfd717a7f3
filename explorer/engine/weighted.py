"""`Weighted`: sums whose weights are themselves rounded, as those of an interpolation are.

An element is Σ w·source[q] over a few places q, and each weight w comes with its slack s: torch computed it
in the precision of the tensor, from a position that was rounded before. The bound is that of the sum plus
Σ s·|source[q]|.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import mul
from typing import TypeAlias

from explorer.engine.array import Array, Bounded, Derived, Values
from explorer.engine.contract import Point, Pointwise, read_points
from explorer.engine.elementwise import Missing
from explorer.engine.reduce import rounded_sum
from explorer.engine.run import Run

Term: TypeAlias = "tuple[Point, float, float]"
"""A place of the source, its weight, the slack of the weight (absolute; infinite where nothing is known)."""
WeightedTerms: TypeAlias = "Callable[[Point, Run], Sequence[Term]]"


class Weighted(Pointwise, Derived):
    """Element p is Σ w·source[q] over the ``(q, w, slack of w)`` of ``terms(p, run)``."""

    __slots__ = ("terms",)

    def __init__(self, shape: Sequence[int], source: Array, terms: WeightedTerms) -> None:
        super().__init__(shape, source)
        self.terms = terms

    def _points(self, points: Sequence[Point], run: Run) -> Bounded:
        asked = [self.terms(point, run) for point in points]
        places = [place for found in asked for place, _, _ in found]
        parts, part_errors = read_points(self.source, places, run)
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
