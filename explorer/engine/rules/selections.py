"""Rules of further reductions: order statistics, products, cumulative functions, reducing scatters, bags."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from explorer.engine.array import Array
from explorer.engine.blocks import Part, lines
from explorer.engine.contract import Elements, Point, linear
from explorer.engine.elementwise import Full, Missing
from explorer.engine.leaf import Leaf
from explorer.engine.memory import Values
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rules.arithmetic import scaled
from explorer.engine.rules.indexing import gathered, scattered, scattered_to
from explorer.engine.rules.reductions import (
    _spread,
    extreme_along,
    norm_gradient,
    reduced_count,
    shared,
    widened,
)
from explorer.engine.run import Run
from explorer.engine.views import stack

Vjp = list[Array | None]

# -------------------------------------------------------------------- one chosen element

vjp("MedianBackward1", "NanmedianBackward1", "KthvalueBackward0", "ModeBackward0")(extreme_along)


@vjp("MedianBackward0", "NanmedianBackward0")
def median_of_all(n: Site, g: Array) -> Vjp:
    """y = median x:  dx = g shared evenly by all that equal y (by all nan, if y is nan)."""
    x, y = n.self, n.result
    hit = x.eq(y) | (x.ne(x) & y.ne(y))
    return [(g / hit.sum()).where(hit)]


@vjp("AminmaxBackward0")
def aminmax(n: Site, low: Array | None, high: Array | None) -> Vjp:
    """(a, b) = (min x, max x):  each gradient shared evenly by all that equal it."""
    parts = [
        shared(n.self, y, g, n.dim, n.keepdim)
        for y, g in ((n.saved["min"], low), (n.saved["max"], high))
        if g is not None
    ]
    return [parts[0] if len(parts) == 1 else parts[0] + parts[1]]


@vjp("CummaxBackward0", "CumminBackward0")
def cumulative_extreme(n: Site, g: Array) -> Vjp:
    """yₖ = x[iₖ] along dim, i saved:  dx[q] = Σ g over iₖ = q."""
    return [scattered(n.shape(0), n.dim, n.indices, g)]


# -------------------------------------------------------------------- sums and norms


@vjp("NansumBackward0")
def nansum(n: Site, g: Array) -> Vjp:
    """y = Σ of the x that are no nan:  dx = g there, 0 elsewhere."""
    return [widened(g, n.self.shape, n.dim, n.keepdim).where(n.self.eq(n.self))]


@vjp("StdMeanBackward0")
def std_mean(n: Site, g: Array | None, mean: Array | None) -> Vjp:
    """(s, m) = (std x, mean x):  dx = g/(2s) ∂var, 0 where s = 0, plus the mean's gradient / m."""
    shape = n.self.shape
    found = None if g is None else _spread(n, (g / (n.result0 * 2)).where(n.result0.ne(0)))
    if mean is not None:
        part = (widened(mean, shape, n.dim, n.keepdim) / reduced_count(shape, n.dim)).expand(*shape)
        found = part if found is None else found + part
    return [found]


@vjp("NormBackward0", "NormBackward1", "NormBackward2", "NormBackward3")
def norm(n: Site, g: Array) -> Vjp:
    """y = ‖x‖ₚ (p = 2 unless given):  as for the vector norm; complex p-norms by |x|."""
    order = 2 if n.p is None else n.p
    dims, keepdim = n.saved.get("dim"), bool(n.saved.get("keepdim", False))
    return [norm_gradient(n.self, n.result, g, order, dims, keepdim)]


@vjp("DistBackward0")
def dist(n: Site, g: Array) -> Vjp:
    """y = ‖a - b‖ₚ:  da = the norm's gradient at a - b,  db = -da."""
    da = norm_gradient(n.self - n.other, n.result, g, n.p, None, False)
    return [da, -da]


# -------------------------------------------------------------------- products along a line


def _other_products(x: Values) -> Values:
    """For each element the product of all others."""
    before, after = [1.0], [1.0]
    for value in x:
        before.append(before[-1] * value)
    for value in reversed(x):
        after.append(after[-1] * value)
    return [before[k] * after[len(x) - 1 - k] for k in range(len(x))]


def _leave_one_out(run: Run, parts: Sequence[Part]) -> Part:
    found = _other_products(parts[0][0])
    return found, [(len(found) + 3) * run.rounding.u * abs(value) + run.rounding.eta for value in found]


@vjp("ProdBackward0")
def product(n: Site, g: Array) -> Vjp:
    """y = Π x:  dxₖ = g · conj(Π of the others)."""
    flat = lines(0, [n.self.reshape(-1)], _leave_one_out)
    return [g * flat.conj().reshape(*n.self.shape)]


