"""Rules of elementary functions of one number."""

from __future__ import annotations

from math import pi, sqrt

from explorer.engine.array import Array
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.arithmetic import signum

Vjp = list[Array | None]


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
    """y = |x|:  dx = g sign x, which is 0 at 0 (and at nan)."""
    return [g * signum(n.self)]
