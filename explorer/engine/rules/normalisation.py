"""Rules of batch, layer, group and weight normalisation, in the arrangement in which torch computes them."""

from __future__ import annotations

from math import inf, prod
from typing import Any

from explorer.engine.array import Array
from explorer.engine.reduce import centred_sum
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.reductions import norm_gradient

Vjp = list[Array | None]


@vjp("NativeBatchNormBackward0", "CudnnBatchNormBackward0", "MiopenBatchNormBackward0", shared=(1, 0, 0))
def batch_norm(n: Site, g: Array) -> Vjp:
    """y = (x - μ) r w + b per channel, r = 1/√(σ² + ε).

    Training, means over all but the channel:  dx = w r (g - mean(g) - (x - μ) r² mean(g (x - μ))).
    Evaluating:  dx = w r g.  dw = r Σ g (x - μ),  db = Σ g.
    """
    x = n.input
    channel = [1] * g.ndim
    channel[1] = g.shape[1]
    others = [0, *range(2, g.ndim)]
    if n.training if "training" in n.saved else True:
        mean, scale = n.result1.reshape(*channel), n.result2.reshape(*channel)
    else:
        mean = n.running_mean.reshape(*channel)
        scale = 1 / (n.running_var.reshape(*channel) + (n.eps if "eps" in n.saved else n.epsilon)).sqrt()
    total = g.sum(others, keepdim=True)
    product = centred_sum(g, x, mean, total, others)
    weight = 1.0 if n.weight is None else n.weight.reshape(*channel)
    if n.training:
        count = g.numel // max(g.shape[1], 1)
        dx = (g - total / count - (x - mean) * (product * scale * scale / count)) * (scale * weight)
    else:
        dx = g * (scale * weight)
    return [dx, (product * scale).reshape(-1), total.reshape(-1)]


@vjp("NativeLayerNormBackward0")
def layer_norm(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y = (x r - μ r) w + b over the last axes, m elements, r = 1/√(σ² + ε).

    With s = Σ g w x and t = Σ g w:  dx = r g w + c x - c μ - t r/m,  c = (t μ - s) r³/m.
    dw = Σ g (x r - μ r),  db = Σ g over the rows.
    """
    x, mean, scale = n.input, n.result1, n.result2
    size = prod(n.normalized_shape)
    axes = range(g.ndim - len(n.normalized_shape), g.ndim)
    gw = g if n.weight is None else g * n.weight
    s, t = (gw * x).sum(axes, keepdim=True), gw.sum(axes, keepdim=True)
    c = (t * mean - s) * scale * scale * scale / size
    dx = scale * gw + c * x + (-c * mean - t * scale / size)
    rows = range(axes.start)
    dw = g * (x * scale - mean * scale)
    if rows:
        return [dx, dw.sum(rows), g.sum(rows)]
    return [dx, dw, g]


@vjp("FusedRmsNormBackward0")
def rms_norm(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y = x r w, r = 1/√(mean(x²) + ε):  dx = r g w - x r³ mean(g w x),  dw = Σ g x r."""
    x, scale = n.input, n.result1
    axes = range(g.ndim - len(n.normalized_shape), g.ndim)
    gw = g if n.weight is None else g * n.weight
    s = (gw * x).sum(axes, keepdim=True) / prod(n.normalized_shape)
    dx = scale * gw - x * (scale * scale * scale * s)
    rows = range(axes.start)
    dw = g * (x * scale)
    return [dx, dw.sum(rows) if rows else dw]


@vjp("NativeGroupNormBackward0")
def group_norm(n: Site, g: Array, gmean: Array | None = None, gscale: Array | None = None) -> Vjp:
    """y = (x - μ) r w + b, μ and r per group of m elements; who uses μ and r themselves adds to dx
    dμ/m and -dr r³ (x - μ)/m.

    With s = Σ g w x and t = Σ g w over the group:  dx = r g w + c x - c μ - t r/m,  c = (t μ - s) r³/m.
    dw = Σ_batch r (Σ g x - μ Σ g),  db = Σ g.
    """
    each, inner = n.C // n.group, n.HxW
    wide = (n.N, n.group, each, inner)
    x, gy = n.input.reshape(*wide), g.reshape(*wide)
    mean, scale = n.result1.reshape(n.N, n.group, 1, 1), n.result2.reshape(n.N, n.group, 1, 1)
    weight = 1.0 if n.weight is None else n.weight.reshape(1, n.group, each, 1)
    gx, gs = (gy * x).sum(3, keepdim=True), gy.sum(3, keepdim=True)
    s, t = (gx * weight).sum(2, keepdim=True), (gs * weight).sum(2, keepdim=True)
    c = (t * mean - s) * scale * scale * scale / (each * inner)
    dx = gy * (scale * weight) + c * x + (-c * mean - t * scale / (each * inner))
    if gmean is not None:
        dx = dx + gmean.reshape(*mean.shape) / (each * inner)
    if gscale is not None:
        dx = dx - gscale.reshape(*mean.shape) * scale * scale * scale * (x - mean) / (each * inner)
    dw, db = ((gx - gs * mean) * scale).sum(0), gs.sum(0)
    return [dx.reshape(*g.shape), dw.reshape(-1), db.reshape(-1)]


@vjp("WeightNormInterfaceBackward0")
def weight_norm(n: Site, g: Array, *_: Array | None) -> Vjp:
    """w = v s/‖v‖ over all axes but dim:  dv = (s/‖v‖)(g - v Σ(g v)/‖v‖²),  ds = Σ(g v)/‖v‖."""
    v, norm = n.v, n.result1
    dim = n.dim % v.ndim
    others = [axis for axis in range(v.ndim) if axis != dim]
    kept = [size if axis == dim else 1 for axis, size in enumerate(v.shape)]
    norm, scale = norm.reshape(*kept), n.g.reshape(*kept)
    product = (g * v).sum(others, keepdim=True)
    return [scale / norm * (g - v * (product / (norm * norm))), product / norm]


@vjp("NativeDropoutBackward0")
def dropout(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y = x m / (1 - p), m saved:  dx = g m / (1 - p)."""
    return [g * n.result1 * (1 / (1 - n.p) if n.p < 1 else 0.0)]


@vjp("RenormBackward0")
def renorm(n: Site, g: Array) -> Vjp:
    """y = x M/(‖x‖ₚ + ε) for each slice with ‖x‖ₚ > M:  dx = M/(‖x‖ₚ + ε) (g - (x·g) ∂‖x‖ₚ/(‖x‖ₚ + ε))."""
    x = n.self
    others = [axis for axis in range(x.ndim) if axis != n.dim % x.ndim]
    size = _norm(x, n.p, others)
    inner = (x.conj() * g).real.sum(others, keepdim=True)
    slope = norm_gradient(x, size, inner, n.p, others, True)
    inverse = 1 / (size + 1e-7)
    return [(n.maxnorm * inverse * (g - inverse * slope)).where(size > n.maxnorm, g)]


def _norm(x: Array, order: Any, dims: list[int]) -> Array:
    """‖x‖ₚ over `dims`, which stay with size 1; p > 0."""
    if order == inf:
        return abs(x).amax(dims, keepdim=True)
    if order == 1:
        return abs(x).sum(dims, keepdim=True)
    if order == 2:
        return (x * x.conj()).real.sum(dims, keepdim=True).sqrt()
    found: Array = (abs(x) ** order).sum(dims, keepdim=True) ** (1 / order)
    return found
