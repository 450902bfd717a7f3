"""Rules of what reduces whatever meets at one place: scatters, segments, bags of embeddings."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod
from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import Elements, Point, linear
from explorer.engine.elementwise import Full, Missing
from explorer.engine.leaf import Leaf
from explorer.engine.memory import Values
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.indexing import gathered, holders, scattered, scattered_to
from explorer.engine.run import Run

Vjp = list[Array | None]

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
    rows, width = n.shape(0) if n.needs(0) else n.weight.shape
    if n.mode == 2:
        winners = n.result3
        g = g.where(n.result2.ne(0).unsqueeze(1))  # an empty bag has row 0 for its winner, and reads none
        return [linear((rows, width), g, lambda p, run: (scattered_to(winners, 0, p, run), None)), None]
    index = n.indices.reshape(-1)
    bags = _Bags(index, n.offsets, g.shape[0], n.padding_idx)
    weights = n.per_sample_weights

    def terms(point: Point, run: Run) -> tuple[list[Point], list[float]]:
        mine = holders(index, point[0], run) if point[0] != n.padding_idx else []
        given = [1.0] * len(mine) if weights is None else weights.at([mine], len(mine), run)[0]
        times = len(mine) if n.scale_grad_by_freq else 1
        at = list(map(bags.of, mine))
        each = [w / (bags.size(b) if n.mode == 1 else 1) / times for w, b in zip(given, at, strict=True)]
        return [(b, point[1]) for b in at], each

    dw = linear((rows, width), g, terms) if n.needs(0) else None
    dweights: Array | None = None
    if n.needs(1):
        there = linear((index.numel, width), g, lambda p, run: ([(bags.of(p[0]), p[1])], None))
        rowed = linear((index.numel, width), n.weight, lambda p, run: ([(bags.row(p[0]), p[1])], None))
        dweights = (there * rowed).sum(1)
        if n.padding_idx >= 0:
            dweights = dweights.where(index.ne(n.padding_idx))
    return [dw, dweights]


class _Bags:
    """Which bag each place of the index is in; bags follow one another."""

    def __init__(self, index: Array, offsets: Array, count: int, padding: int) -> None:
        self._index = index.values()
        self._starts = [int(start) for start in offsets.values()[:count]]
        self._limits = [*self._starts[1:], len(self._index)]
        self._padding = padding

    def of(self, place: int) -> int:
        """The last bag that starts at `place` or before: empty ones start where the next does."""
        return bisect_right(self._starts, place) - 1

    def row(self, place: int) -> int:
        """The row of the weight that `place` reads."""
        return int(self._index[place])

    def size(self, bag: int) -> int:
        """How many places of the bag count."""
        inside = self._index[self._starts[bag] : self._limits[bag]]
        return len(inside) - inside.count(self._padding)
