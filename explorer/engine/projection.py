"""Random projections: many elements of a large product compared at once (after Freivalds, 1977).

With random signs s along one axis, Σ_a s_a E[.., a, ..] of a matrix product or a convolution is the product
with one operand summed beforehand: a line of A elements for the price of one. A line with one wrong element
is met with certainty, one with several with probability 1/2 at least, if what is wrong exceeds its bound.

Rounding errors of a line add up as its elements do, with random signs: to the bound of the projected product
comes ``3 u ‖line‖₂`` for storing each element.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from math import hypot, inf, isfinite
from operator import add, sub
from random import Random

from explorer.engine.array import Array, Values
from explorer.engine.leaf import Leaf
from explorer.engine.memory import box_points
from explorer.engine.rounding import Rounding
from explorer.engine.run import Run
from explorer.engine.sampling import spread

READS = 20_000_000
"""Elements read for the projections of one gradient (some half a second)."""

LARGEST = 8_000_000
"""An operand of more elements is not summed."""

FACTOR = 4.0
"""Times the bound that a line may be off: an element, which has no help from chance, gets 2."""


@dataclass(frozen=True, slots=True)
class Projected:
    """What the projections of one gradient gave: elements covered, and the worst line that is off, if any."""

    elements: int = 0
    ratio: float = 0.0
    place: tuple[int, ...] | None = None
    torch: float = 0.0
    engine: float = 0.0


def signed_sum(source: Array, axis: int, signs: Sequence[int], run: Run) -> Array | None:
    """Σ_a ± source[.., a, ..], computed whole, the axis staying with size 1; None where that is too much."""
    if source.numel > LARGEST or source.is_complex:
        return None
    box = [range(size) for size in source.shape]
    total: Values = []
    for place, sign in enumerate(signs):
        values, errors = source.eval((*box[:axis], range(place, place + 1), *box[axis + 1 :]), run)
        if errors is not None:
            return None
        total = list(map(add if sign > 0 else sub, total or [0.0] * len(values), values))
    shape = [1 if at == axis else size for at, size in enumerate(source.shape)]
    return Leaf(total, shape)


def project(expected: Array, observed: Array, rounding: Rounding, seed: int) -> Projected:
    """`observed` against the recipe `expected`, along lines of the longest axis that can be projected."""
    run = Run(rounding, quick=True)
    shape = observed.shape
    for axis in sorted(range(len(shape)), key=lambda at: -shape[at]):
        if shape[axis] < 4:
            break
        random = Random(seed)
        signs = [random.choice((-1, 1)) for _ in range(shape[axis])]
        lines = expected.projected(axis, signs, run)
        if lines is not None:
            return _compare(lines, observed, axis, signs, rounding, seed)
    return Projected()


def _compare(
    lines: Array, observed: Array, axis: int, signs: Sequence[int], rounding: Rounding, seed: int
) -> Projected:
    quick, full = Run(rounding, quick=True), Run(rounding)
    read = Run(rounding, bounds=False)
    plus, minus = [sign > 0 for sign in signs], [sign < 0 for sign in signs]
    middle = [tuple(size // 2 for size in lines.shape)]
    lines.at(list(zip(*middle, strict=True)), 1, quick)
    each = quick.work + len(signs)
    count = min(max(READS // each, 1), lines.numel)
    worst = Projected()
    points = box_points(lines.full_box) if count == lines.numel else spread(lines.shape, seed, count)
    for point in points:
        box = tuple(range(size) if at == axis else (point[at],) for at, size in enumerate(observed.shape))
        line = observed.eval(box, read)[0]
        seen = sum(compress(line, plus)) - sum(compress(line, minus))
        stored = 3 * rounding.u * hypot(*line) + len(line) * rounding.eta
        coords = [(i,) for i in point]
        for run in (quick, full):
            values, errors = lines.at(coords, 1, run)
            limit = FACTOR * ((errors or [0.0])[0] + stored)
            gap = abs(values[0] - seen)
            if gap <= limit:
                break
        if not isfinite(gap) or not limit < inf:
            continue  # the elements themselves tell what is not finite
        ratio = gap / limit if limit else inf if gap else 0.0
        if ratio > worst.ratio:
            place = point if ratio > 1 else None
            worst = Projected(0, ratio, place, seen, values[0])
    covered = len(points) * len(signs)
    return Projected(covered, worst.ratio, worst.place, worst.torch, worst.engine)
