"""Rules of masks, and of places listed by flat or by one-dimensional indices."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from explorer.engine.array import Array, broadcast_shapes
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Full, Missing
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.indexing import added_rows, advanced_read, advanced_sum, selected_rows

Vjp = list[Array | None]


def hits_of(mask: Array, shape: Sequence[int]) -> list[Point]:
    """The places of `shape` where `mask`, broadcast, holds; row-major."""
    wide = mask.expand(*shape)
    return [place for place, hit in zip(product(*map(range, shape)), wide.values(), strict=True) if hit]


@vjp("MaskedSelectBackward0")
def masked_select(n: Site, g: Array) -> Vjp:
    """y = x where m, flat:  dx = g back in those places, 0 elsewhere."""
    if isinstance(n.mask, Missing):
        return [n.mask]
    shape = broadcast_shapes(n.mask.shape, n.shape(0))
    order = {place: k for k, place in enumerate(hits_of(n.mask, shape))}
    return [linear(shape, g, lambda p, run: ([(order[p],)] if p in order else [], None))]


@vjp("MaskedScatterBackward0")
def masked_scatter(n: Site, g: Array) -> Vjp:
    """y = x with the next element of s where m:  dx = g where not m,  ds = g where m, in order."""
    if isinstance(n.mask, Missing):
        return [n.mask, n.mask]
    places = hits_of(n.mask, g.shape)
    shape = tuple(n.source_sym_sizes)
    size = Full(0.0, shape).numel
    flat = linear((size,), g, lambda p, run: ([places[p[0]]] if p[0] < len(places) else [], None))
    return [g.where(~n.mask), flat.reshape(*shape)]


@vjp("TakeBackward0")
def take(n: Site, g: Array) -> Vjp:
    """y[p] = flat x[i[p]]:  dx[q] = Σ g[p] over i[p] = q."""
    shape = n.shape(0)
    size = Full(0.0, shape).numel
    return [added_rows((size,), 0, _wrapped(n.index, size), g.reshape(-1)).reshape(*shape)]


@vjp("PutBackward0")
def put(n: Site, g: Array) -> Vjp:
    """y = x, flat y[i[p]] = s[p] (or += s[p]):  dx = g, 0 where overwritten;  ds = g[i]."""
    index = _wrapped(n.index, g.numel)
    source = selected_rows(g.reshape(-1), 0, index)
    source = source.reshape(*(n.index.shape if n.inputs[1] is None else n.shape(1)))
    if n.accumulate:
        return [g, source]
    hits = added_rows((g.numel,), 0, index, Full(1.0, index.shape)).reshape(*g.shape)
    return [g.where(hits.eq(0)), source]


def _wrapped(index: Array, size: int) -> Array:
    """Flat indices with negative ones counted from the end."""
    flat = index.reshape(-1)
    return (flat + size).where(flat < 0, flat)


@vjp("IndexCopyBackward0")
def index_copy(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[k], ..] = s[.., k, ..]:  dx = g, 0 where written;  ds = g[.., i[k], ..]."""
    if g.ndim == 0:
        return [g * 0.0, g]
    return [g.where(~_rows_hit(g, n.dim, n.index)), selected_rows(g, n.dim, n.index)]


@vjp("IndexFillBackward0", "IndexFillBackward1")
def index_fill(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[k], ..] = v:  dx = g, 0 where filled;  dv = Σ g over the rest (v may be a number)."""
    if g.ndim == 0:
        both: Vjp = [g * 0.0, g]
    else:
        hit = _rows_hit(g, n.dim, n.index)
        both = [g.where(~hit), g.where(hit).sum()]
    return both[: len(n.inputs)]


def _rows_hit(g: Array, dim: int, index: Array) -> Array:
    """Whether a place's index along `dim` is among `index`."""
    shape = [1] * g.ndim
    shape[dim % g.ndim] = g.shape[dim]
    flat = index.reshape(-1)
    count = added_rows((g.shape[dim],), 0, flat, Full(1.0, flat.shape))
    return count.reshape(*shape).ne(0)


@vjp("UnsafeMaskedIndexBackward0")
def masked_index(n: Site, g: Array) -> Vjp:
    """y = m ? x[i, j, ..] : c:  dx[q] = Σ m g[p] over the p that read q."""
    return [advanced_sum(n.shape(0), n.indices, g.where(n.mask))]


@vjp("UnsafeMaskedIndexPutAccumulateBackward0")
def masked_index_put(n: Site, g: Array) -> Vjp:
    """y = x, y[i, j, ..] += m v:  dx = g,  dv = m ? g[i, j, ..] : 0."""
    return [g, advanced_read(g, n.indices).where(n.mask)]
