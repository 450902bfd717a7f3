"""Rules of activations: relu and its relatives, gelu, silu, softplus, gated and shrinking ones."""

from __future__ import annotations

from math import pi, sqrt

from explorer.engine.array import Array
from explorer.engine.elementwise import NORMAL_CDF, SOFTPLUS, unless_nan
from explorer.engine.registry import Site, vjp
from explorer.engine.rounding import stored
from explorer.engine.rules.arithmetic import limit
from explorer.engine.views import cat

Vjp = list[Array | None]


@vjp("ReluBackward0")
def relu(n: Site, g: Array) -> Vjp:
    """y = max(x, 0):  dx = g where not y ≤ 0 (so nan passes the gradient on, and 0 does not)."""
    return [g.where(~(n.result <= 0))]


@vjp("ThresholdBackward0", "ThresholdBackward1")
def threshold(n: Site, g: Array) -> Vjp:
    """y = x > t ? x : v:  dx = g where not x ≤ t."""
    return [g.where(~(n.self <= limit(n, n.threshold, accumulated=True)))]


@vjp("LeakyReluBackward0")
def leaky_relu(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : a x:  dx = x > 0 ? g : a g."""
    return [g.where(n.self > 0, g * n.negative_slope)]


@vjp("LeakyReluBackward1")
def leaky_relu_in_place(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : a x, a ≥ 0 (so y has the sign of x):  dx = y > 0 ? g : a g."""
    return [g.where(n.result > 0, g * n.negative_slope)]


@vjp("EluBackward0")
def elu(n: Site, g: Array) -> Vjp:
    """y = s·(x > 0 ? x : α (e^(βx) - 1)):  dx = x > 0 ? s g : g s α β e^(βx); 1 at 0."""
    x, scale, slope = n.self, n.scale, n.input_scale
    return [unless_nan((g * scale).where(x > 0, g * (slope * n.alpha * scale) * (x * slope).exp()), x)]


@vjp("CeluBackward0")
def celu(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : α (e^(x/α) - 1):  dx = x > 0 ? g : g e^(x/α); torch has 1/α of α rounded to float32."""
    slope = 1 / stored(n.alpha, "float32")
    return [unless_nan(g.where(n.self > 0, g * (n.alpha * slope) * (n.self * slope).exp()), n.self)]


@vjp("EluBackward1")
def elu_in_place(n: Site, g: Array) -> Vjp:
    """y as for `elu`, which x is overwritten by:  dx = y > 0 ? s g : g β (y + α s).

    Far below 0 the sum cancels, and it matters that torch has rounded α s.
    """
    y, scale, slope = n.result, n.scale, n.input_scale
    low = limit(n, limit(n, n.alpha, accumulated=True) * limit(n, scale, accumulated=True), accumulated=True)
    return [unless_nan((g * scale).where(y > 0, g * slope * (y + low)), y)]


@vjp("CeluBackward1")
def celu_in_place(n: Site, g: Array) -> Vjp:
    """y as for `celu`, which x is overwritten by:  dx = y > 0 ? g : g (y + α)/α, α rounded as there."""
    slope = 1 / stored(n.alpha, "float32")
    low = limit(n, n.alpha, accumulated=True)
    return [unless_nan(g.where(n.result > 0, g * slope * (n.result + low)), n.result)]


@vjp("GeluBackward0")
def gelu(n: Site, g: Array) -> Vjp:
    """y = x Φ(x):  dx = g (Φ(x) + x φ(x)).

    With approximate="tanh", y = x (1 + t)/2, t = tanh u, u = k (x + 0.044715 x³), k = √(2/π):
    dx = g ((1 + t)/2 + x (1 - t²)/2 · k (1 + 3·0.044715 x²)).
    """
    x = n.self
    if n.approximate == "tanh":
        k, cubic = sqrt(2 / pi), 0.044715
        square = x * x
        t = (k * (x + cubic * (square * x))).tanh()
        return [g * (0.5 * (1 + t) + 0.5 * x * (1 - t * t) * (k * (1 + 3 * cubic * square)))]
    density = (x * x * -0.5).exp() * (1 / sqrt(2 * pi))
    return [g * (x.map(NORMAL_CDF) + x * density)]


@vjp("SiluBackward0")
def silu(n: Site, g: Array) -> Vjp:
    """y = x σ(x):  dx = g σ (1 + x (1 - σ))."""
    s = n.self.sigmoid()
    return [g * s * (1 + n.self * (1 - s))]


@vjp("SoftplusBackward0")
def softplus(n: Site, g: Array) -> Vjp:
    """y = log(1 + e^(βx)) / β, x where βx > t:  dx = g σ(βx), g beyond t."""
    scaled = n.self * n.beta
    return [g.where(scaled > n.threshold, g * scaled.sigmoid())]


@vjp("LogSigmoidBackward0")
def log_sigmoid(n: Site, g: Array) -> Vjp:
    """y = log σ(x):  dx = g σ(-x)."""
    return [g * (-n.self).sigmoid()]


@vjp("MishBackward0")
def mish(n: Site, g: Array) -> Vjp:
    """y = x tanh(s), s = log(1 + eˣ):  dx = g (tanh s + x σ(x) (1 - tanh² s))."""
    x = n.self
    t = x.map(SOFTPLUS).tanh()
    return [g * (t + x * x.sigmoid() * (1 - t * t))]


@vjp("HardtanhBackward0")
def hardtanh(n: Site, g: Array) -> Vjp:
    """y = clamp(x, lo, hi):  dx = g where lo < x < hi; 0 at the edges."""
    low, high = (limit(n, edge, accumulated=True) for edge in (n.min_val, n.max_val))
    return [unless_nan(g.where((n.self > low) & (n.self < high)), n.self)]


_SIXTH = 0.1666666716337204
"""1/6 as torch's hardsigmoid has it: rounded to float32, even for float64 (off by 3e-8)."""


@vjp("HardsigmoidBackward0")
def hardsigmoid(n: Site, g: Array) -> Vjp:
    """y = clamp(x/6 + 1/2, 0, 1):  dx = g/6 where -3 < x < 3."""
    return [(g * _SIXTH).where((n.self > -3) & (n.self < 3))]


@vjp("HardswishBackward0")
def hardswish(n: Site, g: Array) -> Vjp:
    """y = x clamp(x + 3, 0, 6)/6:  dx = 0 for x ≤ -3, g for x ≥ 3, else g (x/3 + 1/2)."""
    x = n.self
    return [unless_nan((g * (x / 3 + 0.5)).where(x < 3, g).where(x > -3), x)]


@vjp("GluBackward0")
def glu(n: Site, g: Array) -> Vjp:
    """y = a σ(b), x = (a, b) along dim:  da = g σ(b),  db = g a σ(b) (1 - σ(b))."""
    half = n.self.shape[n.dim] // 2
    a, s = n.self.slice(n.dim, 0, half), n.self.slice(n.dim, half).sigmoid()
    return [cat([g * s, (1 - s) * s * g * a], n.dim)]


@vjp("PreluKernelBackward0")
def prelu(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : w x:  dx = x > 0 ? g : w g,  dw = x > 0 ? 0 : g x."""
    positive = n.self > 0
    return [g.where(positive, g * n.weight), (g * n.self).where(~positive)]


@vjp("HardshrinkBackward0", "SoftshrinkBackward0")
def shrink(n: Site, g: Array) -> Vjp:
    """y = 0 where |x| ≤ λ, else x (or x ∓ λ):  dx = 0 where -λ ≤ x ≤ λ, else g."""
    edge = limit(n, n.lambd)
    return [unless_nan(g.where(~((n.self >= -edge) & (n.self <= edge))), n.self)]


@vjp("RreluWithNoiseBackward0", "RreluWithNoiseBackward1")
def rrelu(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : r x, r random in training (saved), else (l + u)/2:  dx = x > 0 ? g : r g."""
    if n.training and n.upper - n.lower > 1e-6:
        return [g * n.noise]
    x = n.self if n.name.endswith("0") else n.result
    return [g.where(x > 0, g * ((n.lower + n.upper) / 2))]
