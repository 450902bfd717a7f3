"""Rules of further operations that move elements: diagonals, windows, shuffles, scatters, masks, padding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from explorer.engine.array import Array, broadcast_shapes
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Full, Missing, index_along
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.indexing import (
    added_rows,
    advanced_read,
    advanced_sum,
    gathered,
    scattered,
    selected_rows,
)
from explorer.engine.rules.views import joined, placed
from explorer.engine.run import Run
from explorer.engine.views import diagonal as diagonal_of

Vjp = list[Array | None]

# -------------------------------------------------------------------- diagonals


@vjp("DiagonalBackward0", "DiagonalBackward0_copy")
def diagonal(n: Site, g: Array) -> Vjp:
    """yᵢ = x[i + down, i + right] on two axes:  dx = g on that diagonal, 0 elsewhere."""
    return [on_diagonal(g, n.shape(0), n.offset, n.dim1, n.dim2)]


def on_diagonal(g: Array, shape: Sequence[int], offset: int, first: int, second: int) -> Array:
    """`g`, whose last axis runs along a diagonal of axes `first` and `second` of a zero array of `shape`."""
    first, second = first % len(shape), second % len(shape)
    down, right = max(-offset, 0), max(offset, 0)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        place = point[first] - down
        if place < 0 or place != point[second] - right:
            return [], None
        rest = tuple(i for axis, i in enumerate(point) if axis not in (first, second))
        return [(*rest, place)], None

    return linear(shape, g, terms)


@vjp("DiagEmbedBackward0")
def diag_embed(n: Site, g: Array) -> Vjp:
    """y = x on the diagonal of two axes, 0 elsewhere:  dx = that diagonal of g."""
    return [diagonal_of(g, n.offset, n.dim1, n.dim2)]


@vjp("TraceBackward0")
def trace(n: Site, g: Array) -> Vjp:
    """y = Σ xᵢᵢ:  dx = g on the diagonal."""
    shape = n.shape(0)
    return [g.reshape(1, 1).where(index_along(shape, 0).eq(index_along(shape, 1)))]


@vjp("DiagonalScatterBackward0")
def diagonal_scatter(n: Site, g: Array) -> Vjp:
    """y = x with s on a diagonal:  dx = g off the diagonal,  ds = g on it."""
    part = diagonal_of(g, n.offset, n.dim1, n.dim2)
    hit = on_diagonal(Full(1.0, part.shape), g.shape, n.offset, n.dim1, n.dim2)
    return [g.where(hit.eq(0)), part]


# -------------------------------------------------------------------- parts of an axis


@vjp("UnsafeSplitBackward0", "UnsafeSplitWithSizesBackward0")
def unsafe_split(n: Site, *g: Array | None) -> Vjp:
    """yₖ = part k of x along dim:  dx = the gₖ one after the other, 0 where one is undefined."""
    return [joined(n, g, n.dim)]


@vjp("NarrowCopyBackward0", "NarrowBackward0")
def narrow(n: Site, g: Array) -> Vjp:
    """y = x[start : start + length] along dim:  dx = g at those places, 0 elsewhere."""
    shape = n.shape(0)
    dim = n.dim % len(shape)
    start = n.start % shape[dim] if n.start < 0 else n.start
    return [placed(g, shape, dim, range(start, start + n.length))]


@vjp("SliceScatterBackward0")
def slice_scatter(n: Site, g: Array) -> Vjp:
    """y = x with s at [start:end:step] along dim:  dx = g elsewhere,  ds = g there."""
    dim = n.dim % g.ndim
    part = range(g.shape[dim])[slice(n.start, n.end, n.step)]
    source = g.slice(dim, n.start or 0, n.end, n.step)
    hit = placed(Full(1.0, source.shape), g.shape, dim, part)
    return [g.where(hit.eq(0)), source]


@vjp("SelectScatterBackward0")
def select_scatter(n: Site, g: Array) -> Vjp:
    """y = x with s at index i of dim:  dx = g elsewhere,  ds = g there."""
    dim = n.dim % g.ndim
    return [g.where(index_along(g.shape, dim).ne(n.index % g.shape[dim])), g.select(dim, n.index)]


@vjp("UnfoldBackward0", "UnfoldBackward0_copy")
def unfold(n: Site, g: Array) -> Vjp:
    """y[.., w, .., k] = x[.., w·step + k, ..]:  dx[p] = Σ g over the (w, k) with w·step + k = p."""
    shape = n.shape(0)
    if not shape:
        return [g.reshape()]
    dim, size, step = n.dimension % len(shape), n.size, n.step

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        place = point[dim]
        first = max(-(-(place - size + 1) // step), 0)
        windows = range(first, min(place // step + 1, g.shape[dim]))
        return [(*point[:dim], w, *point[dim + 1 :], place - w * step) for w in windows], None

    return [linear(shape, g, terms)]


@vjp("BlockDiagBackward0")
def block_diag(n: Site, g: Array) -> Vjp:
    """y = the xₖ down the diagonal:  dxₖ = the block of g that xₖ became."""
    found: Vjp = [None] * len(n.inputs)
    # Torch tells no shape of an input that wants no gradient: count from both ends.
    for order, sign in ((range(len(n.inputs)), 1), (range(len(n.inputs) - 1, -1, -1), -1)):
        corner = (0, 0) if sign > 0 else (g.shape[0], g.shape[1])
        for slot in order:
            spec = n.inputs[slot]
            if spec is None:
                break
            sizes = (1,) * (2 - len(spec.shape)) + spec.shape
            row, column = corner if sign > 0 else (corner[0] - sizes[0], corner[1] - sizes[1])
            block = g.slice(0, row, row + sizes[0]).slice(1, column, column + sizes[1])
            found[slot] = block.reshape(*spec.shape)
            corner = (corner[0] + sign * sizes[0], corner[1] + sign * sizes[1])
    return found


# -------------------------------------------------------------------- turned and shuffled


@vjp("Rot90Backward0")
def rot90(n: Site, g: Array) -> Vjp:
    """y = x turned k times by 90° in a plane:  dx = g turned back."""
    first, second = n.dims
    turns = -n.k % 4
    if turns == 1:
        return [g.flip(second).transpose(first, second)]
    if turns == 2:
        return [g.flip(first, second)]
    return [g.flip(first).transpose(first, second) if turns == 3 else g]


@vjp("PixelShuffleBackward0")
def pixel_shuffle(n: Site, g: Array) -> Vjp:
    """y[c, h r + i, w r + j] = x[c r² + i r + j, h, w]:  dx = g back in those places."""
    r, lead = n.upscale_factor, g.shape[:-3]
    channels, height, width = g.shape[-3:]
    split = g.reshape(*lead, channels, height // r, r, width // r, r)
    k = len(lead)
    moved = split.permute(*range(k + 1), k + 2, k + 4, k + 1, k + 3)
    return [moved.reshape(*lead, channels * r * r, height // r, width // r)]


@vjp("PixelUnshuffleBackward0")
def pixel_unshuffle(n: Site, g: Array) -> Vjp:
    """y[c r² + i r + j, h, w] = x[c, h r + i, w r + j]:  dx = g back in those places."""
    r, lead = n.downscale_factor, g.shape[:-3]
    channels, height, width = g.shape[-3:]
    split = g.reshape(*lead, channels // (r * r), r, r, height, width)
    k = len(lead)
    moved = split.permute(*range(k + 1), k + 3, k + 1, k + 4, k + 2)
    return [moved.reshape(*lead, channels // (r * r), height * r, width * r)]


@vjp("ChannelShuffleBackward0", "NativeChannelShuffleBackward0")
def channel_shuffle(n: Site, g: Array) -> Vjp:
    """y[b, i G + j] = x[b, j m + i], m = C/G:  dx = g back in those places."""
    batch, channels = g.shape[:2]
    split = g.reshape(batch, channels // n.groups, n.groups, *g.shape[2:])
    return [split.transpose(1, 2).reshape(*g.shape)]


# -------------------------------------------------------------------- masks and indices


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
    """y = x, y[.., i[k], ..] = v:  dx = g, 0 where filled;  dv = Σ g over what was filled."""
    if g.ndim == 0:
        return [g * 0.0, g]
    hit = _rows_hit(g, n.dim, n.index)
    return [g.where(~hit), g.where(hit).sum()]


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


# -------------------------------------------------------------------- padding that repeats the input


@vjp("ReflectionPad1DBackward0", "ReflectionPad2DBackward0", "ReflectionPad3DBackward0")
def reflection_pad(n: Site, g: Array) -> Vjp:
    """y[q] = x reflected at its borders:  dx[p] = Σ g[q] over the q that show p."""

    def source(place: int, size: int) -> int:
        place = abs(place)
        return place if place < size else 2 * (size - 1) - place

    return [_unpadded(g, n.shape(0), n.padding, source)]


@vjp("ReplicationPad1DBackward0", "ReplicationPad2DBackward0", "ReplicationPad3DBackward0")
def replication_pad(n: Site, g: Array) -> Vjp:
    """y[q] = the nearest x:  dx[p] = Σ g[q] over the q that show p."""
    return [_unpadded(g, n.shape(0), n.padding, lambda place, size: min(max(place, 0), size - 1))]


def _unpadded(
    g: Array, shape: Sequence[int], padding: Sequence[int], source: Callable[[int, int], int]
) -> Array:
    """dx[p] = Σ g[q] over the q with ``source(q - before, size) == p`` on every padded axis."""
    lead = len(shape) - len(padding) // 2
    lines: list[list[list[int]]] = []
    for axis in range(lead, len(shape)):
        before = padding[2 * (len(shape) - 1 - axis)]
        line: list[list[int]] = [[] for _ in range(shape[axis])]
        for q in range(g.shape[axis]):
            line[source(q - before, shape[axis])].append(q)
        lines.append(line)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        spans = [line[place] for line, place in zip(lines, point[lead:], strict=True)]
        return [(*point[:lead], *q) for q in product(*spans)], None

    return linear(shape, g, terms)


# -------------------------------------------------------------------- winners of windows


@vjp("AdaptiveMaxPool2DBackward0", "FractionalMaxPool2DBackward0", "AdaptiveMaxPool3DBackward0",
     "FractionalMaxPool3DBackward0", "MaxPool3DWithIndicesBackward0")  # fmt: skip
def max_pool(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y[q] = flat x[i[q]] in each plane, i saved:  dx[p] = Σ g[q] over i[q] = p."""
    shape, spatial = n.shape(0), 3 if "3D" in n.name else 2
    lead = shape[: len(shape) - spatial]
    size = Full(0.0, shape[len(lead) :]).numel
    index = n.result1.reshape(*lead, -1)
    return [scattered((*lead, size), -1, index, g.reshape(*lead, -1)).reshape(*shape)]


