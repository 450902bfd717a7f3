"""Rules of further functions of one or two numbers: inverse, hyperbolic, special, complex, piecewise."""

from __future__ import annotations

from math import inf, log, nan, pi, sqrt
from typing import Any

from explorer.engine.array import Array
from explorer.engine.elementwise import COSH, LOG1P, SINH, Full
from explorer.engine.registry import Site, as_complex, vjp
from explorer.engine.rounding import rounding_of
from explorer.engine.rules.arithmetic import as_array, conj
from explorer.engine.rules.reductions import norm_gradient
from explorer.engine.special import (
    DIGAMMA,
    ERFINV,
    FLOOR_DIVIDE,
    I0,
    I0E,
    I1,
    I1E,
    TRUNCATED_DIVIDE,
    polygamma,
)
from explorer.engine.views import cat, stack

Vjp = list[Array | None]

# -------------------------------------------------------------------- inverse and hyperbolic functions


@vjp("AsinBackward0")
def asin(n: Site, g: Array) -> Vjp:
    """y = arcsin x:  dx = g conj(1/√(1 - x²))."""
    return [g * (1 / (-n.self * n.self + 1).sqrt()).conj()]


@vjp("AcosBackward0")
def acos(n: Site, g: Array) -> Vjp:
    """y = arccos x:  dx = -g conj(1/√(1 - x²))."""
    return [g * -(1 / (-n.self * n.self + 1).sqrt()).conj()]


@vjp("AtanBackward0")
def atan(n: Site, g: Array) -> Vjp:
    """y = arctan x:  dx = g / conj(1 + x²)."""
    return [g / (n.self * n.self + 1).conj()]


@vjp("SinhBackward0")
def sinh(n: Site, g: Array) -> Vjp:
    """y = sinh x:  dx = g conj(cosh x)."""
    return [g * n.self.map(COSH).conj()]


@vjp("CoshBackward0")
def cosh(n: Site, g: Array) -> Vjp:
    """y = cosh x:  dx = g conj(sinh x)."""
    return [g * n.self.map(SINH).conj()]


@vjp("TanBackward0")
def tan(n: Site, g: Array) -> Vjp:
    """y = tan x:  dx = g conj(1 + y²)."""
    return [g * (1 + n.result * n.result).conj()]


@vjp("AsinhBackward0")
def asinh(n: Site, g: Array) -> Vjp:
    """y = arsinh x:  dx = g conj(1/√(x² + 1))."""
    return [g * (1 / (n.self * n.self + 1).sqrt()).conj()]


@vjp("AcoshBackward0")
def acosh(n: Site, g: Array) -> Vjp:
    """y = arcosh x:  dx = g/√(x² - 1); for complex x  g conj(1/√(x + 1) · 1/√(x - 1))."""
    x = n.self
    if x.is_complex:
        return [g * (1 / (x + 1).sqrt() * (1 / (x - 1).sqrt())).conj()]
    return [g * (1 / (x * x - 1).sqrt())]


@vjp("AtanhBackward0")
def atanh(n: Site, g: Array) -> Vjp:
    """y = artanh x:  dx = g / conj(1 - x²)."""
    return [g / (1 - n.self * n.self).conj()]


@vjp("Atan2Backward0")
def atan2(n: Site, g: Array) -> Vjp:
    """θ = atan2(y, x):  dy = g x/(x² + y²),  dx = -g y/(x² + y²); 0 at the origin."""
    y, x = n.self, n.other
    square = y * y + x * x
    turned = (g / square).where(square.ne(0))
    return [turned * x, turned * -y]


# -------------------------------------------------------------------- exponentials and logarithms


@vjp("Exp2Backward0")
def exp2(n: Site, g: Array) -> Vjp:
    """y = 2ˣ:  dx = g ȳ log 2."""
    return [g * n.result.conj() * log(2)]


@vjp("Expm1Backward0")
def expm1(n: Site, g: Array) -> Vjp:
    """y = eˣ - 1:  dx = g (ȳ + 1)."""
    return [g * (n.result.conj() + 1)]


@vjp("Log2Backward0", "Log10Backward0")
def log_to_base(n: Site, g: Array) -> Vjp:
    """y = log_b x:  dx = g / (x̄ log b)."""
    return [g / (n.self.conj() * log(2 if n.name.startswith("Log2") else 10))]


