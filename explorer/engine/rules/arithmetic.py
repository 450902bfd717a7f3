"""Rules of arithmetic: sums, products, quotients, powers, and choices between two values."""

from __future__ import annotations

from math import inf
from typing import Any

from explorer.engine.array import Array
from explorer.engine.elementwise import Full, unless
from explorer.engine.registry import Site, vjp
from explorer.engine.rounding import rounding_of, stored

Vjp = list[Array | None]

# -------------------------------------------------------------------- sums


@vjp("AddBackward0")
def add(n: Site, g: Array) -> Vjp:
    """y = a + α b:  da = g,  db = ᾱ g."""
    return [g, scaled(g, n.alpha)]


@vjp("AddBackward1", "SubBackward1")
def add_scalar(n: Site, g: Array) -> Vjp:
    """y = a ± c:  da = g."""
    return [g]


@vjp("SubBackward0")
def sub(n: Site, g: Array) -> Vjp:
    """y = a - α b:  da = g,  db = -ᾱ g."""
    return [g, scaled(-g, n.alpha)]


@vjp("RsubBackward0", "RsubBackward1")
def rsub(n: Site, g: Array) -> Vjp:
    """y = b - α a:  da = -ᾱ g,  db = g (b may be a number)."""
    both: Vjp = [scaled(-g, n.alpha), g]
    return both[: len(n.inputs)]


@vjp("NegBackward0")
def neg(n: Site, g: Array) -> Vjp:
    """y = -a:  da = -g."""
    return [-g]


# -------------------------------------------------------------------- products


@vjp("MulBackward0")
def mul(n: Site, g: Array) -> Vjp:
    """y = a b:  da = g b̄,  db = g ā."""
    return [g * conj(n.other), g * conj(n.self)]


@vjp("MulBackward1")
def mul_scalar(n: Site, g: Array) -> Vjp:
    """y = c a:  da = g c̄."""
    return [g * conj(n.other)]


@vjp("DivBackward0")
def div(n: Site, g: Array) -> Vjp:
    """y = a / b:  da = g / b̄,  db = -g conj(a / b / b)."""
    return [g / conj(n.other), -g * conj(n.self / n.other / n.other) if n.needs(1) else None]


@vjp("DivBackward1")
def div_scalar(n: Site, g: Array) -> Vjp:
    """y = a / c:  da = g / c̄."""
    return [g / conj(n.other)]


@vjp("PowBackward0")
def pow_scalar(n: Site, g: Array) -> Vjp:
    """y = aᶜ:  da = g · conj(c a^(c-1)); 0 where c = 0."""
    c = n.exponent
    if c == 0:
        return [g * 0.0]
    return [g * conj(c * n.self if c == 2 else c * raised(n.self, c - 1))]


@vjp("PowBackward1")
def pow_tensor(n: Site, g: Array) -> Vjp:
    """y = aᵇ:  da = g conj(b a^(b-1)), 0 where b = 0;  db = g conj(y log a), 0 where a = 0 and b ≥ 0."""
    a, b, y = n.self, n.exponent, n.result
    da = (g * conj(b * raised(a, b - 1))).where(as_array(b).ne(0)) if n.needs(0) else None
    db = (g * conj(y * a.log())).where(~(a.eq(0) & (as_array(b).real >= 0))) if n.needs(1) else None
    return [da, db]


@vjp("PowBackward2")
def pow_base(n: Site, g: Array) -> Vjp:
    """y = cᵇ:  db = g conj(y log c), 0 where c = 0 and b ≥ 0."""
    c = as_array(n.self)
    return [(g * conj(n.result * c.log())).where(~(c.eq(0) & (n.exponent.real >= 0)))]


@vjp("AddcmulBackward0")
def addcmul(n: Site, g: Array) -> Vjp:
    """y = a + c b₁ b₂:  da = g,  db₁ = g c b₂,  db₂ = g c b₁ (conjugated)."""
    return [g, g * conj(n.tensor2 * n.value), g * conj(n.tensor1 * n.value)]


@vjp("AddcdivBackward0")
def addcdiv(n: Site, g: Array) -> Vjp:
    """y = a + c b₁ / b₂:  db₁ = g c / b₂,  db₂ = -g c b₁ / b₂² (conjugated)."""
    first = g * conj(n.value / n.tensor2) if n.needs(1) else None
    square = in_range(n, n.tensor2 * n.tensor2) if n.needs(2) else None
    second = -g * conj(n.value * n.tensor1 / square) if n.needs(2) else None
    return [g, first, second]


@vjp("LerpBackward0")
def lerp_scalar(n: Site, g: Array) -> Vjp:
    """y = a + w (b - a):  da = (1 - w̄) g,  db = w̄ g."""
    w = conj(n.weight)
    return [g * (1 - w), g * w]


@vjp("LerpBackward1")
def lerp(n: Site, g: Array) -> Vjp:
    """y = a + w (b - a):  da = (1 - w̄) g,  db = w̄ g,  dw = g conj(b - a)."""
    w = conj(n.weight)
    return [g * (1 - w), g * w, g * (n.end - n.self).conj() if n.needs(2) else None]


# -------------------------------------------------------------------- choices


@vjp("WhereBackward0")
def where(n: Site, g: Array) -> Vjp:
    """y = c ? a : b:  da = c ? g : 0,  db = c ? 0 : g."""
    return [g.where(n.condition), g.where(~n.condition)]


