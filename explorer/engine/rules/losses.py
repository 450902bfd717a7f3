"""Rules of losses. `reduction` is 0 for none, 1 for mean, 2 for sum."""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.elementwise import SOFTPLUS, index_along
from explorer.engine.registry import Site, vjp

Vjp = list[Array | None]


def averaged(n: Site, g: Array, like: Array) -> Array:
    """`g` divided by the number of elements of `like` where the loss is their mean."""
    return g / max(like.numel, 1) if n.reduction == 1 else g


# -------------------------------------------------------------------- regression


@vjp("MseLossBackward0")
def mse(n: Site, g: Array) -> Vjp:
    """l = (x - t)²:  dx = 2 g (x - t),  dt = -dx."""
    dx = 2.0 * averaged(n, g, n.self) * (n.self - n.target)
    return [dx, -dx]


@vjp("SmoothL1LossBackward0")
def smooth_l1(n: Site, g: Array) -> Vjp:
    """l = |d| < β ? d²/2β : |d| - β/2, d = x - t:  dx = |d| < β ? g d/β : g sign d,  dt = -dx."""
    g, d = averaged(n, g, n.self), n.self - n.target
    dx = g * d.sign() if n.beta == 0 else (g * d / n.beta).where(abs(d) < n.beta, g * d.sign())
    return [dx, -dx]


@vjp("HuberLossBackward0")
def huber(n: Site, g: Array) -> Vjp:
    """l = |d| ≤ δ ? d²/2 : δ(|d| - δ/2), d = x - t:  dx = g clamp(d, -δ, δ),  dt = -dx."""
    d = (n.self - n.target).maximum(-n.delta).minimum(n.delta)
    dx = averaged(n, g, n.self) * d
    return [dx, -dx]


# -------------------------------------------------------------------- classification


@vjp("NllLossBackward0")
def nll(n: Site, g: Array) -> Vjp:
    """l = -w[t] x[t]:  dx[c] = -w[c] g where c = t, t not ignored; divided by Σ w[t] for the mean."""
    return [_nll(n, g, n.self, n.target, 1 if n.self.ndim == 2 else 0)]


@vjp("NllLoss2DBackward0")
def nll_2d(n: Site, g: Array) -> Vjp:
    """l = -w[t] x[t] at each place:  dx[c] = -w[c] g where c = t, t not ignored; mean as for nll."""
    return [_nll(n, g, n.self, n.target, 1)]


def _nll(n: Site, g: Array, x: Array, target: Array, dim: int) -> Array:
    if n.reduction == 1:
        g = g / n.total_weight
    if n.reduction == 0 and x.ndim > 1:
        g = g.unsqueeze(dim)
    target = target.unsqueeze(dim) if target.ndim < x.ndim else target
    hit = index_along(x.shape, dim).eq(target) & target.ne(n.ignore_index)
    if n.weight is not None:
        shape = [1] * x.ndim
        shape[dim] = x.shape[dim]
        g = g * n.weight.reshape(*shape)
    return (-g).where(hit)


@vjp("BinaryCrossEntropyBackward0")
def bce(n: Site, g: Array) -> Vjp:
    """l = -w (t log x + (1 - t) log(1 - x)):  dx = g w (x - t) / max(x (1 - x), 1e-12)."""
    x, t = n.self, n.target
    g = averaged(n, g, x)
    if n.weight is not None:
        g = g * n.weight
    dx = g * (x - t) / ((1 - x) * x).maximum(1e-12)
    dt = g * ((1 - x).log() - x.log()) if n.needs(1) else None
    return [dx, dt]


@vjp("BinaryCrossEntropyWithLogitsBackward0")
def bce_with_logits(n: Site, g: Array) -> Vjp:
    """l = w ((1 - t) x + (1 + (p - 1) t) log(1 + e⁻ˣ)):  dx = g w (σ(x) - t);

    with p:  dx = g w ((p t + 1 - t) σ(x) - p t),  dt = g w ((1 - p) log σ(x)... - x) in the same way.
    """
    x, t = n.self, n.target
    g = averaged(n, g, x)
    if n.weight is not None:
        g = g * n.weight
    if n.pos_weight is None:
        return [g * (x.sigmoid() - t), -g * x]
    pt = n.pos_weight * t
    minus = (-x).map(SOFTPLUS)
    return [g * ((pt + 1 - t) * x.sigmoid() - pt), g * ((n.pos_weight - 1) * minus - x)]