@vjp("Log1PBackward0")
def log1p(n: Site, g: Array) -> Vjp:
    """y = log(1 + x):  dx = g / conj(1 + x)."""
    return [g / (n.self + 1).conj()]


@vjp("LogaddexpBackward0")
def logaddexp(n: Site, g: Array) -> Vjp:
    """y = log(eᵃ + eᵇ):  da = g / (1 + e^(b-a)),  db = g / (1 + e^(a-b)) (conjugated)."""
    a, b = n.self, n.other
    return [g / (1 + _in_range(n, (b - a).exp())).conj(), g / (1 + _in_range(n, (a - b).exp())).conj()]


def _in_range(n: Site, x: Array) -> Array:
    """`x`, infinite where the dtype of the node holds no such number: torch's step rounds it to that."""
    largest = rounding_of([spec.dtype for spec in n.outputs if spec is not None]).largest
    return x if x.is_complex else x.where(~(x > largest), inf)


@vjp("Logaddexp2Backward0")
def logaddexp2(n: Site, g: Array) -> Vjp:
    """y = log₂(2ᵃ + 2ᵇ):  da = g / (1 + 2^(b-a)),  db = g / (1 + 2^(a-b))."""
    a, b = n.self, n.other
    return [g / (1 + _in_range(n, 2 ** (b - a))), g / (1 + _in_range(n, 2 ** (a - b)))]


@vjp("XlogyBackward0", "XlogyBackward1", "XlogyBackward2")
def xlogy(n: Site, g: Array) -> Vjp:
    """y = a log b, 0 where a = 0:  da = g log b, 0 where a = 0 and b ≤ 0;  db = g a / b."""
    b = as_array(n.other)
    if n.name.endswith("1"):
        return [g * n.self / b]
    da = (g * b.log()).where(g.ne(0)).where(~(n.self.eq(0) & (b <= 0))) if n.needs(0) else None
    return [da, g * n.self / b if n.needs(1) else None]


@vjp("SpecialXlog1PyBackward0", "SpecialXlog1PyBackward1", "SpecialXlog1PyBackward2")
def xlog1py(n: Site, g: Array) -> Vjp:
    """y = a log(1 + b), 0 where a = 0:  da = g log(1 + b), 0 where a = 0 and b ≤ -1;  db = g a / (b + 1)."""
    b = as_array(n.other)
    if n.name.endswith("1"):
        return [g * n.self / (b + 1)]
    da = (g * b.map(LOG1P)).where(g.ne(0)).where(~(n.self.eq(0) & (b <= -1))) if n.needs(0) else None
    return [da, g * n.self / (b + 1) if n.needs(1) else None]


@vjp("LogitBackward0")
def logit(n: Site, g: Array) -> Vjp:
    """y = log(x / (1 - x)):  dx = g / (x (1 - x)); beyond [ε, 1 - ε] 0, or nan where no ε was given."""
    x = n.self
    low = 0.0 if n.eps is None else n.eps
    inside = (x >= low) & (x <= 1 - low)
    return [(g / (x * (1 - x))).where(inside, nan if n.eps is None else 0.0)]


@vjp("SpecialEntrBackward0")
def entr(n: Site, g: Array) -> Vjp:
    """y = -x log x:  dx = -g (1 + log x)."""
    return [g * -(1 + n.self.log())]


@vjp("LdexpBackward0")
def ldexp(n: Site, g: Array) -> Vjp:
    """y = a 2ᵇ:  da = g conj(2ᵇ),  db = g ȳ log 2."""
    da = g * (2.0**n.other).conj() if n.needs(0) else None
    return [da, g * n.result.conj() * log(2) if n.needs(1) else None]


@vjp("FrexpBackward0")
def frexp(n: Site, g: Array, *_: Array | None) -> Vjp:
    """x = m 2ᵉ:  dx = g / 2ᵉ."""
    return [g / 2.0**n.exponent]


@vjp("HypotBackward0")
def hypot(n: Site, g: Array) -> Vjp:
    """y = √(a² + b²):  da = g a / y,  db = g b / y."""
    return [g * (n.self / n.result), g * (n.other / n.result)]


@vjp("SincBackward0")
def sinc(n: Site, g: Array) -> Vjp:
    """y = sin(πx)/(πx):  dx = g (πx cos πx - sin πx)/(πx²), 0 at 0."""
    x = n.self * pi
    square = n.self * n.self * pi
    return [(g * ((x * x.cos() - x.sin()) / square).conj()).where(square.ne(0))]