@vjp("MaskedFillBackward0")
def masked_fill(n: Site, g: Array) -> Vjp:
    """y = m ? c : a:  da = m ? 0 : g."""
    return [g.where(~n.mask)]


@vjp("MaskedFillBackward1")
def masked_fill_tensor(n: Site, g: Array) -> Vjp:
    """y = m ? v : a:  da = m ? 0 : g,  dv = Σ (m ? g : 0)."""
    return [g.where(~n.mask), g.where(n.mask).sum()]


@vjp("ClampBackward0")
def clamp_tensor(n: Site, g: Array) -> Vjp:
    """y = min(max(a, lo), hi):  da = g where lo ≤ a ≤ hi;  dlo, dhi = g where y is lo, hi."""
    a, low, high = n.self, n.min, n.max
    if low is None or high is None:
        if low is not None:
            return [g.where(a >= low), g.where(a < low), None]
        return [g.where(a <= high), None, g.where(a > high)]
    return [
        g.where((a >= low) & (a <= high)),
        g.where((a < low) & (low < high)),
        g.where((a > high) | (high < low)),
    ]


@vjp("ClampBackward1")
def clamp(n: Site, g: Array) -> Vjp:
    """y = min(max(a, lo), hi):  da = g where lo ≤ a ≤ hi; 1 at the edges, as torch has it."""
    inside = (n.self >= limit(n, n.min)) if n.min is not None else None
    if n.max is not None:
        below = n.self <= limit(n, n.max)
        inside = below if inside is None else inside & below
    return [g if inside is None else g.where(inside)]


@vjp("ClampMinBackward0")
def clamp_min(n: Site, g: Array) -> Vjp:
    """y = max(a, lo):  da = g where a ≥ lo."""
    return [g.where(n.self >= limit(n, n.min))]


@vjp("ClampMaxBackward0")
def clamp_max(n: Site, g: Array) -> Vjp:
    """y = min(a, hi):  da = g where a ≤ hi."""
    return [g.where(n.self <= limit(n, n.max))]


@vjp("ClampMinBackward1")
def clamp_min_tensor(n: Site, g: Array) -> Vjp:
    """y = max(a, lo):  da = g where a ≥ lo,  dlo = g where a < lo."""
    return [g.where(n.self >= n.min), g.where(n.self < n.min)]


@vjp("ClampMaxBackward1")
def clamp_max_tensor(n: Site, g: Array) -> Vjp:
    """y = min(a, hi):  da = g where a ≤ hi,  dhi = g where a > hi."""
    return [g.where(n.self <= n.max), g.where(n.self > n.max)]


@vjp("MaximumBackward0")
def maximum(n: Site, g: Array) -> Vjp:
    """y = max(a, b):  g to the larger one, half to each where they are equal; to both where one is nan."""
    half = (g / 2).where(n.self.eq(n.other))
    return [g.where(~(n.self <= n.other)) + half, g.where(~(n.self >= n.other)) + half]


@vjp("MinimumBackward0")
def minimum(n: Site, g: Array) -> Vjp:
    """y = min(a, b):  g to the smaller one, half to each where they are equal; to both where one is nan."""
    half = (g / 2).where(n.self.eq(n.other))
    return [g.where(~(n.self >= n.other)) + half, g.where(~(n.self <= n.other)) + half]


# -------------------------------------------------------------------- what several rules need


def conj(value: Any) -> Any:
    """The complex conjugate of an array or a number; None stays None."""
    return value if value is None or isinstance(value, (int, float)) else conjugate(value)


def conjugate(value: Array | complex) -> Array | complex:
    """The complex conjugate of an array or a complex number."""
    return value.conj() if isinstance(value, Array) else value.conjugate()


def raised(x: Array, c: Any) -> Array:
    """xᶜ. Of real x torch takes square roots for the numbers c = ±1/2, which at -inf are nan.

    Nothing is claimed of infinite complex x: 1/x is 0 or nan there, as the library has it.
    """
    if x.is_complex:
        return unless(x**c, ~(abs(x) < inf))
    if not isinstance(c, Array) and c in {0.5, -0.5}:
        return x.sqrt() if c > 0 else 1 / x.sqrt()
    power: Array = x**c
    return power


def scaled(g: Array, alpha: Any) -> Array:
    """ᾱ g, without a multiplication (and its rounding) where α is 1."""
    return g if alpha == 1 else g * conj(alpha)


def limit(n: Site, value: float, accumulated: bool = False) -> float:
    """A number that torch compares with elements, or adds to them, in the dtype of the result as torch does.

    A kernel that is `accumulated` in float32 for the half types has it in float32.
    """
    dtype = n.outputs[0].dtype if n.outputs and n.outputs[0] is not None else "float64"
    return stored(value, "float32" if accumulated and dtype.endswith("float16") else dtype)


def in_range(n: Site, x: Array) -> Array:
    """`x`, infinite where the dtype of the node holds no such number: torch's step rounds it to that.

    The largest number is what half a unit beyond it is still rounded to.
    """
    r = rounding_of([spec.dtype for spec in n.outputs if spec is not None])
    return x if x.is_complex else x.where(~(x > r.largest * (1 + r.u / 2)), inf)


def signum(x: Array) -> Array:
    """x/|x|, 0 at 0; of a real nan it is 0 too, as in torch's ``sgn``."""
    return x.sign() if x.is_complex else x.sign().where(x.eq(x))


def as_array(value: Any) -> Array:
    """An array or a number as an array."""
    return value if isinstance(value, Array) else Full(value)