@vjp("ProdBackward1")
def product_along(n: Site, g: Array) -> Vjp:
    """y = Π x over dim:  dxₖ = g · conj(Π of the others)."""
    return [widened(g, n.self.shape, n.dim, n.keepdim) * lines(n.dim, [n.self], _leave_one_out).conj()]


@vjp("CumprodBackward0")
def cumprod(n: Site, g: Array) -> Vjp:
    """yᵢ = Π_{k≤i} xₖ:  dxⱼ = Σ_{i≥j} gᵢ conj(Π_{k≤i, k≠j} xₖ)."""

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (x, _), (gs, eg) = parts
        values: Values = []
        errors = []
        before: Any = 1.0
        size = len(x)
        for j in range(size):
            running, total, weight, spread = before, 0.0, 0.0, 0.0
            for i in range(j, size):
                running = running * x[i] if i > j else running
                total = total + gs[i] * running
                weight += abs(gs[i] * running)
                spread += eg[i] * abs(running)
            values.append(total)
            errors.append(2 * (size + 4) * run.rounding.u * weight + spread + run.rounding.eta)
            before = before * x[j]
        return values, errors

    return [lines(n.dim, [n.self.conj(), g], compute)]


@vjp("LogcumsumexpBackward0")
def logcumsumexp(n: Site, g: Array) -> Vjp:
    """yᵢ = log Σ_{k≤i} e^xₖ:  dxⱼ = Σ_{i≥j} gᵢ conj(exp(xⱼ - yᵢ)); torch takes logarithms of g on its way."""
    if n.self.is_complex:
        raise RuleError("logcumsumexp of complex numbers: torch's branch of the logarithm is not followed")
    g = g.reshape(*n.self.shape)

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (x, _), (y, _), (gs, eg) = parts
        values: Values = []
        errors = []
        size, u = len(x), run.rounding.u
        for j in range(size):
            weights = [_exp(x[j] - y[i]) for i in range(j, size)]
            terms = [gs[i] * w for i, w in zip(range(j, size), weights, strict=True)]
            # The exponents are differences of numbers of this size, each rounded.
            depth = max((abs(x[j]) + abs(y[i]) + abs(_log(gs[i])) for i in range(j, size)), default=0.0)
            weight = sum(map(abs, terms))
            values.append(sum(terms))
            spread = sum(eg[i] * w for i, w in zip(range(j, size), weights, strict=True))
            errors.append((2 * size + 8 + 4 * depth) * u * weight + spread + run.rounding.eta)
        return values, errors

    return [lines(n.dim, [n.self, n.result, g], compute)]


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _log(x: float) -> float:
    return math.log(abs(x)) if x else 0.0


# -------------------------------------------------------------------- scatters that reduce


def _products(shape: Sequence[int], hits: Callable[[Point, Run], Sequence[Point]], source: Array) -> Array:
    """Element p is the product of ``source`` over ``hits(p)``; 1 over none."""

    def element(point: Point, run: Run) -> tuple[Any, float]:
        places = hits(point, run)
        coords = list(zip(*places, strict=True)) if places else [()] * source.ndim
        values = source.at(coords, len(places), run)[0] if places else []
        found = prod(values)
        return found, (len(values) + 2) * run.rounding.u * abs(found) + run.rounding.eta

    source.uses += 1
    return source if isinstance(source, Missing) else Elements(shape, element)


def _hits(index: Array, dim: int) -> Callable[[Point, Run], Sequence[Point]]:
    """Which places of a source are scattered to a place of the result."""

    def hits(point: Point, run: Run) -> Sequence[Point]:
        return scattered_to(index, dim, point, run)

    return hits


def reduced_scatter(
    how: str, x: Array, source: Array, result: Any, g: Array, dim: int, index: Array, keep: bool
) -> Vjp:
    """The gradients for `x` and `source` of a scatter that reduces what meets at a place.

    sum: g.  mean: g / N.  amax, amin: g shared evenly by what equals the result.  prod: g times the
    product of the others.  Without `keep` the value of x does not count where something was scattered to.
    """
    if isinstance(index, Missing):
        return [index, index]
    if g.ndim == 0:
        given = source.shape
        x, source, g, index = x.reshape(1), source.reshape(-1), g.reshape(1), index.reshape(-1)
        result = result.reshape(1) if isinstance(result, Array) else result
        dx, ds = reduced_scatter(how, x, source, result, g, 0, index, keep)
        return [dx and dx.reshape(), ds and ds.reshape(*given)]
    dim %= g.ndim
    ones = scattered(g.shape, dim, index, Full(1.0, index.shape))
    part = source.window(index.shape, [(axis, 0, 1) for axis in range(index.ndim)])
    if how == "sum":
        dx, ds = g, gathered(g, dim, index)
    elif how == "mean":
        count = ones + 1 if keep else ones.maximum(1)
        dx, ds = g / count, gathered(g, dim, index) / gathered(count, dim, index)
    elif how in ("amax", "amin"):
        own, theirs = x.eq(result), part.eq(gathered(result, dim, index))
        each = g / (scattered(g.shape, dim, index, theirs) + own)
        dx, ds = each.where(own), gathered(each, dim, index).where(theirs)
    else:
        dx, ds = _product_scatter(x, part, g, dim, index, keep)
    return [dx if keep else dx.where(ones.eq(0)), ds]