# -------------------------------------------------------------------- error, gamma and Bessel functions


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
    return [g * n.self.map(polygamma(1))]


@vjp("PolygammaBackward0")
def polygamma_(n: Site, g: Array) -> Vjp:
    """y = ψ⁽ⁿ⁾(x):  dx = g ψ⁽ⁿ⁺¹⁾(x)."""
    return [g * n.self.map(polygamma(n.n + 1))]


@vjp("MvlgammaBackward0")
def mvlgamma(n: Site, g: Array) -> Vjp:
    """y = log Γₚ(x):  dx = g Σ_{j=1..p} ψ(x + (1 - j)/2)."""
    total = n.self.map(DIGAMMA)
    for j in range(2, n.p + 1):
        total = total + (n.self + (1 - j) / 2).map(DIGAMMA)
    return [g * total]


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
    """y = I₁(x):  dx = g (I₀(x) - y/x); g/2 at 0."""
    x = n.self
    return [g * (x.map(I0) - n.result / x).where(x.ne(0), 0.5)]


@vjp("SpecialI1EBackward0")
def i1e(n: Site, g: Array) -> Vjp:
    """y = e^-|x| I₁(x):  dx = g (e^-|x| I₀(x) - y (sign x + 1/x)); g/2 at 0."""
    x = n.self
    return [g * (x.map(I0E) - n.result * (x.sign() + 1 / x)).where(x.ne(0), 0.5)]


# -------------------------------------------------------------------- complex numbers


@vjp("ConjBackward0", "ConjPhysicalBackward0", "ConjPhysicalBackward1")
def conjugate(n: Site, g: Array) -> Vjp:
    """y = x̄:  dx = ḡ."""
    return [g.conj()]


@vjp("ComplexBackward0")
def complex_(n: Site, g: Array) -> Vjp:
    """y = a + i b:  da = Re g,  db = Im g."""
    return [g.real, g.imag]


@vjp("PolarBackward0")
def polar(n: Site, g: Array) -> Vjp:
    """y = r e^{iθ}:  dr = Re(ḡ y/|y|),  dθ = Re(ḡ i y)."""
    g, y = g.conj(), n.result
    size = (y.real * y.real + y.imag * y.imag).sqrt()
    return [(g * (y / size).where(size.ne(0))).real, (g * (y * 1j)).real]


@vjp("AngleBackward0")
def angle(n: Site, g: Array) -> Vjp:
    """y = arg x:  dx = g i x/|x|², 0 at 0; 0 for real x."""
    x = n.self
    if not x.is_complex:
        return [g * 0.0]
    size = abs(x)
    return [(g * (x * 1j) / (size * size)).where(size.ne(0))]


@vjp("SgnBackward0")
def sgn(n: Site, g: Array) -> Vjp:
    """y = x/|x|:  dx = g/|x| - y Re(g/x), 0 at 0; 0 for real x."""
    x = n.self
    if not x.is_complex:
        return [g * 0.0]
    size = abs(x)
    return [(g / size - (g / x).real * n.result).where(size.ne(0))]


@vjp("ViewAsRealBackward0", "ViewAsRealBackward0_copy")
def view_as_real(n: Site, g: Array) -> Vjp:
    """y = (Re x, Im x) on a new last axis:  dx = g₀ + i g₁."""
    return [as_complex(g.select(-1, 0), g.select(-1, 1))]


@vjp("ViewAsComplexBackward0", "ViewAsComplexBackward0_copy")
def view_as_complex(n: Site, g: Array) -> Vjp:
    """y = x₀ + i x₁:  dx = (Re g, Im g)."""
    return [stack([g.real, g.imag], -1)]


# -------------------------------------------------------------------- steps


@vjp(
    "CeilBackward0", "FloorBackward0", "RoundBackward0", "RoundBackward1", "TruncBackward0", "SignBackward0",
    "ZeroBackward0", "BernoulliBackward0", "BernoulliBackward1", "BernoulliBackward2", "FillBackward0",
    *[f"NormalBackward{k}" for k in range(4)], "UniformBackward0", "ExponentialBackward0", "RandintBackward0",
    "CauchyBackward0", "GeometricBackward0", "LogNormalBackward0", "RandomBackward0", "PoissonBackward0",
    "BinomialBackward0", "FloorDivideBackward0",
)  # fmt: skip
def nothing(n: Site, g: Array) -> Vjp:
    """y is a step function of x, or does not depend on it:  dx = 0."""
    return [None if spec is None else Full(0.0, spec.shape) for spec in n.inputs]


