"""Rules of functions of one number: elementary functions and activations."""

from __future__ import annotations

from math import pi, sqrt

from explorer.engine.array import Array
from explorer.engine.elementwise import NORMAL_CDF, SOFTPLUS
from explorer.engine.registry import Site, vjp

Vjp = list[Array | None]

# -------------------------------------------------------------------- elementary functions


@vjp("ExpBackward0")
def exp(n: Site, g: Array) -> Vjp:
    """y = eˣ:  dx = g ȳ."""
    return [g * n.result.conj()]


@vjp("LogBackward0")
def log(n: Site, g: Array) -> Vjp:
    """y = log x:  dx = g / x̄."""
    return [g / n.self.conj()]


@vjp("SqrtBackward0")
def sqrt_(n: Site, g: Array) -> Vjp:
    """y = √x:  dx = g / (2 ȳ)."""
    return [g / (2 * n.result.conj())]


@vjp("RsqrtBackward0")
def rsqrt(n: Site, g: Array) -> Vjp:
    """y = 1/√x:  dx = -g ȳ³ / 2."""
    return [-0.5 * g * n.result.conj() ** 3]


@vjp("ReciprocalBackward0")
def reciprocal(n: Site, g: Array) -> Vjp:
    """y = 1/x:  dx = -g conj(y²)."""
    return [-g * (n.result * n.result).conj()]


@vjp("SinBackward0")
def sin(n: Site, g: Array) -> Vjp:
    """y = sin x:  dx = g conj(cos x)."""
    return [g * n.self.cos().conj()]


@vjp("CosBackward0")
def cos(n: Site, g: Array) -> Vjp:
    """y = cos x:  dx = -g conj(sin x)."""
    return [g * -n.self.sin().conj()]


@vjp("TanhBackward0")
def tanh(n: Site, g: Array) -> Vjp:
    """y = tanh x:  dx = g conj(1 - y²)."""
    return [g * (1 - n.result * n.result).conj()]


@vjp("SigmoidBackward0")
def sigmoid(n: Site, g: Array) -> Vjp:
    """y = 1 / (1 + e⁻ˣ):  dx = g conj(y (1 - y))."""
    return [g * (n.result * (1 - n.result)).conj()]


@vjp("ErfBackward0")
def erf(n: Site, g: Array) -> Vjp:
    """y = erf x:  dx = g · 2/√π · exp(-x²)."""
    return [g * (2 / sqrt(pi) * (-(n.self * n.self)).exp())]


@vjp("AbsBackward0")
def absolute(n: Site, g: Array) -> Vjp:
    """y = |x|:  dx = g sign x, which is 0 at 0."""
    return [g * n.self.sign()]


# -------------------------------------------------------------------- activations


@vjp("ReluBackward0")
def relu(n: Site, g: Array) -> Vjp:
    """y = max(x, 0):  dx = g where not y ≤ 0 (so nan passes the gradient on, and 0 does not)."""
    return [g.where(~(n.result <= 0))]


@vjp("ThresholdBackward0", "ThresholdBackward1")
def threshold(n: Site, g: Array) -> Vjp:
    """y = x > t ? x : v:  dx = g where not x ≤ t."""
    return [g.where(~(n.self <= n.threshold))]


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
    return [(g * scale).where(x > 0, g * (slope * n.alpha * scale) * (x * slope).exp())]


@vjp("CeluBackward0")
def celu(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : α (e^(x/α) - 1):  dx = x > 0 ? g : g e^(x/α)."""
    return [g.where(n.self > 0, g * (n.self / n.alpha).exp())]


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
    return [g.where((n.self > n.min_val) & (n.self < n.max_val))]


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
    return [(g * (x / 3 + 0.5)).where(x < 3, g).where(x > -3)]