def _product_scatter(
    x: Array, part: Array, g: Array, dim: int, index: Array, keep: bool
) -> tuple[Array, Array]:
    hits = _hits(index, dim)
    dx = g * _products(g.shape, hits, part)

    def others(point: Point, run: Run) -> Sequence[Point]:
        place = index.eval(tuple((i,) for i in point), run)[0][0]
        return [one for one in hits((*point[:dim], place, *point[dim + 1 :]), run) if one != point]

    ds = gathered(g * x if keep else g, dim, index) * _products(index.shape, others, part)
    return dx, ds


@vjp("ScatterReduceBackward0")
def scatter_reduce(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[p], ..] reduced with s[p]:  see `reduced_scatter`."""
    return reduced_scatter(n.reduce, n.self, n.src, n.result, g, n.dim, n.index, n.include_self)


@vjp("IndexReduceBackward0")
def index_reduce(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[k], ..] reduced with s[.., k, ..]:  see `reduced_scatter`."""
    if g.ndim == 0:
        index = n.index.reshape(*n.source.shape)
        return reduced_scatter(n.reduce, n.self, n.source, n.result, g, 0, index, n.include_self)
    shape = [1] * g.ndim
    shape[n.dim % g.ndim] = n.index.numel
    index = n.index.reshape(*shape).expand(*n.source.shape)
    return reduced_scatter(n.reduce, n.self, n.source, n.result, g, n.dim, index, n.include_self)


@vjp("SegmentReduceBackward0")
def segment_reduce(n: Site, g: Array) -> Vjp:
    """yₖ = x reduced over segment k:  sum: g;  mean: g/m;  max, min: g shared;  prod: g Π others."""
    x, axis = n.data, n.axis
    segment = _segments(x.shape, axis, n.lengths, n.offsets)
    inside = segment >= 0
    index = segment.maximum(0).expand(*x.shape)
    here = gathered(g, axis, index)
    if n.reduce == "sum":
        return [here.where(inside)]
    count = scattered(g.shape, axis, index, (x * 0 + 1).where(inside) * 0 + inside)
    if n.reduce == "mean":
        return [(here / gathered(count, axis, index)).where(inside)]
    if n.reduce in ("max", "min"):
        hit = (x.eq(gathered(n.result, axis, index)) | x.ne(x)) & inside
        ties = scattered(g.shape, axis, index, hit)
        return [(here / gathered(ties, axis, index)).where(hit)]
    hits = _hits(segment.expand(*x.shape), axis)
    wide = segment.expand(*x.shape)

    def others(point: Point, run: Run) -> Sequence[Point]:
        place = wide.eval(tuple((i,) for i in point), run)[0][0]
        return [one for one in hits((*point[:axis], place, *point[axis + 1 :]), run) if one != point]

    start = 1.0 if n.initial is None else n.initial
    return [(here * start * _products(x.shape, others, x)).where(inside)]


def _segments(shape: Sequence[int], axis: int, lengths: Array | None, offsets: Array | None) -> Array:
    """The segment each place along `axis` belongs to, -1 for none."""
    given = lengths if lengths is not None else offsets
    if given is None or isinstance(given, Missing):
        return given or Missing("neither lengths nor offsets were saved")
    rows = prod(shape[:axis])
    width = given.shape[-1]
    numbers = given.values()
    found: Values = []
    for row in range(rows):
        line = [-1] * shape[axis]
        part = [int(one) for one in numbers[row * width : (row + 1) * width]]
        edges = part if lengths is None else [sum(part[:k]) for k in range(width + 1)]
        for k, (start, stop) in enumerate(pairwise(edges)):
            line[start:stop] = [k] * (stop - start)
        found += line
    return Leaf(found, (*shape[: axis + 1], *[1] * (len(shape) - axis - 1)), dtype="int64")


# -------------------------------------------------------------------- bags of embeddings


