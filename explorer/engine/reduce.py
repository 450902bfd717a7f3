"""Reductions: sums with the error bound of torch's summation, extremes, and sums to a broadcast shape.

The bound of a sum of n terms t (`explorer.engine.rounding` has the symbols):

    ua·[min((512 + 2√n)·(R + 2‖t‖₂), n·Σ|t|) + 8‖t‖₂] + min(Σe, 8·√Σe²) + u·|v| + eta

R is the largest running partial sum, looked at between chunks; e are the errors of the terms.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from math import hypot, inf, prod, sqrt
from operator import mul
from typing import Any

from explorer.engine.array import Array, Bounded, Box, Coords, Derived, Dims, Values
from explorer.engine.elementwise import Full, Map, Missing
from explorer.engine.memory import box_points, listed_points, rearrange
from explorer.engine.operations import MUL
from explorer.engine.run import Errors, Run

_WHOLE = 1 << 20
"""Up to this many terms a sum over a box is evaluated at once, beyond it element by element."""


LONG = 2_000
"""n > 3 (512 + 2√n) from here on."""


def resolve_dims(dims: Dims, ndim: int) -> tuple[int, ...]:
    """Axes as sorted non-negative numbers; None and the empty sequence mean all."""
    if dims is None or (not isinstance(dims, int) and len(dims) == 0):
        return tuple(range(ndim))
    listed = [dims] if isinstance(dims, int) else list(dims)
    return tuple(sorted({dim % ndim for dim in listed})) if ndim else ()


def rounded_sum(terms: Values, errors: Errors, run: Run) -> tuple[Any, float]:
    """The sum of `terms` and the bound on its error (0.0 when the run carries no bounds)."""
    value = sum(terms)
    run.work += len(terms)
    if run.peak is not None:
        run.see_sum(terms)
    if not run.bounds:
        return value, 0.0
    if run.quick:
        return value, quick_bound(value, len(terms), run)
    return value, sum_bound(value, terms, errors, run)


def quick_bound(value: Any, count: int, run: Run) -> float:
    """A lower bound of `sum_bound` that needs no look at the terms: R and Σ|t| are at least |v|."""
    r = run.rounding
    factor = count if r.worst else min(512 + 2 * sqrt(count), count)
    return float((factor * r.ua + r.u) * abs(value) + r.eta)


def sum_bound(value: Any, terms: Values, errors: Errors, run: Run, product: float = 0.0) -> float:
    """The bound in this module's heading; `product` is an extra relative roundoff of every term."""
    r, count = run.rounding, len(terms)
    if count == 0:
        return r.eta
    norm = _norm(terms)
    # R and ‖t‖ are at most Σ|t|: from `LONG` terms on, n·Σ|t| is not the smaller one, and not looked at.
    worst = count * sum(map(abs, terms)) if r.worst or count < LONG else inf
    if r.worst:
        bound = r.ua * (worst + 8 * norm)
    else:
        chunk = max(16, count // 64)
        partial = max(map(abs, accumulate(sum(terms[i : i + chunk]) for i in range(0, count, chunk))))
        bound = r.ua * (min((512 + 2 * sqrt(count)) * (partial + 2 * norm), worst) + 8 * norm)
    if product:
        bound += 16 * product * norm
    if errors is not None:
        spread = hypot(*errors)
        total = sum(errors)
        bound += total if r.worst else spread if r.quadrature else min(total, 8 * spread)
    return float(bound + r.u * abs(value) + r.eta)


def _norm(terms: Values) -> float:
    """The 2-norm of `terms`; hypot is the fastest loop there is (6 ns a term) but knows no complex."""
    try:
        return hypot(*terms)
    except TypeError:
        return hypot(*map(abs, terms))


class Sum(Derived):
    """Sum over axes `dims`, which stay with size 1 (`keepdim` is a view on top)."""

    __slots__ = ("dims",)

    def __init__(self, source: Array, dims: tuple[int, ...]) -> None:
        super().__init__(_kept_shape(source, dims), source)
        self.uses = 1  # a result is small and costly: once another recipe reads it, it is kept
        self.dims = dims

    def _box(self, box: Box, run: Run) -> Bounded:
        source, dims = self.source, self.dims
        wide = tuple(range(source.shape[axis]) if axis in dims else index for axis, index in enumerate(box))
        count = prod(source.shape[axis] for axis in dims)
        results = prod(map(len, box))
        if run.quick and run.bounds and results * count <= _WHOLE and _is_product(source):
            return self._dots(source.operands, wide, count, results, run)  # type: ignore[attr-defined]  # a Map
        if results == 1:
            value, error = rounded_sum(*run.terms(source, wide), run)
            return [value], [error] if run.bounds else None
        if count * results > _WHOLE:
            return self._one_by_one(box, run)
        terms, errors = run.terms(source, wide)
        lengths = [len(index) for index in wide]
        terms = _kept_first(terms, lengths, dims)
        errors = errors and _kept_first(errors, lengths, dims)
        return sum_chunks(terms, errors, count, results, run)

    def _dots(self, operands: Sequence[Array], wide: Box, count: int, results: int, run: Run) -> Bounded:
        """Sums of products, without a list of the products."""
        lengths = [len(index) for index in wide]
        left, right = (_kept_first(run.terms(one, wide)[0], lengths, self.dims) for one in operands)
        run.work += 2 * len(left)
        starts = range(0, results * count, count) if count else [0] * results
        sums: Values = [sum(map(mul, left[i : i + count], right[i : i + count])) for i in starts]
        return sums, [quick_bound(value, count, run) for value in sums]

    def _one_by_one(self, box: Box, run: Run) -> Bounded:
        points = box_points(box)
        return Array._at(self, list(zip(*points, strict=True)), len(points), run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return each_once(self, coords, count, run)


def each_once(source: Array, coords: Coords, count: int, run: Run) -> Bounded:
    """Single elements, each distinct one once: many sampled points share one row's sum."""
    points = listed_points(coords, count)
    found = {point: source.eval(tuple((i,) for i in point), run) for point in dict.fromkeys(points)}
    values = [found[point][0][0] for point in points]
    if not run.bounds:
        return values, None
    return values, [(found[point][1] or [0.0])[0] for point in points]


def _is_product(source: Array) -> bool:
    """Whether `source` is a product of two arrays of its own shape that nobody else reads."""
    return (
        type(source) is Map
        and source.operation is MUL
        and source.uses < 2
        and all(one.shape == source.shape and type(one) is not Full for one in source.operands)
    )


class CentredSum(Array):
    """Σ g (x - μ) over axes `dims`, along which μ is constant; the axes stay with size 1.

    A quick run takes Σ g x - μ Σ g, which reads less and makes no list; where that cancels, elements only
    seem to disagree, and are looked at again term by term.
    """

    __slots__ = ("_count", "_exact", "_means", "_products", "_totals")

    def __init__(self, g: Array, x: Array, mean: Array, totals: Array, dims: Dims) -> None:
        self._products, self._totals, self._means = (g * x).sum(dims, keepdim=True), totals, mean
        self._exact = (g * (x - mean)).sum(dims, keepdim=True)
        super().__init__(self._exact.shape)
        self._count = g.numel // max(self.numel, 1)
        for one in (self._products, self._totals, self._means, self._exact):
            one.uses += 1
        self.uses = 1  # as for `Sum`

    @property
    def is_complex(self) -> bool:
        return self._exact.is_complex

    def _box(self, box: Box, run: Run) -> Bounded:
        if not run.quick or not run.bounds:
            return self._exact.eval(box, run)
        parts = (one.eval(box, run)[0] for one in (self._products, self._means, self._totals))
        values = [product - mean * total for product, mean, total in zip(*parts, strict=True)]
        return values, [quick_bound(value, self._count, run) for value in values]

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return each_once(self, coords, count, run)


def centred_sum(g: Array, x: Array, mean: Array, totals: Array, dims: Dims) -> Array:
    """The `CentredSum` recipe (`totals` is Σ g, kept axes), missing where an operand is."""
    for one in (g, x, mean, totals):
        if isinstance(one, Missing):
            return one
    return CentredSum(g, x, mean, totals, dims)


def sum_chunks(terms: Values, errors: Errors, count: int, results: int, run: Run) -> Bounded:
    """The sums of consecutive chunks of `count` terms each."""
    starts = range(0, results * count, count) if count else [0] * results
    values: Values = [sum(terms[i : i + count]) for i in starts]
    run.work += results * count
    if run.peak is not None:
        for i in starts:
            run.see_sum(terms[i : i + count])
    if not run.bounds:
        return values, None
    if run.quick:
        r = run.rounding
        factor = (count if r.worst else min(512 + 2 * sqrt(count), count)) * r.ua + r.u
        return values, [factor * abs(value) + r.eta for value in values]
    return values, [
        sum_bound(value, terms[i : i + count], errors and errors[i : i + count], run)
        for value, i in zip(values, starts, strict=True)
    ]


def _kept_shape(source: Array, dims: Sequence[int]) -> list[int]:
    """The shape of `source` with size 1 along `dims`."""
    return [1 if axis in dims else size for axis, size in enumerate(source.shape)]


def _kept_first(values: Values, lengths: Sequence[int], dims: tuple[int, ...]) -> Values:
    """`values` of these lengths with the axes `dims` moved to the end."""
    strides = [prod(lengths[axis + 1 :]) for axis in range(len(lengths))]
    order = [axis for axis in range(len(lengths)) if axis not in dims] + list(dims)
    return rearrange(values, [lengths[axis] for axis in order], [strides[axis] for axis in order])


class Extreme(Derived):
    """Largest or smallest element over axes `dims`, which stay with size 1."""

    __slots__ = ("dims", "largest")

    def __init__(self, source: Array, dims: tuple[int, ...], largest: bool) -> None:
        super().__init__(_kept_shape(source, dims), source)
        self.uses = 1  # as for `Sum`
        self.dims = dims
        self.largest = largest

    def _box(self, box: Box, run: Run) -> Bounded:
        source, dims = self.source, self.dims
        wide = tuple(range(source.shape[axis]) if axis in dims else index for axis, index in enumerate(box))
        lengths = [len(index) for index in wide]
        count = prod(source.shape[axis] for axis in dims)
        values, errors = source.eval(wide, run)
        values = _kept_first(values, lengths, dims)
        pick = max if self.largest else min
        starts = range(0, len(values), count)
        found: Values = [pick(values[i : i + count]) for i in starts]
        if errors is None:
            return found, None
        errors = _kept_first(errors, lengths, dims)
        return found, [max(errors[i : i + count]) for i in starts]


def _dropped(kept: Array, dims: tuple[int, ...], keepdim: bool) -> Array:
    if keepdim or not dims:
        return kept
    shape = [size for axis, size in enumerate(kept.shape) if axis not in dims]
    places = iter(range(len(shape)))
    axes = [(-1, 0, 0) if axis in dims else (next(places), 0, 1) for axis in range(kept.ndim)]
    return kept.window(shape, axes)


def total(source: Array, dims: Dims, keepdim: bool) -> Array:
    """Sum over `dims`."""
    axes = resolve_dims(dims, source.ndim)
    if not axes:
        return source
    if isinstance(source, Full):
        count = prod(source.shape[axis] for axis in axes)
        return _dropped(Full(source.value * count, _kept_shape(source, axes)), axes, keepdim)
    return _dropped(Sum(source, axes), axes, keepdim)


def extreme(source: Array, dims: Dims, keepdim: bool, *, largest: bool) -> Array:
    """Largest or smallest element over `dims`."""
    axes = resolve_dims(dims, source.ndim)
    if not axes:
        return source
    if any(source.shape[axis] == 0 for axis in axes):
        return _dropped(Full(-inf if largest else inf, _kept_shape(source, axes)), axes, keepdim)
    return _dropped(Extreme(source, axes, largest), axes, keepdim)


def sum_to(source: Array, shape: Sequence[int]) -> Array:
    """Summed over every axis along which `shape` was broadcast."""
    outer = source.ndim - len(shape)
    axes = tuple(
        axis
        for axis, size in enumerate(source.shape)
        if axis < outer or (shape[axis - outer] == 1 and size != 1)
    )
    if not axes:
        return source
    kept = total(source, axes, keepdim=True)
    return _dropped(kept, tuple(range(outer)), keepdim=False)
