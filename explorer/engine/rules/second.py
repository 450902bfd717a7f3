"""Rules of nodes that are themselves gradients (double backward), and of relatives of rules elsewhere."""

from __future__ import annotations

from math import pi, sqrt

from explorer.engine.array import Array
from explorer.engine.elementwise import NORMAL_CDF, Full, index_along, unless_nan
from explorer.engine.leaf import Leaf
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rules.arithmetic import limit
from explorer.engine.rules.indexing import gathered, scattered
from explorer.engine.rules.losses import averaged
from explorer.engine.rules.normalisation import batch_norm
from explorer.engine.views import cat

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
    """l = log(1 + e^(-t x)):  dx = -g t z / (1 + z), z = e^(-t x)."""
    z = (-n.target * n.self).exp()
    return [-n.target * z / (1 + z) * averaged(n, g, n.self)]


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
    return [c.where(~(n.self <= limit(n, n.threshold, accumulated=True))), c * 0.0]


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


@vjp("LeakyReluBackwardBackward0")
def leaky_relu_backward(n: Site, c: Array) -> Vjp:
    """h = x > 0 ? g : a g:  dg = x > 0 ? c : a c,  dx = 0."""
    return [c.where(n.self > 0, c * n.negative_slope), c * 0.0]


# -------------------------------------------------------------------- activations with a second derivative


@vjp("GeluBackwardBackward0")
def gelu_backward(n: Site, c: Array) -> Vjp:
    """h = g y′, y = x Φ(x):  dg = c y′,  dx = c g φ (2 - x²).

    With approximate="tanh", t = tanh u, u = k (x + a x³):  y′ = (1 + t)/2 + x t′/2,  y″ = t′ + x t″/2,
    t′ = (1 - t²) u′,  t″ = (1 - t²)(u″ - 2 t u′²).
    """
    x, gc = n.self, c * n.grad_output
    if n.approximate != "tanh":
        density = (x * x * -0.5).exp() * (1 / sqrt(2 * pi))
        return [c * (x.map(NORMAL_CDF) + x * density), gc * (2 * density - x * x * density)]
    k, cubic = sqrt(2 / pi), 0.044715
    square = x * x
    t = (k * (x + cubic * (square * x))).tanh()
    first = k * (1 + 3 * cubic * square)
    steep = 1 - t * t
    bend = steep * (6 * k * cubic * x) - 2 * t * steep * first * first
    slope = 0.5 * (1 + t) + 0.5 * x * (steep * first)
    return [c * slope, gc * (steep * first + 0.5 * x * bend)]


@vjp("SoftplusBackwardBackward0")
def softplus_backward(n: Site, c: Array) -> Vjp:
    """h = g σ(βx), g beyond t:  dg likewise,  dx = c g β σ (1 - σ) where βx < t."""
    scaled = n.self * n.beta
    s = scaled.sigmoid()
    bend = c * n.grad_output * (s * (1 - s)) * n.beta * (scaled < n.threshold)  # nan stays nan
    return [c.where(scaled > n.threshold, c * s), bend]


@vjp("LogSigmoidBackwardBackward0")
def log_sigmoid_backward(n: Site, c: Array) -> Vjp:
    """h = g σ(-x):  dg = c σ(-x),  dx = -c g σ(x) σ(-x)."""
    s = n.self.sigmoid()
    return [c * (-n.self).sigmoid(), -(c * n.grad_output) * (s * (1 - s))]


@vjp("EluBackwardBackward0")
def elu_backward(n: Site, c: Array) -> Vjp:
    """h = x > 0 ? s g : g s α β e^(βx):  dg likewise,  dx = c g s α β² e^(βx) where x < 0."""
    if n.is_result:
        raise RuleError("ELU in place: torch differentiates its result as if it were its input")
    x, scale, slope = n.self_or_result, n.scale, n.input_scale
    curve = (slope * n.alpha * scale) * (x * slope).exp()
    bend = (c * n.grad_output * slope * curve).where(x < 0)
    return [unless_nan((c * scale).where(x > 0, c * curve), x), unless_nan(bend, x)]


@vjp("GluBackwardBackward0")
def glu_backward(n: Site, c: Array) -> Vjp:
    """h = (g σ(b), g a σ(b) (1 - σ(b))):  with c = (c₁, c₂):  dg = c₁ σ + c₂ a σ (1 - σ),

    da = c₂ g σ (1 - σ),  db = g σ (1 - σ) (c₁ + c₂ a (1 - 2σ)).
    """
    half = n.self.shape[n.dim] // 2
    a, s = n.self.slice(n.dim, 0, half), n.self.slice(n.dim, half).sigmoid()
    first, second = c.slice(n.dim, 0, half), c.slice(n.dim, half)
    steep = s * (1 - s)
    inner = n.grad_output * steep
    dx = cat([second * inner, inner * first + inner * second * a * (1 - 2 * s)], n.dim)
    return [first * s + second * a * steep, dx]


