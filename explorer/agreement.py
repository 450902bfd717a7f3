"""Whether a forward value that was kept agrees with what the engine computes, at a few elements.

A bias is taken as it is beside a guarded weight; where that fails, differences between rows are compared, in
which a bias cancels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import isfinite
from typing import TypeAlias

import torch

from explorer.engine.array import Array, Values
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.run import Run
from explorer.engine.sampling import Points, plan
from explorer.forward_values import DEAR, Slot, Value

MORE = 32
"""Elements of one output computed again in full, or asked whether they lie on a grid."""

SMALL = 2_000
"""Outputs that take no more reads are computed again whole."""

LEVELS = 1 << 10
"""Numbers on a grid of at most so many steps, where what was computed is on none, were rounded on purpose."""

MARGIN = 10.0
"""Times the error bound that must be exceeded: kernels of a forward are more various than of a backward."""


@dataclass(slots=True)
class Equation:
    """What node `node` computes from its inputs, and the value of its output that was kept."""

    node: int
    computed: Value
    kept: Value
    place: Slot
    root: bool = False
    result: bool = False  # the node's own formula uses the output
    signs: bool = False  # nobody uses more of the output than its sign
    flips: bool = False  # and that differs
    failed: tuple[tuple[int, ...], float, float] | None = None
    holds: bool = False


def judge(one: Equation, count: int) -> int:
    """Compare both sides at a few elements; gives the reads that took."""
    rounding = rounding_of(one.computed.dtypes)
    if torch.get_float32_matmul_precision() != "highest":
        rounding = replace(rounding, product=2.0**-8)
    kept, computed = one.kept.array, one.computed.array or one.computed.bare
    if kept is None or computed is None or not kept.numel or computed.is_complex:
        return 0
    shape = kept.shape
    if kept.numel * one.computed.cost <= SMALL:
        count = max(count, kept.numel)
    points = plan(shape, one.node, count)
    middle = points[len(points) // 2]
    run = Run(rounding)
    computed.at([(i,) for i in middle], 1, run)
    if run.work > DEAR:
        return run.work
    if run.work > DEAR // 20:
        points = points[:3]
    side = one.computed
    if side.array is not None:
        one.failed, finite = _one_by_one(one, side.array, kept, points, rounding, run)
        one.holds = finite and one.failed is None
    if not one.holds and side.bare is not None:
        one.failed = _in_pairs(side, kept, points, rounding, run)
    elif side.assumed:
        one.failed = None  # a bias that was changed since changes no gradient
    return run.work


Failed: TypeAlias = "tuple[tuple[int, ...], float, float] | None"


def _both(
    computed: Array, kept: Array, points: Points, rounding: Rounding, run: Run
) -> tuple[Values, list[float], Values] | None:
    """Computed values, their bounds and kept values; None where something is not finite, or nothing asked."""
    if not points:
        return None
    coords = list(zip(*points, strict=True)) if kept.shape else []
    values, errors = computed.at(coords, len(points), run)
    stored = kept.at(coords, len(points), Run(rounding, bounds=False))[0]
    errors = errors or [rounding.u * abs(value) for value in values]
    return values, errors, stored


def _one_by_one(
    one: Equation, computed: Array, kept: Array, points: Points, rounding: Rounding, run: Run
) -> tuple[Failed, bool]:  # fmt: skip
    """The element that is farthest from its value, if far beyond the bound; whether all could be compared."""
    both = _both(computed, kept, points, rounding, run)
    if both is None:
        return None, False
    values, errors, stored = both
    worst, most, finite = None, MARGIN, True
    for point, value, have, error in zip(points, values, stored, errors, strict=True):
        if not (isfinite(value) and isfinite(have) and isfinite(error)):
            finite = False
            continue
        share = abs(value - have) / (2 * error) if error else 0.0
        if share > most and not _excused(computed, point, abs(value - have), rounding):
            worst, most = (point, have, value), share
            one.flips |= (value > 0) != (have > 0)
    if worst and finite and not one.result and not on_a_grid(_merged(values, errors)):
        more = plan(kept.shape, len(points), MORE)
        at = list(zip(*more, strict=True)) if kept.shape else []
        if on_a_grid(kept.at(at, len(more), Run(rounding, bounds=False))[0]):
            return None, True  # quantised, as straight-through estimators do it by hand
    return worst, finite


def _merged(values: Sequence[float], errors: Sequence[float]) -> list[float]:
    """The values; those that differ by no more than their errors count as one, as where rows are the same."""
    order = sorted(range(len(values)), key=values.__getitem__)
    found = list(values)
    for before, here in pairwise(order):
        if values[here] - values[before] <= 2 * (errors[here] + errors[before]):
            found[here] = found[before]
    return found


def on_a_grid(values: Sequence[float]) -> bool:
    """Whether the numbers are few different ones, or lie at equal steps, as quantised ones do.

    Four random numbers beside the smallest and the largest lie so on one of `LEVELS` grids about once in
    4 million times; fewer are asked for coarser grids.
    """
    distinct = sorted({value for value in values if isfinite(value)})
    if len(distinct) < 4:
        return 1 < len(distinct) < len(values) and len(values) > 3
    levels = {4: LEVELS // 32, 5: LEVELS // 4}.get(len(distinct), LEVELS)
    shares = [(value - distinct[0]) / (distinct[-1] - distinct[0]) for value in distinct[1:-1]]
    return any(
        all(abs(one * k - round(one * k)) < 2e-3 for one in shares)
        and len({0, k, *(round(one * k) for one in shares)}) == len(distinct)  # heaps of numbers are no steps
        for k in range(1, levels)
    )


def _in_pairs(side: Value, kept: Array, points: Points, rounding: Rounding, run: Run) -> Failed:
    """Differences between rows, in which what is added to every row cancels.

    Behind a relu only where it let both pass; behind log softmax, which takes a number from each row,
    differences of differences with the next column.
    """
    rows, bare = (kept.shape[0] if kept.shape else 0), side.bare
    if rows < 2 or bare is None:
        return None
    corners = [points, [((p[0] + max(rows // 2, 1)) % rows, *p[1:]) for p in points]]
    if side.bent == "ReluBackward0":
        corners = _positive(kept, plan(kept.shape, 0, 8 * len(points)), max(rows // 2, 1), len(points))
        points = corners[0]
    if side.bent == "LogSoftmaxBackward0":
        if kept.ndim != 2:
            return None
        corners += [[(p[0], (p[1] + 1) % kept.shape[1]) for p in some] for some in corners[:2]]
    found = [_both(bare, kept, some, rounding, run) for some in corners]
    worst, most = None, MARGIN
    for i, point in enumerate(points):
        gap = error = 0.0
        have = []
        for sign, both in zip((1, -1, -1, 1), found, strict=False):
            if both is None:
                return None
            values, errors, stored = both
            if not (isfinite(values[i]) and isfinite(errors[i]) and isfinite(stored[i])):
                return None
            gap += sign * (values[i] - stored[i])
            error += errors[i] + 2 * rounding.u * abs(stored[i])
            have.append(stored[i])
        share = abs(gap) / (2 * error) if error else 0.0
        if share > most and not _excused(bare, point, abs(gap) / len(have), rounding):
            worst, most = (point, have[0], have[0] + gap), share
    return worst


def _positive(kept: Array, points: Points, step: int, count: int) -> list[Points]:
    """Pairs of places `step` rows apart, at most `count`, both of which a relu let pass."""
    others = [((p[0] + step) % kept.shape[0], *p[1:]) for p in points]
    read = Run(rounding_of(["float64"]), bounds=False)
    here, there = (kept.at(list(zip(*some, strict=True)), len(some), read)[0] for some in (points, others))
    passed = [i for i, pair in enumerate(zip(here, there, strict=True)) if min(pair) > 0][:count]
    return [[some[i] for i in passed] for some in (points, others)]


def _excused(computed: Array, point: tuple[int, ...], gap: float, rounding: Rounding) -> bool:
    """Whether an accumulator as coarse as the dtype, or the worst case of all roundings, explains it."""
    for candidate in (replace(rounding, worst=True), replace(rounding, ua=rounding.u)):
        errors = computed.at([(i,) for i in point], 1, Run(candidate))[1]
        if errors and gap <= 4 * errors[0]:
            return True
    return False
