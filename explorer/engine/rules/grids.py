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
from explorer.engine.memory import Box
from explorer.engine.reduce import rounded_sum
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rounding import ROUNDINGS, rounding_of
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

LARGEST = 1 << 17
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

    def _place(self, v: float, u: float) -> tuple[float, float]:
        """Place and error; no error where every step is exact, however torch arranges them."""
        if self.align:
            steps = [v + 1, (v + 1) / 2, (v + 1) * (self.size - 1), (v + 1) / 2 * (self.size - 1)]
            exact = Fraction(v) / 2 * (self.size - 1) + Fraction(self.size - 1, 2)
        else:
            steps = [v + 1, (v + 1) * self.size, (v + 1) * self.size - 1, ((v + 1) * self.size - 1) / 2]
            exact = (Fraction(v) * self.size + self.size - 1) / 2
        place = steps[-1]
        if Fraction(place) == exact and all(_holds(step, self.dtype) for step in steps):
            return place, 0.0
        return place, 2 * u * ((abs(v) + 1) * self.size + 1)

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
        dtype = n.grid.dtype if isinstance(n.grid, Leaf) else "float64"
        mode = (n.interpolation_mode, n.padding_mode, bool(n.align_corners))
        self.samplers = [Sampler(size, *mode, dtype) for size in sizes]
        self.places = list(product(*map(range, self.grid.shape[1:-1])))

    def at(self, batch: int, place: Point, run: Run) -> list[tuple[list[Tap], list[Tap]]]:
        """Per spatial axis, slowest first, what one point read."""
        box: Box = ((batch,), *((i,) for i in place), range(len(place)))
        values = self.grid.eval(box, run)[0]
        return [one.taps(v) for one, v in zip(self.samplers, reversed(values), strict=True)]

    def readers(self, batch: int, run: Run) -> dict[Point, list[Term]]:
        """For each pixel the points that read it, with their weights."""
        key = (self, batch)
        found: dict[Point, list[Term]] | None = run.memo.get(key)
        if found is None:
            found = run.memo[key] = {}
            for place in self.places:
                run.work += TAP << len(place)
                for taps in product(*[weights for weights, _ in self.at(batch, place, run)]):
                    weight, slack = _product(taps)
                    found.setdefault(tuple(k for k, _, _ in taps), []).append((place, weight, slack))
        return found


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
    if len(readings.places) > LARGEST:
        return Missing(f"a grid of {len(readings.places)} points is too large to turn round", shape)

    def terms(point: Point, run: Run) -> list[Term]:
        batch, channel, *pixel = point
        found = readings.readers(batch, run).get(tuple(pixel), ())
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