@vjp("HardswishBackwardBackward0")
def hardswish_backward(n: Site, c: Array) -> Vjp:
    """h = g y′:  dg = c y′,  dx = c g / 3 where -3 < x < 3."""
    x = n.self
    bend = (c * n.grad_output / 3).where((x > -3) & (x < 3))
    return [unless_nan((c * (x / 3 + 0.5)).where(x < 3, c).where(x > -3), x), unless_nan(bend, x)]


@vjp("HardtanhBackwardBackward0")
def hardtanh_backward(n: Site, c: Array) -> Vjp:
    """h = g where lo < x < hi:  dg = c there,  dx = 0."""
    low, high = (limit(n, edge, accumulated=True) for edge in (n.min_val, n.max_val))
    return [unless_nan(c.where((n.self > low) & (n.self < high)), n.self), c * 0.0]


@vjp("HardshrinkBackwardBackward0", "SoftshrinkBackwardBackward0")
def shrink_backward(n: Site, c: Array) -> Vjp:
    """h = g but where -λ ≤ x ≤ λ:  dg = c there,  dx = 0."""
    edge = limit(n, n.lambd)
    return [unless_nan(c.where(~((n.self >= -edge) & (n.self <= edge))), n.self), c * 0.0]


@vjp("RreluWithNoiseBackwardBackward0")
def rrelu_backward(n: Site, c: Array) -> Vjp:
    """h = g r, r random in training (saved):  dg = c r,  dx = 0."""
    if n.training and n.upper - n.lower > 1e-6:
        return [c * n.noise, c * 0.0]
    return [c.where(n.self > 0, c * ((n.lower + n.upper) / 2)), c * 0.0]


@vjp("PreluKernelBackwardBackward0")
def prelu_backward(n: Site, cx: Array | None, cw: Array | None) -> Vjp:
    """h = (x > 0 ? g : w g, x > 0 ? 0 : g x):  dg = c₁ where x > 0;  elsewhere

    dg = c₁ w + c₂ x,  dx = c₂ g,  dw = c₁ g.
    """
    x, w, g = n.self, n.weight, n.grad_output
    positive = x > 0
    dg: Array | None = None
    dx: Array | None = None
    dw: Array | None = None
    if cx is not None:
        dg, dw = cx.where(positive, cx * w), (cx * g).where(~positive)
    if cw is not None:
        part = (cw * x).where(~positive)
        dg, dx = part if dg is None else dg + part, (cw * g).where(~positive)
    return [dg, dx, dw]


# -------------------------------------------------------------------- losses with a second derivative


def _of_loss(n: Site, c: Array, slope: Array, bend: Array) -> Vjp:
    """h = g l′(x) / m:  dg = Σ c l′ / m,  dx = c g l″ / m,  dt = -dx where the loss looks at x - t."""
    size = max(n.self.numel, 1) if n.reduction == 1 else 1
    dg, dx = c * slope / size, c * n.grad_output * bend / size
    return [dg if n.reduction == 0 else dg.sum(), dx, -dx]


@vjp("HuberLossBackwardBackward0")
def huber_backward(n: Site, c: Array) -> Vjp:
    """l′ = clamp(d, -δ, δ),  l″ = 1 where |d| < δ."""
    d = n.self - n.target
    return _of_loss(n, c, d.maximum(-n.delta).minimum(n.delta), (abs(d) < n.delta) * 1.0)


@vjp("SmoothL1LossBackwardBackward0")
def smooth_l1_backward(n: Site, c: Array) -> Vjp:
    """l′ = |d| < β ? d/β : sign d,  l″ = 1/β where |d| < β."""
    d = n.self - n.target
    near = abs(d) < n.beta
    if n.beta == 0:
        return _of_loss(n, c, d.sign(), d * 0.0)
    return _of_loss(n, c, (d / n.beta).where(near, d.sign()), Full(1 / n.beta, d.shape).where(near))


@vjp("SoftMarginLossBackwardBackward0")
def soft_margin_backward(n: Site, c: Array) -> Vjp:
    """l′ = -t σ(-t x),  l″ = t² σ (1 - σ)."""
    t = n.target
    s = (-t * n.self).sigmoid()
    return _of_loss(n, c, -t * s, t * t * (s * (1 - s)))[: len(n.inputs)]


@vjp("BinaryCrossEntropyBackwardBackward0")
def bce_backward(n: Site, c: Array) -> Vjp:
    """h = g w (x - t) / (x (1 - x)):  dx = c g w (x² - 2 x t + t) / (x (1 - x))²,  dt = -c g w / (x (1 - x)).

    Torch keeps x and 1 - x away from 0 by adding 1e-12 to each (the first backward clamps their product).
    """
    x, t = n.self, n.target
    weight: Array | float = 1.0 if n.weight is None else n.weight
    size = max(x.numel, 1) if n.reduction == 1 else 1
    low, high = x + 1e-12, 1 - x + 1e-12
    dg = c * ((x - t) / (low * high)) * weight / size
    both = c * n.grad_output * weight / size
    bend = both * ((x * x - 2 * x * t + t) / (low * low * (high * high)))
    return [dg if n.reduction == 0 else dg.sum(), bend, -both / ((1 - x) * x).maximum(1e-12)]