@vjp("MaxUnpool2DBackward0", "MaxUnpool3DBackward0", "MaxPool2DWithIndicesBackwardBackward0",
     "MaxPool3DWithIndicesBackwardBackward0", "AdaptiveMaxPool2DBackwardBackward0",
     "AdaptiveMaxPool3DBackwardBackward0", "FractionalMaxPool2DBackwardBackward0",
     "FractionalMaxPool3DBackwardBackward0")  # fmt: skip
def max_unpool(n: Site, g: Array) -> Vjp:
    """y[i[q]] = flat x[q] in each plane:  dx[q] = flat g[i[q]]."""
    spatial = 3 if "3D" in n.name else 2
    lead = g.shape[: g.ndim - spatial]
    index = n.indices
    found = gathered(g.reshape(*lead, -1), -1, index.reshape(*lead, -1)).reshape(*index.shape)
    rest = [None if spec is None else Full(0.0, spec.shape) for spec in n.inputs[1:]]
    return [found, *rest]


# -------------------------------------------------------------------- windows as columns


def _columns(n: Site) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    return n.kernel_size, n.dilation, n.padding, n.stride


@vjp("Im2ColBackward0")
def im2col(n: Site, g: Array) -> Vjp:
    """y[c k + t, q] = x[c, q s - p + t d]:  dx[c, place] = Σ g[c k + t, q] over q s - p + t d = place."""
    shape = n.shape(0)
    kernel, dilation, padding, stride = _columns(n)
    counts = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(shape[-2:], kernel, dilation, padding, stride, strict=True)
    ]
    lead = len(shape) - 3
    wide = g.reshape(*shape[:lead], shape[lead], *kernel, *counts)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        pairs = [
            [
                (t, (place + p - t * d) // s)
                for t in range(k)
                if (place + p - t * d) % s == 0 and 0 <= (place + p - t * d) // s < count
            ]
            for place, k, d, p, s, count in zip(
                point[-2:], kernel, dilation, padding, stride, counts, strict=True
            )
        ]
        return [(*point[:-2], a[0], b[0], a[1], b[1]) for a in pairs[0] for b in pairs[1]], None

    return [linear(shape, wide, terms)]


@vjp("Col2ImBackward0")
def col2im(n: Site, g: Array) -> Vjp:
    """y[c, place] = Σ x[c k + t, q] over q s - p + t d = place:  dx[c k + t, q] = g[c, q s - p + t d]."""
    shape = n.shape(0)
    kernel, dilation, padding, stride = _columns(n)
    across = (g.shape[-1] + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        channel, tap = divmod(point[-2], kernel[0] * kernel[1])
        taps, windows = divmod(tap, kernel[1]), divmod(point[-1], across)
        places = [
            q * s - p + t * d for q, t, s, p, d in zip(windows, taps, stride, padding, dilation, strict=True)
        ]
        if any(not 0 <= place < size for place, size in zip(places, g.shape[-2:], strict=True)):
            return [], None
        return [(*point[:-2], channel, *places)], None

    return [linear(shape, g, terms)]
