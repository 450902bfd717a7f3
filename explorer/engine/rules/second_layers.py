"""Rules of the gradients of layers: double backward of convolution, normalisation, pooling, padding, views.

The forward of such a node is a backward h; c is the gradient of what h gave. Most are linear in the incoming
gradient g of the first backward, so that dg is what the layer itself does to c.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from explorer.engine.array import Array
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Missing, index_along
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rules.convolution import (
    _each,
    correlated_input,
    correlated_output,
    correlated_weight,
)
from explorer.engine.rules.indexing import selected_rows
from explorer.engine.rules.padding import held, mirrored
from explorer.engine.run import Run
from explorer.engine.views import diagonal as diagonal_of

Vjp = list[Array | None]


def added(*parts: Array | None) -> Array | None:
    """The sum of those that are defined, None where none is."""
    found: Array | None = None
    for part in parts:
        if part is not None:
            found = part if found is None else found + part
    return found


# -------------------------------------------------------------------- convolution


@vjp("ConvolutionBackwardBackward0", "ConvolutionBackwardOverrideableBackward0")
def convolution_backward(n: Site, cx: Array | None, cw: Array | None, cb: Array | None = None) -> Vjp:
    """h = (wᵀ∗g, x∗g, Σ g):  dg = w∗cx + cw∗x + cb,  dx = cwᵀ∗g,  dw = cx∗g, ∗ as the convolution has it."""
    g, x, w = n.grad_output, n.input, n.weight
    for one in (g, x, w):
        if isinstance(one, Missing):
            return [one, one, one]
        if one.is_complex:
            raise RuleError("the double backward of a complex convolution")
    spatial = g.ndim - 2
    stride, padding, dilation = (_each(value, spatial) for value in (n.stride, n.padding, n.dilation))
    args = (stride, padding, dilation, n.groups)
    forth, back = (
        (correlated_input, correlated_output) if n.transposed else (correlated_output, correlated_input)
    )
    bias = None if cb is None else cb.reshape(1, -1, *[1] * spatial).expand(*g.shape)
    dg = added(
        None if cx is None else forth(cx, w, g.shape, *args),
        None if cw is None else forth(x, cw, g.shape, *args),
        bias,
    )
    dx = None if cw is None else back(g, cw, x.shape, *args)
    dw: Array | None = None
    if cx is not None:
        one, other = (cx, g) if n.transposed else (g, cx)
        dw = correlated_weight(one, other, w.shape, *args)
    return [dg, dx, dw]


# -------------------------------------------------------------------- normalisation


def _scaled_first(c: Array, centred: Array, scale: Array, axes: Sequence[int]) -> Array:
    """r (c - mean c - x̂ r² mean(c x̂)), x̂ = x - μ: what normalising sends back, and its own transpose."""
    count = prod(c.shape[axis] for axis in axes)
    total, inner = c.sum(axes, keepdim=True), (c * centred).sum(axes, keepdim=True)
    return scale * (c - total / count - centred * (scale * scale * inner / count))


def _scaled_second(c: Array, g: Array, centred: Array, scale: Array, axes: Sequence[int]) -> Array:
    """The derivative by x of Σ c h, h = r (g - mean g - x̂ r² mean(g x̂)).

    With S = Σ c g - m c̄ ḡ and p, q the means of c x̂ and g x̂ over m elements:
    -r³ x̂ (S - 3 m r² p q)/m - r³ ((g - ḡ) p + (c - c̄) q).
    """
    count = prod(c.shape[axis] for axis in axes)
    cubed = scale * scale * scale
    csum, gsum = c.sum(axes, keepdim=True), g.sum(axes, keepdim=True)
    p, q = (c * centred).sum(axes, keepdim=True), (g * centred).sum(axes, keepdim=True)
    inner = csum * gsum / count - (c * g).sum(axes, keepdim=True) + scale * scale * q * p * (3.0 / count)
    turned = p * cubed / count * (gsum / count - g) + q * cubed / count * (csum / count - c)
    return centred * cubed * inner / count + turned


@vjp("NativeBatchNormBackwardBackward0", "BatchNormBackwardBackward0", "CudnnBatchNormBackwardBackward0")
def batch_norm_backward(n: Site, cx: Array | None, cw: Array | None, cb: Array | None) -> Vjp:
    """h = (dx, dw, db) of batch norm; the statistics depend on x in training."""
    g = n.grad_out if "grad_out" in n.saved else n.grad_output
    x = n.input
    training = next((n.saved[key] for key in ("train", "update") if key in n.saved), True)
    channel = [1, g.shape[1], *[1] * (g.ndim - 2)]
    axes = [0, *range(2, g.ndim)]
    if training:
        mean = n.save_mean.reshape(*channel)
        scale = (n.save_invstd if "save_invstd" in n.saved else n.save_var).reshape(*channel)
    else:
        mean = n.running_mean.reshape(*channel)
        scale = 1 / (n.running_var.reshape(*channel) + (n.eps if "eps" in n.saved else n.epsilon)).sqrt()
    centred = x - mean
    weight: Array | float = 1.0 if n.weight is None else n.weight.reshape(*channel)
    wide = None if cw is None else cw.reshape(*channel)
    dg: Array | None = None
    dx: Array | None = None
    dw: Array | None = None
    if cx is not None:
        dg = (_scaled_first(cx, centred, scale, axes) if training else scale * cx) * weight
        dx = _scaled_second(cx, g, centred, scale, axes) * weight if training else None
        first = _scaled_first(g, centred, scale, axes) if training else g * scale
        dw = (cx * first).sum(axes)
    if wide is not None:
        dg = added(dg, wide * centred * scale)
        dx = added(dx, wide * (_scaled_first(g, centred, scale, axes) if training else g * scale))
    if cb is not None:
        dg = added(dg, cb.reshape(*channel).expand(*g.shape))
    return [dg, dx, dw, None, None, *[None] * max(len(n.inputs) - 5, 0)]


@vjp("NativeLayerNormBackwardBackward0")
def layer_norm_backward(n: Site, cx: Array | None, cw: Array | None, cb: Array | None) -> Vjp:
    """h = (dx, dw, db) of layer norm; mean and scale depend on x."""
    g, x, mean, scale = n.grad_out, n.input, n.mean, n.rstd
    axes = range(g.ndim - len(n.normalized_shape), g.ndim)
    rows = range(axes.start)
    centred = x - mean
    weight: Array | float = 1.0 if n.weight is None else n.weight
    gw = g * weight
    dg: Array | None = None
    dx: Array | None = None
    dw: Array | None = None
    if cx is not None:
        first = _scaled_first(cx, centred, scale, axes)
        dg = first * weight
        dx = _scaled_second(cx, gw, centred, scale, axes)
        dw = (first * g).sum(rows) if rows else first * g
    if cw is not None:
        dg = added(dg, cw * centred * scale)
        dx = added(dx, _scaled_first(g * cw, centred, scale, axes))
    if cb is not None:
        dg = added(dg, cb.expand(*g.shape))
    return [dg, dx, None, None, dw, None]


# -------------------------------------------------------------------- pooling


@vjp("AvgPool2DBackwardBackward0", "AvgPool3DBackwardBackward0")
def avg_pool_backward(n: Site, c: Array) -> Vjp:
    """h[p] = Σ g[q]/m over the windows that hold p:  dg[q] = Σ c/m over its window,  dx = 0."""
    spatial = 3 if "3D" in n.name else 2
    shape = n.shape(0)
    lead, sizes = c.ndim - spatial, c.shape[c.ndim - spatial :]
    kernel, padding = _each(n.kernel_size, spatial), _each(n.padding, spatial)
    stride = _each(n.stride or n.kernel_size, spatial)

    def terms(point: Point, run: Run) -> tuple[list[Point], list[float]]:
        spans, area = [], 1
        for q, size, k, s, pad in zip(point[lead:], sizes, kernel, stride, padding, strict=True):
            start, stop = q * s - pad, min(q * s - pad + k, size + pad)
            inside = range(max(start, 0), min(stop, size))
            area *= stop - start if n.count_include_pad else len(inside)
            spans.append(inside)
        found = list(product(*spans))
        return [(*point[:lead], *p) for p in found], [1 / (n.divisor_override or area)] * len(found)

    return [linear(shape, c, terms), c * 0.0]


@vjp("AdaptiveAvgPool2DBackwardBackward0", "AdaptiveAvgPool3DBackwardBackward0")
def adaptive_avg_pool_backward(n: Site, c: Array) -> Vjp:
    """h[p] = Σ g[q]/m over the windows that hold p:  dg[q] = the mean of c over its window,  dx = 0."""
    spatial = 3 if "3D" in n.name else 2
    shape = n.shape(0)
    lead = c.ndim - spatial
    sizes, counts = c.shape[lead:], shape[lead:]

    def terms(point: Point, run: Run) -> tuple[list[Point], list[float]]:
        spans = [
            range(q * size // count, -(-(q + 1) * size // count))
            for q, size, count in zip(point[lead:], sizes, counts, strict=True)
        ]
        found = list(product(*spans))
        return [(*point[:lead], *p) for p in found], [1 / len(found)] * len(found)

    return [linear(shape, c, terms), c * 0.0]


# -------------------------------------------------------------------- padding, embedding and views


@vjp(*[f"{sort}Pad{k}DBackwardBackward0" for sort in ("Reflection", "Replication") for k in (1, 2, 3)])
def pad_backward(n: Site, c: Array) -> Vjp:
    """h[p] = Σ g[q] over the q that show p:  dg = c padded in the same way,  dx = 0."""
    shape, pads = n.shape(0), n.padding
    source = mirrored if n.name.startswith("Reflection") else held

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        place = list(point)
        for k in range(len(pads) // 2):
            axis = len(shape) - 1 - k
            place[axis] = source(point[axis] - pads[2 * k], c.shape[axis])
        return [tuple(place)], None

    return [linear(shape, c, terms), c * 0.0]


@vjp("EmbeddingDenseBackwardBackward0")
def embedding_backward(n: Site, c: Array) -> Vjp:
    """h[r] = Σ g[k] over i[k] = r:  dg[k] = c[i[k]], 0 for the padding row."""
    index = n.indices.reshape(-1)
    rows = selected_rows(c, 0, index)
    if n.padding_idx >= 0:
        rows = rows.where(index.ne(n.padding_idx).reshape(-1, 1))
    return [rows.reshape(*n.shape(0))]


@vjp("SelectBackwardBackward0")
def select_backward(n: Site, c: Array) -> Vjp:
    """h = g at index i of zeros:  dg = c[i]."""
    return [c.select(n.dim, n.index % c.shape[n.dim])]


@vjp("SliceBackwardBackward0")
def slice_backward(n: Site, c: Array) -> Vjp:
    """h = g at [start:end:step] of zeros:  dg = c there."""
    return [c.slice(n.dim % c.ndim, n.start, n.end, n.step)]


@vjp("DiagonalBackwardBackward0")
def diagonal_backward(n: Site, c: Array) -> Vjp:
    """h = g on a diagonal of zeros:  dg = that diagonal of c."""
    return [diagonal_of(c, n.offset, n.dim1, n.dim2)]


@vjp("UnfoldBackwardBackward0")
def unfold_backward(n: Site, c: Array) -> Vjp:
    """h[p] = Σ g over the (w, k) with w·step + k = p:  dg[.., w, .., k] = c[.., w·step + k, ..]."""
    dim = n.dim % c.ndim

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        return [(*point[:dim], point[dim] * n.step + point[-1], *point[dim + 1 : -1])], None

    return [linear(n.shape(0), c, terms)]


# -------------------------------------------------------------------- the negative log likelihood


@vjp("NllLossBackwardBackward0", "NllLoss2DBackwardBackward0")
def nll_backward(n: Site, c: Array) -> Vjp:
    """h[c] = -w[t] g where c = t (divided by Σ w[t] for the mean):  dg = the loss of c,  dx = 0."""
    dim = 1 if c.ndim > 1 else 0
    target = n.target.unsqueeze(dim) if n.target.ndim < c.ndim else n.target
    kept = target.ne(n.ignore_index)
    hit = index_along(c.shape, dim).eq(target) & kept
    shape = [1] * c.ndim
    shape[dim] = c.shape[dim]
    weight = hit * 1.0 if n.weight is None else n.weight.reshape(*shape).where(hit)
    found = -(c * weight)
    if n.reduction == 0:
        return [found.sum(dim).reshape(*n.shape(0)), c * 0.0]
    total = found.sum()
    return [total / weight.sum() if n.reduction == 1 else total, c * 0.0]
