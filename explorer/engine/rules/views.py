"""Rules of operations that only move elements: views, copies, joining, splitting."""

from __future__ import annotations

from collections.abc import Sequence

from explorer.engine.array import Array
from explorer.engine.contract import linear
from explorer.engine.elementwise import Full, index_along
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.views import cat, stack

Vjp = list[Array | None]

# -------------------------------------------------------------------- the same elements, another shape


@vjp(
    "ViewBackward0",
    "UnsafeViewBackward0",
    "ReshapeAliasBackward0",
    "ViewBackward0_copy",
    "ReshapeAliasBackward0_copy",
    "UnsqueezeBackward0",
    "UnsqueezeBackward1",
    "UnsqueezeBackward0_copy",
    *[f"SqueezeBackward{k}" for k in range(6)],
    *[f"SqueezeBackward{k}_copy" for k in range(3)],
)
def view(n: Site, g: Array) -> Vjp:
    """y = x in another shape:  dx = g in the shape of x."""
    return [g.reshape(*n.shape(0))]


@vjp("ToCopyBackward0")
def cast(n: Site, g: Array) -> Vjp:
    """y = x in another dtype:  dx = g, rounded to the dtype of x."""
    specs = (n.inputs[0], n.outputs[0])
    return [g if specs[0] is None or specs[1] is None or specs[0].dtype == specs[1].dtype else g * 1.0]


@vjp("AliasBackward0", "AliasBackward0_copy", "CloneBackward0", "LiftFreshCopyBackward0")
def same(n: Site, g: Array) -> Vjp:
    """y = x:  dx = g."""
    return [g]


@vjp("CopyBackwards")
def copy(n: Site, g: Array) -> Vjp:
    """y = x overwritten by s:  dx = 0,  ds = g summed to the shape of s."""
    return [g * 0.0, g]


@vjp("ExpandBackward0", "ExpandBackward0_copy")
def expand(n: Site, g: Array) -> Vjp:
    """y = x broadcast:  dx = g summed over what was broadcast."""
    return [g.sum_to(n.shape(0))]


@vjp("TBackward0", "TBackward1", "TBackward0_copy")
def t(n: Site, g: Array) -> Vjp:
    """y = xᵀ:  dx = gᵀ."""
    return [g.transpose(0, 1) if g.ndim == 2 else g]


@vjp("TransposeBackward0", "TransposeBackward1", "TransposeBackward0_copy")
def transpose(n: Site, g: Array) -> Vjp:
    """y = x with two axes swapped:  dx = g with the same two swapped."""
    return [g.transpose(n.dim0, n.dim1)]


@vjp("PermuteBackward0", "PermuteBackward0_copy")
def permute(n: Site, g: Array) -> Vjp:
    """yᵢ = x axis dims[i]:  dx = g permuted by the inverse."""
    dims = [dim % g.ndim for dim in n.dims]
    return [g.permute(*[dims.index(axis) for axis in range(g.ndim)])]


@vjp("FlipBackward0")
def flip(n: Site, g: Array) -> Vjp:
    """y = x reversed along axes:  dx = g reversed along the same."""
    return [g.flip(*n.dims)]


@vjp("RollBackward0")
def roll(n: Site, g: Array) -> Vjp:
    """y[i + s mod m] = x[i]:  dx[i] = g[i + s mod m]."""
    if not n.dims:
        return [rolled(g.reshape(-1), 0, -n.shifts[0]).reshape(*g.shape)]
    for shift, dim in zip(n.shifts, n.dims, strict=True):
        g = rolled(g, dim, -shift)
    return [g]


def rolled(x: Array, dim: int, shift: int) -> Array:
    """`x` rolled by `shift` along `dim`."""
    size = x.shape[dim]
    cut = -shift % size if size else 0
    return cat([x.slice(dim, cut), x.slice(dim, 0, cut)], dim) if cut else x


# -------------------------------------------------------------------- parts


@vjp("SelectBackward0", "SelectBackward0_copy")
def select(n: Site, g: Array) -> Vjp:
    """y = x[i] along dim:  dx = g at i, 0 elsewhere."""
    shape = n.shape(0)
    dim = n.dim % len(shape)
    index = n.index % shape[dim]
    return [g.unsqueeze(dim).where(index_along(shape, dim).eq(index))]


