"""Rules of sampling at float coordinates: grid_sample in two and three dimensions, and affine grids.

A coordinate v in [-1, 1] stands for the place (v + 1) size/2 - 1/2 of an axis (or (v + 1)/2 (size - 1) where
corners are aligned), which is clipped or reflected at the borders as the padding asks. Torch computes it in
the precision of the tensor, so a place has an error. Interpolation is continuous, so that the gradient for
the input bears it; the gradient for the grid jumps where a place crosses a pixel, a border or a mirror, and
where the error leaves open on which side a place lies, nothing is claimed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import floor, fmod, inf, isfinite, prod
from struct import pack, unpack
from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import Elements, Point
from explorer.engine.elementwise import Full, Missing
from explorer.engine.leaf import Leaf
from explorer.engine.memory import Box, Values
from explorer.engine.reduce import rounded_sum
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rounding import ROUNDINGS, rounding_of
from explorer.engine.rules.indexing import unravel
from explorer.engine.rules.resizing import cubic
from explorer.engine.run import Run
from explorer.engine.weighted import Term, weighted

Vjp = list[Array | None]
Tap = tuple[int, float, float]
"""Index along one axis, weight, slack of the weight."""

BILINEAR, NEAREST, BICUBIC = 0, 1, 2
ZEROS, BORDER, REFLECTION = 0, 1, 2
TAP = 16
"""What one pixel of what a point reads costs beside a read: it is found, weighed and noted."""

PASS = 4
"""What one coordinate costs beside a read where all points of a batch item are put in order."""

FAR = 3.0
"""Coordinates up to this are common: -1 to 1 is the image itself."""

MARGIN = 3
"""A point so many pixels beyond a border reads nothing but the border, whatever the interpolation."""

LARGEST = 1 << 20
"""Grids of more points for one batch item are left unchecked: all are looked at to find who read a pixel."""

# -------------------------------------------------------------------- one coordinate


@dataclass(frozen=True, slots=True)
class Sampler:
    """How the coordinates of one axis are read."""

    size: int
    interpolation: int
    padding: int
    align: bool
    dtype: str

    def taps(self, v: float) -> tuple[list[Tap], list[Tap]]:
        """What is read at `v`: weights, and the derivatives of the weights by v."""
        if not isfinite(v):
            raise RuleError("a coordinate of the grid is not finite")
        u = ROUNDINGS[self.dtype].u
        place, error = self._place(v, u)
        slope = ((self.size - 1) if self.align else self.size) / 2
        if self.padding == REFLECTION and error > 1:
            raise RuleError("a coordinate of the grid is so large that its reflection is lost in rounding")
        if self.padding != REFLECTION and not -MARGIN - error < place < self.size + MARGIN + error:
            return self._outside(place, slope, u)
        if self.interpolation == BICUBIC:
            return self._cubic(place, error, slope, u)
        sure = True
        if self.padding != ZEROS:
            place, factor, sure = self._moved(place, error)
            slope *= factor
        if self.interpolation == NEAREST:
            return self._nearest(place, error), []
        low, high = floor(place - error), floor(place + error)
        taps = [(k, max(0.0, 1 - abs(place - k)), error + 2 * u) for k in range(low, high + 2)]
        if sure and low == high:
            doubt = 4 * u * abs(slope)
            slopes = [(low, -slope, doubt), (low + 1, slope, doubt)]
        else:
            slopes = [(k, 0.0, inf) for k in range(low, high + 2)]
        return self._within(taps), self._within(slopes) if slope or not sure else []

    def _outside(self, place: float, slope: float, u: float) -> tuple[list[Tap], list[Tap]]:
        """Where every pixel that is read lies beyond one border, whatever the error of the place."""
        if self.padding == ZEROS:
            return [], []
        border = 0 if place < 0 else self.size - 1
        if self.interpolation == BICUBIC:
            return [(border, 1.0, 160 * u)], [(border, 0.0, 240 * u * abs(slope))]
        return [(border, 1.0, 0.0)], []

    def _place(self, v: float, u: float) -> tuple[float, float]:
        """Place and error; no error where every step is exact, however torch arranges them."""
        place = (v + 1) / 2 * (self.size - 1) if self.align else ((v + 1) * self.size - 1) / 2
        if (v + 1 - 1 == v and _holds(v + 1, self.dtype)) and self._exact(v, place):
            return place, 0.0
        return place, 2 * u * ((abs(v) + 1) * self.size + 1)

    def _exact(self, v: float, place: float) -> bool:
        """Whether no step to the place is rounded."""
        if self.align:
            steps = [v + 1, (v + 1) / 2, (v + 1) * (self.size - 1), (v + 1) / 2 * (self.size - 1)]
            exact = Fraction(v) / 2 * (self.size - 1) + Fraction(self.size - 1, 2)
        else:
            steps = [v + 1, (v + 1) * self.size, (v + 1) * self.size - 1, ((v + 1) * self.size - 1) / 2]
            exact = (Fraction(v) * self.size + self.size - 1) / 2
        return Fraction(place) == exact and all(_holds(step, self.dtype) for step in steps)

    def places(self, values: Values) -> Values:
        """The places of many coordinates, moved as the padding asks; what is not finite stays so."""
        half = self.size / 2
        slope, start = ((self.size - 1) / 2,) * 2 if self.align else (half, half - 0.5)
        found: Values = [v * slope + start for v in values]
        if self.padding == ZEROS:
            return found
        if self.padding == REFLECTION:
            return [self._moved(place, 0.0)[0] if isfinite(place) else place for place in found]
        last = float(self.size - 1)
        return [0.0 if place < 0 else last if place > last else place for place in found]

    def tame(self) -> tuple[float, float]:
        """Up to which size of a coordinate its place is known well enough, and how well that is.

        To a quarter of a pixel; the half types hold no coordinate so finely, and get what they have at `FAR`.
        """
        u = ROUNDINGS[self.dtype].u
        limit = max((0.125 / u - 1) / self.size - 1, FAR)
        return limit, 2 * u * ((limit + 1) * self.size + 1)

    def _moved(self, place: float, error: float) -> tuple[float, float, bool]:
        """Reflected and clipped: the place, the factor of its slope, and whether that is sure."""
        factor, sure = 1.0, True
        last = float(self.size - 1)
        if self.padding == REFLECTION:
            start, span = (0.0, last) if self.align else (-0.5, float(self.size))
            if span <= 0:
                return 0.0, 0.0, True
            factor = -1.0 if place < start else 1.0
            rest = fmod(abs(place - start), span)
            sure = not error or min(rest, span - rest) > error
            turned = floor(abs(place - start) / span) % 2 == 1
            place, factor = (span - rest + start, -factor) if turned else (rest + start, factor)
        if error and min(abs(place), abs(place - last)) <= error:
            sure = False
        if place <= 0 or place >= last:
            return min(max(place, 0.0), last), 0.0, sure
        return place, factor, sure

    def _nearest(self, place: float, error: float) -> list[Tap]:
        """The nearest index, to even from the middle; both where the error leaves it open."""
        found = range(round(place - error), round(place + error) + 1)
        doubt = 0.5 if len(found) > 1 else 0.0
        return self._within([(k, 1 - doubt, doubt) for k in found])

    def _cubic(self, place: float, error: float, slope: float, u: float) -> tuple[list[Tap], list[Tap]]:
        ticks = range(floor(place - error) - 1, floor(place + error) + 3)
        homes = [(k, k if self.padding == ZEROS else int(self._moved(float(k), 0.0)[0])) for k in ticks]
        taps = [(home, cubic(place - k), 1.5 * error + 40 * u) for k, home in homes]
        doubt = abs(slope) * (5 * error + 60 * u)
        slopes = [(home, slope * cubic_slope(place - k), doubt) for k, home in homes]
        return self._within(taps), self._within(slopes)

    def _within(self, taps: Sequence[Tap]) -> list[Tap]:
        """Pixels beyond the border read as 0."""
        return [tap for tap in taps if 0 <= tap[0] < self.size]


def cubic_slope(x: float, a: float = -0.75) -> float:
    """The derivative of `cubic`."""
    size = abs(x)
    if size < 1:
        found = (3 * (a + 2) * size - 2 * (a + 3)) * size
    else:
        found = (3 * size - 10) * size * a + 8 * a if size < 2 else 0.0
    return found if x >= 0 else -found


def _holds(x: float, dtype: str) -> bool:
    """Whether `x` is a number of `dtype`."""
    if dtype == "float64":
        return True
    if abs(x) > 60000:
        return False
    if dtype == "bfloat16":
        return pack("f", x)[:2] == b"\0\0" and unpack("f", pack("f", x))[0] == x
    code = "e" if dtype == "float16" else "f"
    return bool(unpack(code, pack(code, x))[0] == x)


# -------------------------------------------------------------------- grid_sample


class _Readings:
    """Which pixels each point of the grid read, batch item by batch item."""

    def __init__(self, n: Site, sizes: Sequence[int]) -> None:
        self.grid: Array = n.grid
        self.dtype = n.grid.dtype if isinstance(n.grid, Leaf) else "float64"
        mode = (n.interpolation_mode, n.padding_mode, bool(n.align_corners))
        self.samplers = [Sampler(size, *mode, self.dtype) for size in sizes]
        self.shape = self.grid.shape[1:-1]

    def at(self, batch: int, place: Point, run: Run) -> list[tuple[list[Tap], list[Tap]]]:
        """Per spatial axis, slowest first, what one point read."""
        box: Box = ((batch,), *((i,) for i in place), range(len(place)))
        values = self.grid.eval(box, run)[0]
        return [one.taps(v) for one, v in zip(self.samplers, reversed(values), strict=True)]

    def readers(self, batch: int, pixel: Point, run: Run) -> list[Term]:
        """The points that read a pixel, with their weights."""
        key = (self, batch)
        turned: _Turned | None = run.memo.get(key)
        if turned is None:
            turned = run.memo[key] = _Turned(self, batch, run)
        found: list[Term] = []
        near = turned.near(pixel)
        run.work += len(near) * TAP << len(pixel)
        for flat in near:
            place = unravel(flat, self.shape)
            lines = (
                [tap for tap in one.taps(values[flat])[0] if tap[0] == k]
                for one, values, k in zip(self.samplers, turned.values, pixel, strict=True)
            )
            found += [(place, *_product(taps)) for taps in product(*lines)]
        return found


class _Turned:
    """The points of one batch item by where they lie, so that few have to be looked at for one pixel.

    A point reads no pixel farther than a `reach` (of interpolation and error) from its place, moved as the
    padding asks; to move places brings none farther apart. Points are kept by the pixel below; those whose
    error is larger, or that are not finite, are `wild`: they are looked at for every pixel.
    """

    def __init__(self, readings: _Readings, batch: int, run: Run) -> None:
        dims = len(readings.shape)
        whole: Box = ((batch,), *map(range, readings.shape))
        self.values = [readings.grid.eval((*whole, (axis,)), run)[0] for axis in reversed(range(dims))]
        self.places = [one.places(line) for one, line in zip(readings.samplers, self.values, strict=True)]
        known = [one.tame() for one in readings.samplers]
        width = 2 if readings.samplers[0].interpolation == BICUBIC else 1
        self.reaches = [width + error for _, error in known]
        run.work += PASS * dims * len(self.values[0])
        limit = min(most for most, _ in known)
        rough = {i for line in self.values for i, v in enumerate(line) if not -limit <= v <= limit}
        self.wild = sorted(rough)
        self.bins: dict[tuple[float, ...], list[int]] = {}
        for flat, place in enumerate(zip(*[[x // 1 for x in line] for line in self.places], strict=True)):
            if place in self.bins:
                self.bins[place].append(flat)
            else:
                self.bins[place] = [flat]
        if rough:
            self.bins = {key: [i for i in held if i not in rough] for key, held in self.bins.items()}

    def near(self, pixel: Point) -> list[int]:
        """The flat places of the points that may read this pixel."""
        ends = [(floor(k - reach), floor(k + reach)) for k, reach in zip(pixel, self.reaches, strict=True)]
        keys = product(*(range(low, high + 1) for low, high in ends))
        found = [flat for key in keys for flat in self.bins.get(key, ())]
        for line, k, reach in zip(self.places, pixel, self.reaches, strict=True):
            found = [flat for flat in found if -reach <= line[flat] - k <= reach]
        return sorted(found) + self.wild


def _product(taps: Sequence[Tap]) -> tuple[float, float]:
    if any(not w and not s for _, w, s in taps):
        return 0.0, 0.0  # whatever the other axes may do
    weight = prod(abs(w) for _, w, _ in taps)
    slack = prod(abs(w) + s for _, w, s in taps) - weight
    return prod(w for _, w, _ in taps), slack


@vjp("GridSampler2DBackward0", "GridSampler3DBackward0", "GridSampler2DCpuFallbackBackward0")
def grid_sampler(n: Site, g: Array) -> Vjp:
    """y[q] = Σ_p x[p] Π w(v_q - p):  dx[p] = Σ_q g[q] Π w,  dv_q = Σ_c g[q] Σ_p x[p] ∂/∂v Π w."""
    for one in (n.grid, g) if not n.needs(1) else (n.grid, g, n.input):
        if isinstance(one, Missing):
            return [one, one]
    readings = _Readings(n, n.shape(0)[2:] if n.needs(0) else n.input.shape[2:])
    dx = _for_input(readings, g, n.shape(0)) if n.needs(0) else None
    return [dx, _for_grid(readings, g, n.input) if n.needs(1) else None]


def _for_input(readings: _Readings, g: Array, shape: Sequence[int]) -> Array:
    count = prod(readings.shape)
    if count > LARGEST:
        return Missing(f"a grid of {count} points is too large to turn round", shape)

    def terms(point: Point, run: Run) -> list[Term]:
        batch, channel, *pixel = point
        found = readings.readers(batch, tuple(pixel), run)
        return [((batch, channel, *place), weight, slack) for place, weight, slack in found]

    return weighted(shape, g, terms)


def _for_grid(readings: _Readings, g: Array, x: Array) -> Array:
    channels = range(x.shape[1])
    spatial = x.ndim - 2

    def element(point: Point, run: Run) -> tuple[Any, float]:
        batch, *place, which = point
        axis = spatial - 1 - which  # the grid names the fastest axis first
        box: Box = ((batch,), channels, *((i,) for i in place))
        upstream, errors = g.eval(box, run)
        chosen = [
            slopes if k == axis else weights
            for k, (weights, slopes) in enumerate(readings.at(batch, tuple(place), run))
        ]
        terms: list[Any] = []
        slack = 0.0
        for taps in product(*chosen):
            weight, doubt = _product(taps)
            pixels = x.eval(((batch,), channels, *((k,) for k, _, _ in taps)), run)[0]
            terms += [weight * a * b for a, b in zip(upstream, pixels, strict=True)]
            size = sum(abs(a * b) for a, b in zip(upstream, pixels, strict=True))
            slack += doubt * size if size and doubt else 0.0
            for error, b in zip(errors or (), pixels, strict=False):
                slack += abs(weight * b) * error
        value, bound = rounded_sum(terms, None, run)
        return value, bound + 4 * run.rounding.u * sum(map(abs, terms)) + slack

    return Elements(readings.grid.shape, element)


# -------------------------------------------------------------------- affine grids


@vjp("AffineGridGeneratorBackward0")
def affine_grid(n: Site, g: Array) -> Vjp:
    """y[q] = θ (x_q, .., 1), x_q the regular grid of [-1, 1]:  dθ = Σ_q g[q] (x_q, .., 1)ᵀ."""
    shape = n.shape(0)
    spatial = g.shape[1:-1]
    count = prod(spatial)
    lines = [_ticks(size, n.align_corners) for size in spatial]
    points = [[*reversed(point), 1.0] for point in product(*lines)]
    width = len(spatial) + 1
    u = rounding_of([spec.dtype for spec in n.outputs if spec is not None]).u
    base = [value for point in points for value in point]
    regular = Leaf(base, (count, width), errors=[4 * u * (abs(value) + 1) for value in base])
    if not count:
        return [Full(0.0, shape)]
    return [g.reshape(shape[0], count, width - 1).mT @ regular]


def _ticks(size: int, align: bool) -> list[float]:
    """`size` equidistant numbers from -1 to 1, or in the middle of equal parts of that."""
    if size <= 1:
        return [0.0] * size
    scale = 1.0 if align else (size - 1) / size
    return [(2 * k / (size - 1) - 1) * scale for k in range(size)]
