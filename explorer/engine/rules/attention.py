"""Rules of softmax and of attention."""

from __future__ import annotations

from math import sqrt

from explorer.engine.array import Array
from explorer.engine.elementwise import SHARP_EXP, index_along
from explorer.engine.registry import RuleError, Site, vjp

Vjp = list[Array | None]


@vjp("SoftmaxBackward0", "SafeSoftmaxBackward0")
def softmax(n: Site, g: Array) -> Vjp:
    """yᵢ = e^xᵢ / Σ e^xⱼ:  dx = g y - y Σ g y."""
    gy = g * n.result
    return [gy - n.result * gy.sum(n.dim, keepdim=True)]


@vjp("LogSoftmaxBackward0")
def log_softmax(n: Site, g: Array) -> Vjp:
    """y = x - log Σ eˣ:  dx = g - e^y Σ g."""
    return [g - n.result.exp() * g.sum(n.dim, keepdim=True)]


@vjp("ScaledDotProductFlashAttentionForCpuBackward0", "ScaledDotProductFlashAttentionBackward0",
     "ScaledDotProductEfficientAttentionBackward0")  # fmt: skip
def attention(n: Site, g: Array, *_: Array | None) -> Vjp:
    """O = P V, P = exp(s Q Kᵀ + mask - L), L = logsumexp, s = 1/√d.

    dV = Pᵀ G,  dP = G Vᵀ,  dS = P (dP - Σ G O),  dQ = s dS K,  dK = s dSᵀ Q.
    Where several query heads share a head of K and V (grouped queries), its gradients are their sums.
    """
    if n.dropout_p:
        raise RuleError("attention with dropout: its mask is regenerated from the random state")
    q = n.query
    group = q.shape[-3] // n.key.shape[-3] if len(q.shape) == 4 else 1
    k, v = _repeated(n.key, group), _repeated(n.value, group)
    scale = 1 / sqrt(q.shape[-1]) if n.scale is None else n.scale
    scores = (q @ k.mT) * scale
    mask = n.saved.get("attn_mask") if "attn_mask" in n.saved else n.saved.get("attn_bias")
    if mask is not None:
        scores = scores.where(mask, -float("inf")) if getattr(mask, "dtype", "") == "bool" else scores + mask
    total = n.logsumexp if "Cpu" in n.name or "Flash" in n.name else n.log_sumexp
    # No score exceeds the logsumexp but by its rounding, which can be large where the scores are.
    p = (scores - total.slice(-1, 0, q.shape[-2]).unsqueeze(-1)).minimum(0.0).map(SHARP_EXP)
    if n.is_causal:
        shape = scores.shape
        p = p.where(index_along(shape, -1) - index_along(shape, -2) <= 0)
    ds = p * (g @ v.mT - (g * n.output).sum(-1, keepdim=True))
    return [(ds @ k) * scale, _summed((ds.mT @ q) * scale, group), _summed(p.mT @ g, group)]


def _repeated(heads: Array, group: int) -> Array:
    """Each head `group` times in a row: (B, H, S, D) to (B, H·group, S, D)."""
    if group == 1:
        return heads
    batch, count, length, width = heads.shape
    return (
        heads.unsqueeze(2)
        .expand(batch, count, group, length, width)
        .reshape(batch, count * group, length, width)
    )


def _summed(gradient: Array, group: int) -> Array:
    """The adjoint of `_repeated`."""
    if group == 1:
        return gradient
    batch, count, length, width = gradient.shape
    return gradient.reshape(batch, count // group, group, length, width).sum(2)