@vjp("EmbeddingBagBackward0")
def embedding_bag(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y[b] = Σ (mean, max) of wₖ W[iₖ] over the bag:  dW[r] = Σ wₖ g[bag k] over iₖ = r,  dwₖ = g[b]·W[iₖ].

    The mean divides by the bag's size, the padding row takes none, scaling divides by how often r occurs.
    """
    if isinstance(n.indices, Missing) or isinstance(n.offsets, Missing):
        return [Missing(n.missing), Missing(n.missing)]
    index = [int(i) for i in n.indices.values()]
    starts = [int(i) for i in n.offsets.values()]
    rows, width = n.shape(0) if n.needs(0) else n.weight.shape
    bags = [
        max(b for b in range(g.shape[0]) if b < len(starts) and starts[b] <= k) for k in range(len(index))
    ]
    kept = [k for k, row in enumerate(index) if row != n.padding_idx]
    if n.mode == 2:
        winners = n.result3
        hit = [linear((rows, width), g, _winners(winners, g.shape[0])), None]
        return list(hit)
    sizes = [sum(1 for k in kept if bags[k] == b) for b in range(g.shape[0])]
    weights = n.per_sample_weights
    counts = {row: index.count(row) for row in set(index)} if n.scale_grad_by_freq else {}
    given = weights.values() if weights is not None else [1.0] * len(index)

    def terms(point: Point, run: Run) -> tuple[list[Point], list[float]]:
        mine = [k for k in kept if index[k] == point[0]]
        each = [given[k] / (sizes[bags[k]] if n.mode == 1 else 1) / counts.get(index[k], 1) for k in mine]
        return [(bags[k], point[1]) for k in mine], each

    dw = linear((rows, width), g, terms) if n.needs(0) else None
    dweights: Array | None = None
    if n.needs(1):
        there = linear((len(index), width), g, lambda p, run: ([(bags[p[0]], p[1])], None))
        rowed = linear((len(index), width), n.weight, lambda p, run: ([(index[p[0]], p[1])], None))
        dweights = (there * rowed).sum(1)
        if n.padding_idx >= 0:
            dweights = dweights.where(n.indices.reshape(-1).ne(n.padding_idx))
    return [dw, dweights]


def _winners(winners: Array, bags: int) -> Callable[[Point, Run], tuple[list[Point], None]]:
    """The bags whose maximum in a column came from a row."""

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        rows = winners.eval((range(bags), (point[1],)), run)[0]
        return [(b, point[1]) for b, row in enumerate(rows) if row == point[0]], None

    return terms


# -------------------------------------------------------------------- products of vectors


@vjp("VdotBackward0")
def vdot(n: Site, g: Array) -> Vjp:
    """y = Σ ā b:  da = ḡ b,  db = g a."""
    return [g.conj() * n.other if n.needs(0) else None, g * n.self if n.needs(1) else None]


@vjp("AddrBackward0")
def addr(n: Site, g: Array) -> Vjp:
    """y = β c + α a bᵀ:  dc = β̄ g,  da = ᾱ g b̄,  db = ᾱ gᵀ ā."""
    da = scaled(g @ n.vec2.conj(), n.alpha) if n.needs(1) else None
    db = scaled(g.mT @ n.vec1.conj(), n.alpha) if n.needs(2) else None
    return [scaled(g, n.beta), da, db]


@vjp("LinalgCrossBackward0")
def cross(n: Site, g: Array) -> Vjp:
    """y = a × b:  da = b̄ × g,  db = g × ā."""
    da = crossed(n.other.conj(), g, n.dim) if n.needs(0) else None
    return [da, crossed(g, n.self.conj(), n.dim) if n.needs(1) else None]


def crossed(a: Array, b: Array, dim: int) -> Array:
    """a × b along `dim`, of size 3."""
    first = [(a.select(dim, (k + 1) % 3), b.select(dim, (k + 2) % 3)) for k in range(3)]
    second = [(a.select(dim, (k + 2) % 3), b.select(dim, (k + 1) % 3)) for k in range(3)]
    parts = [p * q - r * s for (p, q), (r, s) in zip(first, second, strict=True)]
    return stack(parts, dim)


@vjp("TrilinearBackward0")
def trilinear(n: Site, g: Array) -> Vjp:
    """y = Σ a b c, each with axes of size 1 put in:  da = Σ g b c over those put in, and so on."""
    parts = [_with_axes(x, axes) for x, axes in ((n.i1, n.expand1), (n.i2, n.expand2), (n.i3, n.expand3))]
    wide = _with_axes(g, n.sumdim)
    found: Vjp = []
    for slot, axes in enumerate((n.expand1, n.expand2, n.expand3)):
        if not n.needs(slot):
            found.append(None)
            continue
        first, second = [part for k, part in enumerate(parts) if k != slot]
        total = (wide * (first * second)).sum(axes, keepdim=True) if axes else wide * (first * second)
        for axis in sorted(axes, reverse=True):
            total = total.squeeze(axis)
        found.append(total)
    return found


def _with_axes(x: Any, axes: Sequence[int]) -> Any:
    for axis in sorted(axes):
        x = x if x is None else x.unsqueeze(axis)
    return x
