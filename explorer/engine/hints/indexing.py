"""Hints of indexing: rows that are read once, several times, not at all, from the end, or as padding.

A row that several places read adds up their gradients (last write wins is the classic mistake), one that
nobody reads has none, and one that is overwritten passes none on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from math import prod
from typing import Any, TypeVar

from explorer.engine.array import Array, broadcast_shapes
from explorer.engine.contract import Point
from explorer.engine.hints.reading import (
    READS,
    Hinted,
    known,
    line,
    lines_of,
    onto,
    read,
    run_of,
    seen,
    through,
)
from explorer.engine.memory import Box
from explorer.engine.registry import Site, hinted
from explorer.engine.rules.indexing import unravel

Key = TypeVar("Key", bound=Hashable)

# -------------------------------------------------------------------- which rows, which places


def wrapped(values: Iterable[int], size: int) -> list[int]:
    """Indices with negative ones counted from the end; those out of range are left out."""
    return [int(i) % size for i in values if -size <= i < size]


def telling(values: Sequence[Key]) -> list[int]:
    """Places in a list of indices: of the most frequent one (both ends), of one met once, first, last."""
    if not values:
        return []
    counts = Counter(values)
    often = counts.most_common(1)[0][0]
    found = [values.index(often), len(values) - 1 - values[::-1].index(often)]
    found += [next((at for at, value in enumerate(values) if counts[value] == 1), 0), 0, len(values) - 1]
    return list(dict.fromkeys(found))


def rows(values: Sequence[int], size: int) -> list[int]:
    """Rows read several times, once, from the end, and (as far as was looked) by nobody."""
    if not values or not size:
        return []
    plain = wrapped(values, size)
    found = [plain[at] for at in telling(plain)]
    if min(values) < 0:
        found.append(min(values) % size)
    used = set(plain)
    unused = [
        row for i in (*found, *plain[:64]) for row in ((i + 1) % size, i - 1) if row >= 0 and row not in used
    ]
    return list(dict.fromkeys([*found, *unused[:2]]))


def row_points(shape: Sequence[int], dim: int, found: Iterable[int]) -> list[Point]:
    """A point in each of these rows along `dim`."""
    return [through(shape, dim, row) for row in found if 0 <= row < shape[dim]]


def places(index: Any) -> list[int]:
    """Flat places of an index tensor worth a look, see `telling`."""
    some = seen(index)
    return [some.places[at] for at in telling(some.values)]


# -------------------------------------------------------------------- whole rows


@hinted("EmbeddingBackward0")
def embedding(n: Site, g: Array) -> Hinted:
    """Rows used often, once, not at all; the padding row and those beside it."""
    shape = n.shape(0)
    found = rows(seen(n.indices).values, shape[0])
    pad = n.padding_idx
    if pad is not None and pad >= 0:
        found += [pad, pad - 1, pad + 1]
    return [row_points(shape, 0, dict.fromkeys(found))]


@hinted("EmbeddingBagBackward0")
def embedding_bag(n: Site, *g: Array | None) -> Hinted:
    """As for an embedding; of the weights the places where a row comes again."""
    shape = n.shape(0) if n.needs(0) else n.weight.shape
    found = rows(seen(n.indices).values, shape[0])
    if n.padding_idx is not None and n.padding_idx >= 0:
        found.append(n.padding_idx)
    return [row_points(shape, 0, dict.fromkeys(found)), [(place,) for place in places(n.indices)]]


@hinted("IndexSelectBackward0")
def index_select(n: Site, g: Array) -> Hinted:
    """Rows read often, once, not at all."""
    shape = n.shape(0)
    return [row_points(shape, n.dim % len(shape), rows(seen(n.index).values, shape[n.dim]))] if shape else []


@hinted("IndexAddBackward0", "IndexCopyBackward0", "IndexFillBackward0", "IndexFillBackward1",
        "IndexReduceBackward0")  # fmt: skip
def index_written(n: Site, g: Array) -> Hinted:
    """Rows written often, once, not at all; of what is written the places that go to one row."""
    if not g.ndim:
        return []
    dim = n.dim % g.ndim
    target = row_points(g.shape, dim, rows(seen(n.index).values, g.shape[dim]))
    source = n.shape(1) if n.needs(1) else ()
    return [target, row_points(source, dim, places(n.index)) if len(source) == g.ndim else []]


@hinted("TakeBackward0", "PutBackward0")
def taken(n: Site, g: Array) -> Hinted:
    """The same for flat indices."""
    shape = n.shape(0) if n.needs(0) else g.shape
    found = [unravel(row, shape) for row in rows(seen(n.index).values, prod(shape))]
    source = n.shape(1) if n.needs(1) else ()
    return [found, [unravel(place, source) for place in places(n.index)] if source else []]


# -------------------------------------------------------------------- along one axis, line by line


def along(index: Any, dim: int, shape: Sequence[int]) -> tuple[list[Point], list[Point]]:
    """Of gather and scatter along `dim`: points of the array of `shape`, and points of the index.

    On two lines of the index; and a place beside the index, where it is the smaller one.
    """
    if not known(index) or not shape:
        return [], []
    dim %= len(shape)
    inside: list[Point] = []
    sources: list[Point] = []
    for start in lines_of(index.shape):
        values = line(index, dim, start)
        lead, tail = start[:dim], start[dim + 1 :]
        inside += [(*lead, row, *tail) for row in rows(values, shape[dim])]
        sources += [(*lead, at, *tail) for at in telling(values)]
    beside = [(have if axis != dim and have < size else 0) for axis, (have, size) in
              enumerate(zip(index.shape, shape, strict=True))]  # fmt: skip
    if any(beside):
        inside.append(tuple(beside))
    return inside, sources


@hinted("GatherBackward0", "TopkBackward0", "SortBackward0", "SortBackward1",
        "CummaxBackward0", "CumminBackward0")  # fmt: skip
def gathered(n: Site, *g: Array | None) -> Hinted:
    """Elements that are read once, several times, not at all."""
    index = n.saved.get("index", n.saved.get("indices"))
    return [along(index, n.dim, n.shape(0))[0]]


@hinted("ScatterBackward0", "ScatterAddBackward0", "ScatterReduceBackward0")
def scattered(n: Site, g: Array) -> Hinted:
    """Elements written once, several times, not at all; of the source those that meet, and one unused."""
    target, source = along(n.index, n.dim, g.shape)
    spec = n.shape(1) if n.needs(1) else ()
    if len(spec) == n.index.ndim:
        source += [
            tuple(have if at == axis else 0 for at in range(len(spec)))
            for axis, (have, size) in enumerate(zip(n.index.shape, spec, strict=True))
            if have < size
        ]
    return [target, source]


@hinted("ScatterBackward1")
def scattered_value(n: Site, g: Array) -> Hinted:
    """Elements written once, several times, not at all."""
    return [along(n.index, n.dim, g.shape)[0]]


# -------------------------------------------------------------------- x[i, j]


@hinted("IndexBackward0")
def advanced(n: Site, g: Array) -> Hinted:
    """Elements read once, several times, from the end, not at all."""
    return [_advanced(n.indices, n.shape(0))[0]]


@hinted("IndexPutBackward0")
def advanced_written(n: Site, g: Array) -> Hinted:
    """Elements written once, several times, not at all; the values that go to one place."""
    target, result = _advanced(n.indices, g.shape)
    return [target, [onto(point, n.shape(1)) for point in result] if n.needs(1) else []]


def _advanced(indices: Sequence[Any], shape: Sequence[int]) -> tuple[list[Point], list[Point]]:
    """Points of the indexed array, and of what indexing it gives."""
    given = [(axis, one) for axis, one in enumerate(indices) if one is not None]
    if not given or not all(known(one) for _, one in given):
        return [], []
    if any(getattr(one, "dtype", "") in ("bool", "uint8") for _, one in given):
        return (_masked(given[0][1], given[0][0], shape) if len(given) == 1 else []), []
    axes = [axis for axis, _ in given]
    common = broadcast_shapes(*[one.shape for _, one in given])
    looked = [seen(one.expand(*common)) for _, one in given]
    sizes = [shape[axis] for axis in axes]
    columns = [[i % size for i in some.values] for some, size in zip(looked, sizes, strict=True)]
    tuples = list(zip(*columns, strict=True))
    spots = telling(tuples)
    wanted = [tuples[at] for at in spots]
    wanted.append(tuples[next((at for at, i in enumerate(looked[0].values) if i < 0), 0)])
    used = set(tuples)
    beside = [((first + 1) % sizes[0], *rest) for first, *rest in tuples[:64]]
    wanted += [one for one in beside if one not in used][:2]
    target = []
    for one in dict.fromkeys(wanted):
        base = list(through(shape, axes[0], one[0]))
        for axis, place in zip(axes, one, strict=True):
            base[axis] = place
        target.append(tuple(base))
    together = axes == list(range(axes[0], axes[0] + len(axes)))
    start = axes[0] if together else 0
    kept = [size for axis, size in enumerate(shape) if axis not in axes]
    middle = [size // 2 for size in kept]
    result = [(*middle[:start], *looked[0].point(at), *middle[start:]) for at in spots]
    return target, result


def _masked(mask: Array, start: int, shape: Sequence[int]) -> list[Point]:
    """Elements that a boolean mask over some axes reads, and some it does not."""
    found = seen(mask).first(bool, lambda hit: not hit) + run_of(mask, READS).edge()
    rest = tuple(size // 2 for size in shape[start + mask.ndim :])
    return [(*(size // 2 for size in shape[:start]), *point, *rest) for point in found]


# -------------------------------------------------------------------- windows and their winners


@hinted("MaxPool2DWithIndicesBackward0", "MaxPool3DWithIndicesBackward0", "AdaptiveMaxPool2DBackward0",
        "AdaptiveMaxPool3DBackward0", "FractionalMaxPool2DBackward0",
        "FractionalMaxPool3DBackward0")  # fmt: skip
def max_pool(n: Site, *g: Array | None) -> Hinted:
    """The winners of a few windows, one that wins several, and what stands beside them."""
    index, shape = n.result1, n.shape(0)
    spatial = 3 if "3D" in n.name else 2
    if not known(index):
        return []
    lead, plane = len(shape) - spatial, shape[-spatial:]
    found: dict[Point, None] = {}
    for start in (tuple(size // 2 for size in index.shape), tuple(size - 1 for size in index.shape)):
        winners = _windows(index, start)
        chosen = [winners[at] for at in telling(winners)[:2]]
        for winner in chosen:
            for flat in (winner, winner + 1, winner - 1):
                if 0 <= flat < prod(plane):
                    point = (*start[:lead], *unravel(flat, plane))
                    found[point] = None
    return [list(found)]


def _windows(index: Array, start: Point) -> list[int]:
    """Winners of windows in a row that ends at `start`."""
    last = range(max(start[-1] - 63, 0), start[-1] + 1)
    box: Box = (*((i,) for i in start[:-1]), last)
    return [int(i) for i in read(index, box)]


@hinted("MaxUnpool2DBackward0", "MaxUnpool3DBackward0")
def max_unpool(n: Site, g: Array) -> Hinted:
    """Places whose values were put to one place, and one that was put alone."""
    if not known(n.indices):
        return []
    start = tuple(size // 2 for size in n.indices.shape)
    return [[(*start[:-1], at) for at in telling(line(n.indices, n.indices.ndim - 1, start))]]
