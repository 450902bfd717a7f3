"""Rules of further functions of one or two numbers: inverse, hyperbolic, exponential, logarithmic."""

from __future__ import annotations

from math import log, nan, pi

from explorer.engine.array import Array
from explorer.engine.elementwise import COSH, LOG1P, SINH, unless_nan
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.arithmetic import as_array, in_range, limit

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
    return [g / (in_range(n, n.self * n.self) + 1).conj()]


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
    return [g * (1 / (in_range(n, n.self * n.self) + 1).sqrt()).conj()]


@vjp("AcoshBackward0")
def acosh(n: Site, g: Array) -> Vjp:
    """y = arcosh x:  dx = g/√(x² - 1); for complex x  g conj(1/√(x + 1) · 1/√(x - 1))."""
    x = n.self
    if x.is_complex:
        return [g * (1 / (x + 1).sqrt() * (1 / (x - 1).sqrt())).conj()]
    return [g * (1 / (in_range(n, x * x) - 1).sqrt())]


@vjp("AtanhBackward0")
def atanh(n: Site, g: Array) -> Vjp:
    """y = artanh x:  dx = g / conj(1 - x²)."""
    return [g / (1 - in_range(n, n.self * n.self)).conj()]


@vjp("Atan2Backward0")
def atan2(n: Site, g: Array) -> Vjp:
    """θ = atan2(y, x):  dy = g x/(x² + y²),  dx = -g y/(x² + y²); 0 at the origin."""
    y, x = n.self, n.other
    square = in_range(n, y * y + x * x)
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
    return [g / (1 + in_range(n, (b - a).exp())).conj(), g / (1 + in_range(n, (a - b).exp())).conj()]


@vjp("Logaddexp2Backward0")
def logaddexp2(n: Site, g: Array) -> Vjp:
    """y = log₂(2ᵃ + 2ᵇ):  da = g / (1 + 2^(b-a)),  db = g / (1 + 2^(a-b))."""
    a, b = n.self, n.other
    return [g / (1 + in_range(n, 2 ** (b - a))), g / (1 + in_range(n, 2 ** (a - b)))]


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
    low = 0.0 if n.eps is None else limit(n, n.eps)
    inside = (x >= low) & (x <= limit(n, 1 - low))
    found = (g / (x * (1 - x))).where(inside, nan if n.eps is None else 0.0)
    return [found if n.eps is None else unless_nan(found, x)]


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
    return [g * n.self / n.result, g * n.other / n.result]  # in torch's order, which subnormal numbers feel


@vjp("SincBackward0")
def sinc(n: Site, g: Array) -> Vjp:
    """y = sin(πx)/(πx):  dx = g (πx cos πx - sin πx)/(πx²), 0 at 0."""
    x = n.self * pi
    square = n.self * n.self * pi
    return [(g * ((x * x.cos() - x.sin()) / square).conj()).where(square.ne(0))]


# -------------------------------------------------------------------- angles


@vjp("Deg2RadBackward0")
def deg2rad(n: Site, g: Array) -> Vjp:
    """y = π x / 180:  dx = π g / 180."""
    return [g * (pi / 180)]


@vjp("Rad2DegBackward0")
def rad2deg(n: Site, g: Array) -> Vjp:
    """y = 180 x / π:  dx = 180 g / π."""
    return [g * (180 / pi)]
