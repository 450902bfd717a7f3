"""Rules of further operations that move elements: diagonals, parts of an axis, turns and shuffles."""

from __future__ import annotations

from collections.abc import Sequence

from explorer.engine.array import Array
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Full, index_along
from explorer.engine.registry import Site, vjp
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
