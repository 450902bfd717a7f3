"""Rules of nodes that are themselves gradients (double backward), and of relatives of rules elsewhere."""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.elementwise import index_along
from explorer.engine.leaf import Leaf
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.indexing import gathered, scattered
from explorer.engine.rules.losses import averaged
from explorer.engine.rules.normalisation import batch_norm

Vjp = list[Array | None]

# -------------------------------------------------------------------- batch norm under other names


@vjp("NativeBatchNormLegitBackward0", "NativeBatchNormLegitBackward1", "BatchNormWithUpdateBackward0")
def batch_norm_legit(n: Site, g: Array, *_: Array | None) -> Vjp:
    """As batch norm; `_batch_norm_with_update` always trains."""
    saved = {"training": True, **n.saved}
    return list(batch_norm(Site(n.name, saved, n.inputs, n.outputs, n.matmul_precision), g))


# -------------------------------------------------------------------- margin losses


@vjp("SoftMarginLossBackward0")
def soft_margin(n: Site, g: Array) -> Vjp:
    """l = log(1 + e^(-t x)):  dx = -g t σ(-t x)."""
    return [averaged(n, g, n.self) * -n.target * (-n.target * n.self).sigmoid()]


@vjp("MultiMarginLossBackward0")
def multi_margin(n: Site, g: Array) -> Vjp:
    """l = Σ_{c≠t} w_t max(0, m - x_t + x_c)ᵖ / C:  dx_c = p w_t (..)^(p-1) g / C,  dx_t = -Σ dx_c."""
    x = n.self if n.self.ndim == 2 else n.self.reshape(1, -1)
    rows, classes = x.shape
    target = n.target.reshape(rows, 1)
    z = x - gathered(x, 1, target) + n.margin
    g = g.reshape(rows, 1) if g.numel == rows and n.reduction == 0 else g.reshape(1, 1)
    g = g / (classes * (rows if n.reduction == 1 else 1))
    if n.weight is not None:
        g = g * gathered(n.weight.unsqueeze(0).expand(rows, classes), 1, target)
    here = index_along(x.shape, 1).eq(target)
    others = (g if n.p == 1 else 2 * z * g).expand(rows, classes).where((z > 0) & ~here)
    dx = (-others.sum(1, keepdim=True)).expand(rows, classes).where(here, others)
    return [dx.reshape(*n.self.shape)]


@vjp("MultilabelMarginLossBackward0")
def multilabel_margin(n: Site, g: Array) -> Vjp:
    """l = Σ_{t, c not a label} max(0, 1 - x_t + x_c) / C:  each positive pair adds g/C at c and -g/C at t."""
    x = n.self if n.self.ndim == 2 else n.self.reshape(1, -1)
    rows, classes = x.shape
    labels, marked = n.target.reshape(rows, classes), n.is_target.reshape(rows, classes)
    numbers = labels.values()
    ends = [[*numbers[r * classes : (r + 1) * classes], -1].index(-1) for r in range(rows)]
    valid = index_along(x.shape, 1) < _column(ends)
    at_label = gathered(x, 1, labels.maximum(0))
    pair = (1 - at_label.unsqueeze(2) + x.unsqueeze(1) > 0) & valid.unsqueeze(2) & marked.eq(0).unsqueeze(1)
    g = g.reshape(rows, 1) if g.numel == rows and n.reduction == 0 else g.reshape(1, 1)
    each = g / (classes * (rows if n.reduction == 1 else 1))
    dx = each * pair.sum(1) - scattered(x.shape, 1, labels.maximum(0), each * pair.sum(2))
    return [dx.reshape(*n.self.shape)]


def _column(numbers: list[int]) -> Array:
    return Leaf(list(numbers), (len(numbers), 1), dtype="int64")


# -------------------------------------------------------------------- double backward

# Each of these nodes is a first-order formula h(g, x) = g f′(x); its own gradient c gives
# dg = c f′(x) and dx = c g f″(x).


@vjp("TanhBackwardBackward0")
def tanh_backward(n: Site, c: Array) -> Vjp:
    """h = g conj(1 - y²):  dg = c (1 - y²),  dy = -2 c̄ y g, in torch's order of conjugates."""
    y = n.output
    return [c * (1 - y * y), c.conj() * (-2 * y * n.grad_output)]


@vjp("SigmoidBackwardBackward0")
def sigmoid_backward(n: Site, c: Array) -> Vjp:
    """h = g y (1 - y):  dg = c y (1 - y),  dy = c g (1 - 2 y)."""
    y = n.output
    return [c * (y * (1 - y)).conj(), c * n.grad_output.conj() * (1 - 2 * y).conj()]


@vjp("ThresholdBackwardBackward0")
def threshold_backward(n: Site, c: Array) -> Vjp:
    """h = x > t ? g : 0:  dg = c where not x ≤ t,  dx = 0."""
    return [c.where(~(n.self <= n.threshold)), c * 0.0]


@vjp("SoftmaxBackwardDataBackward0")
def softmax_backward(n: Site, c: Array) -> Vjp:
    """h = g y - y Σ g y:  dg = c y - y Σ c y,  dy = c g - c Σ g y - g Σ c y."""
    g, y = n.grad_output, n.output
    cy = (c * y).sum(n.dim, keepdim=True)
    return [c * y - y * cy, c * g - c * (g * y).sum(n.dim, keepdim=True) - g * cy]


@vjp("LogSoftmaxBackwardDataBackward0")
def log_softmax_backward(n: Site, c: Array) -> Vjp:
    """h = g - e^y Σ g:  dg = c - Σ c e^y,  dy = -c e^y Σ g."""
    p = n.output.exp()
    dg = c - (c * p).sum(n.dim, keepdim=True)
    return [dg, -(c * p) * n.grad_output.sum(n.dim, keepdim=True)]


@vjp("NativeDropoutBackwardBackward0")
def dropout_backward(n: Site, c: Array) -> Vjp:
    """h = g m s:  dg = c m s."""
    return [c * n.mask * n.scale, None]


@vjp("MseLossBackwardBackward0")
def mse_backward(n: Site, c: Array) -> Vjp:
    """h = 2 g (x - t) / m:  dg = Σ 2 c (x - t) / m,  dx = 2 c g / m,  dt = -dx."""
    x, t = n.self, n.target
    size = max(x.numel, 1) if n.reduction == 1 else 1
    dg = c * (x - t) * (2.0 / size)
    dx = c * n.grad_output * (2.0 / size)
    return [dg if n.reduction == 0 else dg.sum(), dx, -dx]


@vjp("SiluBackwardBackward0")
def silu_backward(n: Site, c: Array) -> Vjp:
    """h = g σ (1 + x (1 - σ)):  dg likewise from c,  dx = c g σ (1 - σ) (2 + x (1 - 2σ))."""
    x = n.self
    s = x.sigmoid()
    dx = c * n.grad_output * (s * (1 - s) * (2 + x * (1 - 2 * s)))
    return [c * (s * (1 + x * (1 - s))), dx]


@vjp("LeakyReluBackwardBackward0")
def leaky_relu_backward(n: Site, c: Array) -> Vjp:
    """h = x > 0 ? g : a g:  dg = x > 0 ? c : a c,  dx = 0."""
    return [c.where(n.self > 0, c * n.negative_slope), c * 0.0]
