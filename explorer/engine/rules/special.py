"""Rules of error, gamma and Bessel functions, whose values `explorer.engine.special` computes."""

from __future__ import annotations

from math import inf, pi, sqrt

from explorer.engine.array import Array
from explorer.engine.elementwise import unless
from explorer.engine.registry import Site, vjp
from explorer.engine.special import DIGAMMA, ERFINV, FLOOR_DIVIDE, I0, I0E, I1, I1E, LGAMMA, polygamma

Vjp = list[Array | None]


@vjp("ErfcBackward0")
def erfc(n: Site, g: Array) -> Vjp:
    """y = 1 - erf x:  dx = -g · 2/√π · exp(-x²)."""
    return [-2 / sqrt(pi) * (-(n.self * n.self)).exp() * g]


@vjp("ErfinvBackward0")
def erfinv(n: Site, g: Array) -> Vjp:
    """y = erf⁻¹ x:  dx = g · √π/2 · exp(y²)."""
    y = n.self.map(ERFINV)
    return [sqrt(pi) / 2 * (y * y).exp() * g]


@vjp("SpecialErfcxBackward0")
def erfcx(n: Site, g: Array) -> Vjp:
    """y = exp(x²) erfc x:  dx = g (2 x y - 2/√π)."""
    return [(2.0 * n.self * n.result - 2 / sqrt(pi)) * g]


@vjp("SpecialNdtriBackward0")
def ndtri(n: Site, g: Array) -> Vjp:
    """y = Φ⁻¹(x):  dx = g √(2π) exp(y²/2)."""
    return [g * sqrt(2 * pi) * (n.result * n.result / 2).exp()]


@vjp("SpecialLogNdtrBackward0")
def log_ndtr(n: Site, g: Array) -> Vjp:
    """y = log Φ(x):  dx = g exp(-(y + x²/2)) / √(2π)."""
    return [g / sqrt(2 * pi) * (-(n.result + n.self * n.self / 2)).exp()]


@vjp("LgammaBackward0")
def lgamma(n: Site, g: Array) -> Vjp:
    """y = log |Γ(x)|:  dx = g ψ(x)."""
    return [g * n.self.map(DIGAMMA)]


@vjp("DigammaBackward0")
def digamma(n: Site, g: Array) -> Vjp:
    """y = ψ(x):  dx = g ψ′(x)."""
    return [g * trigamma(n.self)]


@vjp("PolygammaBackward0")
def polygamma_(n: Site, g: Array) -> Vjp:
    """y = ψ⁽ⁿ⁾(x):  dx = g ψ⁽ⁿ⁺¹⁾(x)."""
    return [g * (trigamma(n.self) if n.n == 0 else n.self.map(polygamma(n.n + 1)))]


def trigamma(x: Array) -> Array:
    """ψ′(x), nothing claimed at -1, -2, ..: torch divides by sin² πx there, which its π makes almost 0."""
    pole = (x < 0) & (x > -inf) & x.map(FLOOR_DIVIDE, 1.0).eq(x)
    return unless(x.map(polygamma(1)), pole)


@vjp("MvlgammaBackward0")
def mvlgamma(n: Site, g: Array) -> Vjp:
    """y = log Γₚ(x):  dx = g Σ_{j=1..p} ψ(x + (1 - j)/2)."""
    total = n.self.map(DIGAMMA)
    for j in range(2, n.p + 1):
        total = total + (n.self + (1 - j) / 2).map(DIGAMMA)
    return [g * total]


def _gamma_density(n: Site) -> Array:
    """exp((a - 1) log x - x - log Γ(a)), the slope of the regularised incomplete gamma function P(a, x)."""
    density: Array = ((n.self - 1) * n.other.log() - n.other - n.self.map(LGAMMA)).exp()
    return density


@vjp("IgammaBackward0")
def igamma(n: Site, g: Array) -> Vjp:
    """y = P(a, x):  dx = g x^(a-1) e^-x / Γ(a). Torch has no derivative by a."""
    return [None, g * _gamma_density(n)]


@vjp("IgammacBackward0")
def igammac(n: Site, g: Array) -> Vjp:
    """y = 1 - P(a, x):  dx = -g x^(a-1) e^-x / Γ(a). Torch has no derivative by a."""
    return [None, -g * _gamma_density(n)]


@vjp("I0Backward0")
def i0(n: Site, g: Array) -> Vjp:
    """y = I₀(x):  dx = g I₁(x)."""
    return [g * n.self.map(I1)]


@vjp("SpecialI0EBackward0")
def i0e(n: Site, g: Array) -> Vjp:
    """y = e^-|x| I₀(x):  dx = g (e^-|x| I₁(x) - sign(x) y)."""
    return [g * (n.self.map(I1E) - n.self.sign() * n.result)]


@vjp("SpecialI1Backward0")
def i1(n: Site, g: Array) -> Vjp:
    """y = I₁(x):  dx = g (I₀(x) - y/x); g/2 at 0, and at nan."""
    x = n.self
    return [g * (x.map(I0) - n.result / x).where(abs(x) > 0, 0.5)]


@vjp("SpecialI1EBackward0")
def i1e(n: Site, g: Array) -> Vjp:
    """y = e^-|x| I₁(x):  dx = g (e^-|x| I₀(x) - y (sign x + 1/x)); g/2 at 0, and at nan."""
    x = n.self
    return [g * (x.map(I0E) - n.result * (x.sign() + 1 / x)).where(abs(x) > 0, 0.5)]
