"""Compares what torch computed with what the engine computes, element by element, within error bounds.

An element agrees when ``|torch - engine| <= 2e``. A first, quick pass uses a lower bound of e that costs
half; only elements that fail it are evaluated again with the full bound, and only those that fail that
one with the worst-case bound ("loose") and with a low-precision accumulator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf, isnan
from operator import sub
from random import Random
from typing import Any

from explorer.engine.array import Array, Values
from explorer.engine.elementwise import Missing
from explorer.engine.leaf import same_memory
from explorer.engine.memory import Box, box_points
from explorer.engine.projection import project
from explorer.engine.rounding import Rounding
from explorer.engine.run import Run
from explorer.engine.sampling import MOST, SCANNED, Points, notable, plan, spread, stride
from explorer.report import Status

FLOOR = 16
"""At least this many elements of a gradient are compared, unless each of them is `COSTLY`."""

COSTLY = 4_000
"""An element that takes so many reads (a sum over a batch and an image) is one of `FEW` compared."""

FEW = 16

LEAST = 6
"""The fewest elements compared of a gradient, unless that would be more than `MOST_READS`."""

DEAR = 320_000
"""Reads that `FEW` elements of one gradient may cost before there are fewer of them, down to `LEAST`."""

WORK = 12_000
"""Elements the engine may read for one gradient before it stops adding samples (about 1 ms)."""

AFFORDABLE = 120_000
"""Reads that one element on every place of the longest axis may cost: then one bad channel cannot hide."""

MOST_READS = 4_000_000
"""Reads of a sample of one gradient (about 0.4 s): beyond that there are fewer than `LEAST`, down to one."""

WHOLE = 4_000_000
"""The limit of reads where everything shall be compared."""

CHUNK = 1 << 15
"""Where so many elements are compared, it is slab by slab: a point by itself costs ten times as much."""

GRAVITY: dict[Status, int] = {
    "match": 0,
    "loose": 1,
    "low-precision accumulation": 2,
    "overflow": 3,
    "unchecked": 4,
    "nan-mismatch": 5,
    "mismatch": 6,
}


@dataclass(frozen=True, slots=True)
class Comparison:
    """How one gradient compares: the gravest status met, where, and how near the bound it came.

    `ratio` is |torch - engine| over the threshold at the worst element (with the quick pass's smaller
    threshold where that was enough); `place` its index. `projected` of the elements were compared as sums of
    whole lines with random signs.
    """

    status: Status
    ratio: float = 0.0
    elements: int = 0
    of: int = 0
    place: tuple[int, ...] = ()
    torch: Any = None
    engine: Any = None
    reason: str = ""
    projected: int = 0

    def words(self) -> str:
        """The worst place and both values, for a reason."""
        if self.reason or self.torch is None:
            return self.reason
        where = "[" + ", ".join(map(str, self.place)) + "]"
        return f"at {where}: torch {self.torch:.9g}, engine {self.engine:.9g}, {self.ratio:.3g} x the bound"


@dataclass(slots=True)
class Shared:
    """Indices to look at along one `axis` of a gradient, the same in all gradients of a node.

    `few` is how many the first of them could afford.
    """

    indices: Sequence[int]
    axis: int = 0
    few: int = FEW

    def put(self, points: Points) -> Points:
        """The points with these indices, in turn, along the axis; each once."""
        axis, indices = self.axis, self.indices[: self.few]
        moved = (
            (*point[:axis], indices[i % len(indices)], *point[axis + 1 :]) for i, point in enumerate(points)
        )
        return list(dict.fromkeys(moved))


def compare(
    expected: Array,
    observed: Array,
    rounding: Rounding,
    *,
    seed: int = 0,
    hints: Callable[[], Points] | None = None,
    shared: Shared | None = None,
    whole: bool = False,
    factor: float = 2.0,
    run: Run | None = None,
) -> Comparison:
    """`observed` (torch's gradient) against the recipe `expected` of the same shape.

    `whole` compares everything that `WHOLE` allows; otherwise a sample within `WORK`. `hints` gives elements
    worth a look, and is asked only where not everything is compared at once. `run` may be shared by the
    gradients of one node, so that common subexpressions are computed once.
    """
    if isinstance(expected, Missing):
        return Comparison("unchecked", of=observed.numel, reason=expected.reason)
    total = observed.numel
    if total == 0:
        return Comparison("match")
    if same_memory(expected, observed):
        return Comparison("match", 0.0, total, total)  # what was received was sent on as it is
    run = run or Run(rounding, quick=True)
    judge = _Judge(expected, observed, rounding, factor)
    if total <= LEAST or (whole and total <= 64):
        judge.whole(run)
        return judge.verdict(total)
    shape = observed.shape
    before = run.work
    points = plan(shape, seed, FEW, hints() if hints is not None and total > FEW else ())
    middle = points[total // 2 if total <= FEW else 2]
    judge.points([middle], run)
    each = max(run.work - before, 1)
    few = FEW if whole or FEW * each <= DEAR else max(LEAST, DEAR // each)
    if few * each > MOST_READS and not whole:
        few = max(MOST_READS // each, 1)
    if shared is not None:
        few = shared.few = min(few, shared.few)
    if total <= FEW:
        points = points if few >= len(points) else points[:: len(points) // few][:few]
    elif FEW * each > WORK:
        points = points[:few] if few > 1 else [middle]  # dear ones: those hinted at displace others
    if shared is not None:
        points = shared.put(points)
    first = [point for point in points if point != middle]
    judge.points(first, run)
    first.append(middle)
    each = max((run.work - before) // len(first), 1)
    limit = WHOLE if whole else WORK
    if total * each <= limit:
        if total <= CHUNK or judge.slabs(total, seed, run) < total:
            judge.whole(run)
        return judge.verdict(total)
    if not whole and each <= COSTLY:
        first += judge.notable(first, run)
    longest = min(max(shape, default=1), MOST)
    count = (limit - (run.work - before)) // each
    if not whole:
        count = max(min(count, longest), 0 if each > COSTLY else FLOOR)
    if longest * each <= AFFORDABLE:
        count = max(count, longest)
    compared = judge.slabs(count, seed, run) if count > CHUNK else 0
    if not compared and count > len(first):
        seen = set(first)
        more = [point for point in spread(shape, seed + 1, count) if point not in seen]
        judge.points(more, run)
        first += more
    compared = max(compared, len(first))
    return judge.projected(compared, seed) if whole else judge.verdict(compared)


class _Judge:
    """Collects the worst element over several batches of points."""

    def __init__(self, expected: Array, observed: Array, rounding: Rounding, factor: float) -> None:
        self._expected = expected
        self._observed = observed
        self._rounding = rounding
        self._factor = factor
        self._worst: Comparison | None = None
        self._ratio = 0.0
        self._unbounded = 0  # elements whose bound is infinite: whatever stands there proves nothing

    def whole(self, run: Run) -> None:
        """Compare every element."""
        shape = self._observed.shape
        values, errors = self._expected.eval(self._expected.full_box, run)
        seen = self._observed.eval(self._observed.full_box, Run(self._rounding, bounds=False))[0]
        doubtful = self._pass(values, errors, seen)
        self._look_again([_unravel(i, shape) for i in doubtful])

    def slabs(self, count: int, seed: int, run: Run) -> int:
        """Compare about `count` elements: all that have some indices of one axis. Gives how many these are.

        0 where the smallest slab has more. Memory is that of `CHUNK` elements, or of one slab.
        """
        shape, total = self._observed.shape, self._observed.numel
        axis = next((at for at, size in enumerate(shape) if size > 1 and total // size <= count), None)
        if axis is None:
            return 0
        slab = total // shape[axis]
        indices = sorted(Random(seed).sample(range(shape[axis]), min(count // slab, shape[axis])))
        step = max(CHUNK // slab, 1)
        reading = Run(self._rounding, bounds=False)
        for start in range(0, len(indices), step):
            part = indices[start : start + step]
            box: Box = tuple((*part,) if at == axis else range(size) for at, size in enumerate(shape))
            if part[-1] - part[0] == len(part) - 1:
                box = (*box[:axis], range(part[0], part[-1] + 1), *box[axis + 1 :])
            values, errors = self._expected.eval(box, run)
            doubtful = self._pass(values, errors, self._observed.eval(box, reading)[0])
            if doubtful:
                points = box_points(box)
                self._look_again([points[i] for i in doubtful])
        return len(indices) * slab

    def points(self, points: Sequence[tuple[int, ...]], run: Run) -> None:
        """Compare these elements."""
        if not points:
            return
        coords = list(zip(*points, strict=True)) if points[0] else []
        values, errors = self._expected.at(coords, len(points), run)
        reading = Run(self._rounding, bounds=False)
        reading.places = run.places
        seen = self._observed.at(coords, len(points), reading)[0]
        self._look_again([points[i] for i in self._pass(values, errors, seen)])

    def notable(self, known: Sequence[tuple[int, ...]], run: Run) -> Points:
        """Compare the elements that torch's own values name; gives back which."""
        shape, total = self._observed.shape, self._observed.numel
        places = range(0, total, stride(total, SCANNED, shape))
        values = self._observed.reshape(total).eval((places,), Run(self._rounding, bounds=False))[0]
        found = [_unravel(place, shape) for place in notable(values, places)]
        found = [point for point in found if point not in known]
        self.points(found, run)
        return found

    def _pass(self, values: Values, errors: list[float] | None, seen: Values) -> list[int]:
        """The places that the bounds at hand do not settle."""
        if values == seen:
            return []
        factor = self._factor
        if errors is None:
            errors = [self._rounding.u * abs(value) for value in values]
        gaps = list(map(abs, map(sub, values, seen)))
        limits = [factor * error for error in errors]
        doubtful = [
            i
            for i, (gap, limit) in enumerate(zip(gaps, limits, strict=True))
            # inf - inf is nan, and so is everything about nan: equal non-finite values agree.
            if not gap <= limit < inf and not _same(values[i], seen[i])
        ]
        if doubtful:
            unsettled = set(doubtful)
            settled = [i for i in range(len(gaps)) if i not in unsettled]
            gaps, limits = [gaps[i] for i in settled], [limits[i] for i in settled]
        shares = [gap / limit for gap, limit in zip(gaps, limits, strict=True) if gap and gap < inf]
        self._ratio = max(self._ratio, max(shares, default=0.0))
        return doubtful

    def _look_again(self, points: Sequence[tuple[int, ...]]) -> None:
        if not points:
            return
        coords = list(zip(*points, strict=True)) if points[0] else []
        full = self._expected.at(coords, len(points), Run(self._rounding))
        seen = self._observed.at(coords, len(points), Run(self._rounding, bounds=False))[0]
        errors = full[1] or [0.0] * len(points)
        for point, value, error, torch in zip(points, full[0], errors, seen, strict=True):
            if _same(value, torch):
                continue
            gap, threshold = abs(value - torch), self._factor * error
            if not threshold < inf and _finite(value):
                # Nothing is proved here; that torch went beyond its range is what an infinite bound allows.
                if _finite(torch):
                    self._unbounded += 1
                else:
                    self._keep(Comparison("overflow", inf, place=point, torch=torch, engine=value))
                continue
            if gap <= threshold < inf:
                self._ratio = max(self._ratio, gap / threshold if threshold else 0.0)
                continue
            self._judge(point, value, torch, gap, threshold)

    def _judge(self, point: tuple[int, ...], value: Any, torch: Any, gap: float, threshold: float) -> None:
        ratio = gap / threshold if threshold else inf
        worst = self._worst
        if worst is not None and worst.status == "mismatch" and worst.ratio >= ratio:
            return
        status = self._status(point, value, torch, gap)
        self._keep(Comparison(status, ratio, place=point, torch=torch, engine=value))

    def _keep(self, found: Comparison) -> None:
        worst = self._worst
        if worst is None or (GRAVITY[found.status], found.ratio) > (GRAVITY[worst.status], worst.ratio):
            self._worst = found

    def _status(self, point: tuple[int, ...], value: Any, torch: Any, gap: float) -> Status:
        rounding = self._rounding
        coords = [(i,) for i in point]
        if not _finite(torch) or not _finite(value):
            run = Run(rounding, bounds=False)
            run.peak = 0.0
            self._expected.at(coords, 1, run)
            beyond = run.peak * (1 + rounding.u) > rounding.largest
            # Once a term is infinite, which infinity or nan comes out is a matter of the order of operations.
            # Of complex numbers it is that anyway: libraries differ in what 1/0 is, and inf times i.
            infinite = (
                (run.infinite or isinstance(value, complex)) and not _finite(value) and not _finite(torch)
            )
            return "overflow" if beyond or infinite else "nan-mismatch"
        for candidate, status in (
            (replace(rounding, worst=True), "loose"),
            (replace(rounding, ua=rounding.u), "low-precision accumulation"),
        ):
            errors = self._expected.at(coords, 1, Run(candidate))[1]
            if errors and gap <= self._factor * errors[0]:
                return status  # type: ignore[return-value]  # both strings are statuses
        return "mismatch"

    def verdict(self, elements: int) -> Comparison:
        """The gravest finding over all batches."""
        total = self._observed.numel
        elements -= self._unbounded
        if self._worst is None and elements <= 0:
            return Comparison("unchecked", of=total, reason="no finite error bound")
        if self._worst is None:
            return Comparison("match", self._ratio, elements, total)
        return replace(self._worst, elements=elements, of=total)

    def projected(self, elements: int, seed: int) -> Comparison:
        """The gravest finding, after random projections have covered what was not compared one by one."""
        found = self.verdict(elements)
        if found.status != "match":
            return found
        lines = project(self._expected, self._observed, self._rounding, seed)
        covered = min(max(lines.elements, elements), found.of)
        if lines.place is None:
            return replace(
                found, elements=covered, ratio=max(found.ratio, lines.ratio), projected=lines.elements
            )
        reason = (
            f"along a line through {list(lines.place)}, with random signs: torch {lines.torch:.9g}, "
            f"engine {lines.engine:.9g}, {lines.ratio:.3g} x the bound"
        )
        return Comparison("mismatch", lines.ratio, covered, found.of, lines.place, reason=reason)


def _same(a: Any, b: Any) -> bool:
    """Equal, or both nan."""
    return bool(a == b) or (a != a and b != b)


def _finite(value: Any) -> bool:
    size = abs(value)
    return not isnan(size) and size != inf


def _unravel(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of a flat row-major place."""
    point: list[int] = []
    for size in reversed(shape):
        point.append(flat % size)
        flat //= size
    return tuple(reversed(point))