@vjp("SliceBackward0", "SliceBackward0_copy")
def slice_(n: Site, g: Array) -> Vjp:
    """y = x[start:end:step] along dim:  dx = g at those places, 0 elsewhere."""
    shape = n.shape(0)
    dim = n.dim % len(shape)
    part = range(shape[dim])[slice(n.start, n.end, n.step)]
    return [placed(g, shape, dim, part)]


def placed(g: Array, shape: Sequence[int], dim: int, part: range) -> Array:
    """`g` at the places `part` of axis `dim` of a zero array of `shape`."""
    if part.step == 1:
        return g.pad(dim, part.start, shape[dim] - part.start - len(part))
    return linear(
        shape,
        g,
        lambda p, run: ([(*p[:dim], part.index(p[dim]), *p[dim + 1 :])] if p[dim] in part else [], None),
    )


@vjp("SplitBackward0", "SplitBackward0_copy")
def split(n: Site, *g: Array | None) -> Vjp:
    """yₖ = part k of x along dim:  dx = the gₖ one after the other, 0 where one is undefined."""
    return [joined(n, g, n.dim)]


@vjp("SplitWithSizesBackward0", "SplitWithSizesBackward0_copy")
def split_with_sizes(n: Site, *g: Array | None) -> Vjp:
    """yₖ = part k of x along dim:  dx = the gₖ one after the other, 0 where one is undefined."""
    return [joined(n, g, n.dim)]


def joined(n: Site, gradients: Sequence[Array | None], dim: int) -> Array:
    """The gradients of all outputs side by side."""
    parts: list[Array] = []
    for gradient, spec in zip(gradients, n.outputs, strict=True):
        if gradient is None and spec is None:
            raise RuleError(f"an output of {n.name} has no known shape")
        parts.append(gradient if gradient is not None else Full(0.0, spec.shape if spec else ()))
    return cat(parts, dim)


@vjp("UnbindBackward0", "UnbindBackward0_copy")
def unbind(n: Site, *g: Array | None) -> Vjp:
    """yₖ = x[k] along dim:  dx = the gₖ stacked, 0 where one is undefined."""
    shape = list(n.shape(0))
    del shape[n.dim]
    return [stack([one if one is not None else Full(0.0, shape) for one in g], n.dim)]


@vjp("RepeatBackward0")
def repeat(n: Site, g: Array) -> Vjp:
    """y = x repeated along axes:  dx = g summed over the repetitions."""
    shape = (1,) * (len(n.repeats) - len(n.shape(0))) + n.shape(0)
    pairs = [size for pair in zip(n.repeats, shape, strict=True) for size in pair]
    if 0 in n.repeats:
        return [Full(0.0, n.shape(0))]
    total = g.reshape(*pairs).sum(range(0, len(pairs), 2)) if pairs else g
    return [total.reshape(*n.shape(0))]


@vjp("TriuBackward0")
def triu(n: Site, g: Array) -> Vjp:
    """y = x on and above diagonal k:  dx = g there."""
    return [g.where(index_along(g.shape, -1) - index_along(g.shape, -2) >= n.diagonal)]


@vjp("TrilBackward0")
def tril(n: Site, g: Array) -> Vjp:
    """y = x on and below diagonal k:  dx = g there."""
    return [g.where(index_along(g.shape, -1) - index_along(g.shape, -2) <= n.diagonal)]


# -------------------------------------------------------------------- joining


@vjp("CatBackward0")
def cat_(n: Site, g: Array) -> Vjp:
    """y = the xₖ one after the other along dim:  dxₖ = the part of g that xₖ became."""
    dim = n.dim % g.ndim
    # Torch tells no shape of an input that wants no gradient: count from both ends.
    found: Vjp = [None] * len(n.inputs)
    start = 0
    for slot, spec in enumerate(n.inputs):
        if spec is None:
            break
        size = 0 if spec.shape == (0,) else spec.shape[dim]
        found[slot] = g.slice(dim, start, start + size).reshape(*spec.shape)
        start += size
    else:
        return found
    stop = g.shape[dim]
    for slot in range(len(n.inputs) - 1, -1, -1):
        spec = n.inputs[slot]
        if spec is None:
            break
        size = 0 if spec.shape == (0,) else spec.shape[dim]
        found[slot] = g.slice(dim, stop - size, stop).reshape(*spec.shape)
        stop -= size
    return found


@vjp("StackBackward0")
def stack_(n: Site, g: Array) -> Vjp:
    """y = the xₖ along a new axis:  dxₖ = g[k]."""
    return [g.select(n.dim, k) for k in range(len(n.inputs))]