@vjp("FillBackward1", "FillBackward2", "FillBackward3")
def fill(n: Site, g: Array) -> Vjp:
    """y = v everywhere:  dx = 0,  dv = Σ g."""
    return [g * 0.0, g.sum()]


@vjp("FracBackward0", "FmodBackward0", "RemainderBackward0")
def same(n: Site, g: Array) -> Vjp:
    """y = x minus a step function of x:  dx = g."""
    return [g]


@vjp("FmodBackward1")
def fmod(n: Site, g: Array) -> Vjp:
    """y = a - b trunc(a/b):  da = g,  db = -g trunc(a/b)."""
    return [g, -g * n.self.map(TRUNCATED_DIVIDE, n.other) if n.needs(1) else None]


@vjp("RemainderBackward1")
def remainder(n: Site, g: Array) -> Vjp:
    """y = a - b ⌊a/b⌋:  da = g,  db = -g ⌊a/b⌋."""
    return [g, -g * n.self.map(FLOOR_DIVIDE, n.other) if n.needs(1) else None]


@vjp("DivBackward2", "DivBackward3")
def div_rounded(n: Site, g: Array) -> Vjp:
    """y = a / b, rounded if a mode is given:  as for a / b without a mode, else 0."""
    if n.rounding_mode is not None:
        return [None if spec is None else Full(0.0, spec.shape) for spec in n.inputs]
    b = n.other
    return [g / conj(b), -g * conj(n.self / b / b) if n.needs(1) else None]


@vjp("CopysignBackward0", "CopysignBackward1")
def copysign(n: Site, g: Array) -> Vjp:
    """y = |a| with the sign of b:  da = g y/a, 0 where a = 0;  db = 0."""
    return [(g * (n.result / n.self)).where(n.self.ne(0)), g * 0.0]


@vjp("NextafterBackward0")
def nextafter(n: Site, g: Array) -> Vjp:
    """y = the number after a towards b:  da = g where a ≠ b,  db = 0."""
    return [g.where(n.self.ne(n.other)), g * 0.0]


@vjp("NanToNumBackward0")
def nan_to_num(n: Site, g: Array) -> Vjp:
    """y = x where finite, else a constant:  dx = g where x is finite."""
    return [g * (abs(n.self) < inf)]


@vjp("FmaxBackward0")
def fmax(n: Site, g: Array) -> Vjp:
    """y = the larger of a and b, nan ignored:  g to a where a ≥ b or b is nan, else to b."""
    first = (n.self >= n.other) | n.other.ne(n.other)
    return [g.where(first), g.where(~first)]


@vjp("FminBackward0")
def fmin(n: Site, g: Array) -> Vjp:
    """y = the smaller of a and b, nan ignored:  g to a where a ≤ b or b is nan, else to b."""
    first = (n.self <= n.other) | n.other.ne(n.other)
    return [g.where(first), g.where(~first)]


@vjp("Deg2RadBackward0")
def deg2rad(n: Site, g: Array) -> Vjp:
    """y = π x / 180:  dx = π g / 180."""
    return [g * (pi / 180)]


@vjp("Rad2DegBackward0")
def rad2deg(n: Site, g: Array) -> Vjp:
    """y = 180 x / π:  dx = 180 g / π."""
    return [g * (180 / pi)]


# -------------------------------------------------------------------- activations


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
    return [g.where(~((n.self >= -n.lambd) & (n.self <= n.lambd)))]


@vjp("RreluWithNoiseBackward0", "RreluWithNoiseBackward1")
def rrelu(n: Site, g: Array) -> Vjp:
    """y = x > 0 ? x : r x, r random in training (saved), else (l + u)/2:  dx = x > 0 ? g : r g."""
    if n.training and n.upper - n.lower > 1e-6:
        return [g * n.noise]
    x = n.self if n.name.endswith("0") else n.result
    return [g.where(x > 0, g * ((n.lower + n.upper) / 2))]


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
    if order == inf:
        return abs(x).amax(dims, keepdim=True)
    if order == 1:
        return abs(x).sum(dims, keepdim=True)
    if order == 2:
        return (x * x.conj()).real.sum(dims, keepdim=True).sqrt()
    found: Array = (abs(x) ** order).sum(dims, keepdim=True) ** (1 / order)
    return found
