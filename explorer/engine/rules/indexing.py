"""Rules of indexing: embedding, advanced indices, gather and scatter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import compress
from math import prod
from typing import Any

from explorer.engine.array import Array, broadcast_shapes
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Full, Missing, index_along
from explorer.engine.leaf import Leaf
from explorer.engine.memory import Box, Values
from explorer.engine.registry import Site, vjp
from explorer.engine.run import Run

Vjp = list[Array | None]

TURNED = 1 << 18
"""So many elements of an index are kept turned round, about 30 MB."""

LONG, SEARCHES = 1 << 12, 8
"""Lines of more elements are turned round only when so many of their points have been searched for."""

# -------------------------------------------------------------------- along one axis


def gathered(source: Array, dim: int, index: Array) -> Array:
    """y[p] = source[p with p[dim] replaced by index[p]]."""
    if isinstance(index, Missing):
        return index
    if source.ndim == 0 or index.ndim == 0:
        return source.reshape(*index.shape)
    dim %= source.ndim

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        place = index.eval(tuple((i,) for i in point), run)[0][0]
        return [(*point[:dim], place, *point[dim + 1 :])], None

    return linear(index.shape, source, terms)


def scattered(shape: Sequence[int], dim: int, index: Array, source: Array) -> Array:
    """y[p] = Σ source[q] over the q on p's line along `dim` with index[q] = p[dim]: gather's transpose."""
    if isinstance(index, Missing):
        return index
    if not shape:
        return source.reshape(-1).sum()
    if index.numel == 0:
        return Full(0.0, shape)
    dim %= len(shape)
    if not index.ndim:
        index = index.reshape(*(1 for _ in shape))
    return linear(shape, source, lambda point, run: (scattered_to(index, dim, point, run), None))


def scattered_to(index: Array, dim: int, point: Point, run: Run) -> list[Point]:
    """The places q on the line of `index` along `dim` through `point` with index[q] = point[dim].

    Each line is turned round once per run: looking through it for every point of it takes the square of its
    length. A long one is searched for its first few points, since a sample asks for no more; a very long one
    is always.
    """
    lead, tail = point[:dim], point[dim + 1 :]
    lines: dict[Point, dict[int, list[int]]] = run.memo.setdefault(("lines", index, dim), {})
    places = lines.get(lead + tail)
    if places is None:
        if any(
            i >= size for i, size in zip(lead + tail, index.shape[:dim] + index.shape[dim + 1 :], strict=True)
        ):
            return []
        box: Box = (*((i,) for i in lead), range(index.shape[dim]), *((i,) for i in tail))
        values = index.eval(box, run)[0]
        if len(values) > LONG:
            asked: dict[Point, int] = run.memo.setdefault(("asked", index, dim), {})
            asked[lead + tail] = asked.get(lead + tail, 0) + 1
            if len(values) > TURNED or asked[lead + tail] <= SEARCHES:
                return [(*lead, k, *tail) for k in standing(values, point[dim])]
        if len(lines) * index.shape[dim] > TURNED:
            lines.clear()
        places = lines[lead + tail] = {}
        for k, place in enumerate(values):
            places.setdefault(place, []).append(k)
    return [(*lead, k, *tail) for k in places.get(point[dim], ())]


@vjp("GatherBackward0")
def gather(n: Site, g: Array) -> Vjp:
    """y[p] = x[.., i[p], ..]:  dx[q] = Σ g[p] over the p that read q."""
    return [scattered(n.shape(0), n.dim, n.index, g)]


@vjp("ScatterAddBackward0")
def scatter_add(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[p], ..] += s[p]:  dx = g,  ds = g gathered at i."""
    return [g, gathered(g, n.dim, n.index)]


@vjp("ScatterBackward0", "ScatterBackward1")
def scatter(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[p], ..] = s[p]:  dx = g, 0 where written;  ds = g gathered at i (s may be a number)."""
    hits = scattered(g.shape, n.dim, n.index, Full(1.0, n.index.shape))
    both: Vjp = [g.where(hits.eq(0)), gathered(g, n.dim, n.index)]
    return both[: len(n.inputs)]


@vjp("IndexSelectBackward0")
def index_select(n: Site, g: Array) -> Vjp:
    """y[.., k, ..] = x[.., i[k], ..]:  dx[.., r, ..] = Σ g[.., k, ..] over i[k] = r."""
    return [added_rows(n.shape(0), n.dim, n.index, g)]


@vjp("IndexAddBackward0")
def index_add(n: Site, g: Array) -> Vjp:
    """y = x, y[.., i[k], ..] += α s[.., k, ..]:  dx = g,  ds = α g[.., i[k], ..]."""
    rows = selected_rows(g, n.dim, n.index)
    return [g, rows if n.alpha == 1 else rows * n.alpha]


def holders(index: Array, row: int, run: Run) -> list[int]:
    """The flat places of a list of indices that hold `row`."""
    return _holding(index, row, lambda: index.eval(index.full_box, run)[0] if index.numel else [], run)


def _holding(key: object, wanted: int, numbers: Callable[[], Values], run: Run) -> list[int]:
    """Where `wanted` stands among the numbers, which are read once per run.

    A list of some length is turned round once. A very long one is searched as Python searches lists: of
    such only few points are asked for, and turning it round takes seconds.
    """
    places: dict[int, list[int]] | None = run.memo.get(("places", key))
    if places is not None:
        return places.get(wanted, [])
    values: Values | None = run.memo.get(("numbers", key))
    if values is None:
        values = numbers()
        if len(values) <= TURNED:
            places = run.memo["places", key] = {}
            for place, row in enumerate(values):
                places.setdefault(row, []).append(place)
            return places.get(wanted, [])
        run.memo["numbers", key] = values
    run.work += len(values) // 4
    return standing(values, wanted)


def standing(values: Values, wanted: int) -> list[int]:
    """Where `wanted` stands in a list, found as Python searches lists: the fastest way for one number."""
    found: list[int] = []
    with suppress(ValueError):
        while True:
            found.append(values.index(wanted, found[-1] + 1 if found else 0))
    return found


def added_rows(shape: Sequence[int], dim: int, index: Array, source: Array) -> Array:
    """y[.., r, ..] = Σ source[.., k, ..] over the k with index[k] = r."""
    if isinstance(index, Missing):
        return index
    if not shape:
        return source.reshape(-1).sum()
    dim %= len(shape)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        rows = holders(index, point[dim], run)
        return [(*point[:dim], k, *point[dim + 1 :]) for k in rows], None

    return linear(shape, source, terms)


def selected_rows(source: Array, dim: int, index: Array) -> Array:
    """y[.., k, ..] = source[.., index[k], ..]."""
    if isinstance(index, Missing):
        return index
    if source.ndim == 0:
        return source.reshape(1).expand(index.numel)
    dim %= source.ndim
    flat = index.reshape(-1)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        row = flat.eval(((point[dim],),), run)[0][0]
        return [(*point[:dim], row, *point[dim + 1 :])], None

    return linear((*source.shape[:dim], flat.numel, *source.shape[dim + 1 :]), source, terms)


def unravel(flat: int, shape: Sequence[int]) -> Point:
    """The index of a flat row-major place."""
    point: list[int] = []
    for size in reversed(shape):
        flat, place = divmod(flat, size)
        point.append(place)
    return tuple(reversed(point))


# -------------------------------------------------------------------- embedding


@vjp("EmbeddingBackward0")
def embedding(n: Site, g: Array) -> Vjp:
    """y[k] = W[i[k]]:  dW[r] = Σ g[k] over i[k] = r; 0 for the padding row; divided by the count if asked."""
    rows, width = n.shape(0)
    index = n.indices.reshape(-1)
    flat = g.reshape(index.numel, width)
    total = added_rows((rows, width), 0, index, flat)
    if n.scale_grad_by_freq:
        count = added_rows((rows, 1), 0, index, Full(1.0, (index.numel, 1)))
        total = total / count.maximum(1)
    if n.padding_idx >= 0:
        total = total.where(index_along((rows, width), 0).ne(n.padding_idx))
    return [total]


# -------------------------------------------------------------------- x[i, j], with broadcasting


class _Advanced:
    """What ``x[indices]`` reads: which axes are indexed, and where their common axes stand in the result."""

    def __init__(self, indices: Sequence[Any], ndim: int) -> None:
        axes: list[int] = []
        lines: list[Array] = []
        axis = 0
        for index in indices:
            if index is None:
                axis += 1
                continue
            for line in _unmasked(index):
                axes.append(axis)
                lines.append(line)
                axis += 1
        self.axes = axes
        self.shape = broadcast_shapes(*[line.shape for line in lines]) if lines else ()
        self.lines = [line.expand(*self.shape) for line in lines]
        together = axes == list(range(axes[0], axes[0] + len(axes))) if axes else True
        self.start = axes[0] if axes and together else 0
        self.kept = [axis for axis in range(ndim) if axis not in axes]

    def result_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        rest = [shape[axis] for axis in self.kept]
        return (*rest[: self.start], *self.shape, *rest[self.start :])

    def readers(self, point: Point, shape: Sequence[int], run: Run) -> list[Point]:
        """The places in `self.shape` that read an element."""
        sizes = [shape[axis] for axis in self.axes]
        wanted = 0
        for axis, size in zip(self.axes, sizes, strict=True):
            wanted = wanted * size + point[axis]

        def numbers() -> Values:
            found: Values = [0] * prod(self.shape)
            for line, size in zip(self.lines, sizes, strict=True):
                values = line.eval(line.full_box, run)[0] if line.numel else []
                found = [code * size + i % size for code, i in zip(found, values, strict=True)]
            return found

        return [unravel(place, self.shape) for place in _holding(self, wanted, numbers, run)]


def _unmasked(index: Array) -> list[Array]:
    """An index array as it is; a boolean mask as one list of indices per axis it covers."""
    if getattr(index, "dtype", "") not in ("bool", "uint8"):
        return [index]
    places = list(compress(range(index.numel), index.values()))
    columns = []
    for size in reversed(index.shape):
        columns.append([place % size for place in places])
        places = [place // size for place in places]
    return [Leaf(column, (len(column),)) for column in reversed(columns)]


def advanced_sum(shape: Sequence[int], indices: Sequence[Any], g: Array) -> Array:
    """y[q] = Σ g[p] over the p of ``x[indices]`` that read q."""
    plan = _Advanced(indices, len(shape))
    start, width = plan.start, len(plan.shape)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        hits = plan.readers(point, shape, run)
        rest = tuple(point[axis] for axis in plan.kept)
        return [(*rest[:start], *hit, *rest[start:]) for hit in hits], None

    return linear(shape, g.reshape(*plan.result_shape(shape)), terms) if width or plan.axes else g


def advanced_read(source: Array, indices: Sequence[Any]) -> Array:
    """``source[indices]``."""
    plan = _Advanced(indices, source.ndim)
    start, width = plan.start, len(plan.shape)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        place = tuple((i,) for i in point[start : start + width])
        rest = point[:start] + point[start + width :]
        full: list[int] = [0] * source.ndim
        for axis, i in zip(plan.kept, rest, strict=True):
            full[axis] = i
        for axis, line in zip(plan.axes, plan.lines, strict=True):
            full[axis] = line.eval(place, run)[0][0] % source.shape[axis]
        return [tuple(full)], None

    return linear(plan.result_shape(source.shape), source, terms)


@vjp("IndexBackward0")
def index_(n: Site, g: Array) -> Vjp:
    """y = x[i, j, ..]:  dx[q] = Σ g[p] over the p that read q."""
    return [advanced_sum(n.shape(0), n.indices, g)]


@vjp("IndexPutBackward0")
def index_put(n: Site, g: Array) -> Vjp:
    """y = x, y[i, j, ..] = v (or += v):  dx = g, 0 where overwritten;  dv = g[i, j, ..]."""
    values = advanced_read(g, n.indices)
    if n.accumulate:
        return [g, values]
    hits = advanced_sum(g.shape, n.indices, Full(1.0, values.shape))
    return [g.where(hits.eq(0)), values]
