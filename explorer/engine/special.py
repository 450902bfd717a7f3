"""Operations beyond the elementary ones: gamma and Bessel functions, inverse erf, division.

Each is an `Operation` with its own error bound, as in `explorer.engine.elementwise`. The special functions
are computed from their defining series, independently of torch: Hurwitz's zeta by Euler and Maclaurin,
the modified Bessel functions by their power series (all terms positive) or, far out, by Hankel's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from statistics import NormalDist
from typing import Any

from explorer.engine.elementwise import DIV, ErrorRule, Operation, smooth, unary
from explorer.engine.memory import Values
from explorer.engine.rounding import Rounding
from explorer.engine.run import Errors

# -------------------------------------------------------------------- gamma functions

_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)


def hurwitz(s: int, q: float) -> float:
    """ζ(s, q) = Σ_{k≥0} 1 / (q + k)^s for an integer s ≥ 2; inf where q is 0, -1, -2, ..."""
    if q <= 0 and q == math.floor(q):
        return math.inf
    if q < -1e5:
        return math.nan  # too far to sum
    total = 0.0
    while q < 16:
        total += q**-s
        q += 1
    total += q ** (1 - s) / (s - 1) + 0.5 * q**-s
    rising, power = float(s), q ** (-s - 1)
    for k, number in enumerate(_BERNOULLI, 1):
        total += number * rising * power / math.factorial(2 * k)
        rising *= (s + 2 * k - 1) * (s + 2 * k)
        power /= q * q
    return total


def digamma(x: float) -> float:
    """ψ(x) = d/dx log Γ(x); nan at negative integers and -inf, ∓inf at ±0, as torch has it."""
    if x == 0:
        return math.copysign(math.inf, -x)
    if x == -math.inf:
        return math.nan
    if x != x or x == math.inf:
        return x
    if x < 0:
        if x == math.floor(x):
            return math.nan
        return digamma(1 - x) - math.pi / math.tan(math.pi * math.fmod(x, 1.0))
    total = 0.0
    while x < 16:
        total -= 1 / x
        x += 1
    total += math.log(x) - 0.5 / x
    power = 1 / (x * x)
    for k, number in enumerate(_BERNOULLI, 1):
        total -= number * power / (2 * k)
        power /= x * x
    return total


def _gamma_slope(x: float, v: float) -> float:
    return abs(hurwitz(2, x)) if x == x and abs(x) != math.inf else 0.0


def _reflected(bound: ErrorRule, slope: Callable[[float], float], extra: float = 0.0) -> ErrorRule:
    """`bound`, `extra`, and what rounding the argument does: torch reflects it at 1/2 and multiplies by π."""

    def error(
        r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
    ) -> Errors:
        found = bound(r, v, parts, errors) or ()
        return [
            one + extra + (8 * r.ua * max(1.0, abs(x)) * abs(slope(x)) if math.isfinite(x) else 0.0)
            for one, x in zip(found, parts[0])  # noqa: B905 - parts may repeat
        ]

    return error


DIGAMMA = unary(
    "digamma",
    digamma,
    _reflected(smooth(16, _gamma_slope, floor=32), lambda x: hurwitz(2, x)),
)
"""The bound's floor: near its root ψ is a difference of numbers of size 1."""

LGAMMA = unary(
    "lgamma", math.lgamma, smooth(4, lambda x, v: abs(digamma(x.real)), floor=4), domain=lambda x: math.inf
)
"""log |Γ(x)|; the floor is for its roots, at 1 and 2."""


def polygamma(order: int) -> Operation:
    """ψ⁽ⁿ⁾(x) = (-1)ⁿ⁺¹ n! ζ(n + 1, x) for n ≥ 1; n = 0 is ψ itself. At ±inf as torch has it."""
    if order == 0:
        return DIGAMMA
    factor = (-1) ** (order + 1) * float(math.factorial(order))

    def value(x: float) -> float:
        if x == -math.inf:
            return math.nan if order == 1 else factor * math.inf
        if x == math.inf:
            return 0.0 if order == 1 else math.nan
        return factor * hurwitz(order + 1, x) if x == x else x

    bound = smooth(64, lambda x, v: abs(v))
    # Torch's trigamma ends its series so early that 1/(30·6⁹) = 3.3e-9 is missing, even in float64.
    loose = _reflected(bound, lambda x: 2 * hurwitz(3, x), 5e-9) if order == 1 else _of_series(order)
    return unary(f"polygamma {order}", value, loose)


def _of_series(order: int) -> ErrorRule:
    """The rounding of n! Σ (x + k)^-(n+1), whose terms have both signs where x is negative."""

    def error(
        r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
    ) -> Errors:
        found = []
        for x, q in zip(v, parts[0]):  # noqa: B905 - parts may repeat
            size = abs(x)
            if -1e5 < q < 0 and q != math.floor(q):
                below = range(math.ceil(-q))
                size += math.factorial(order) * sum(abs(q + k) ** -(order + 1) for k in below)
            found.append(64 * r.u * size + r.eta)
        return found

    return error


# -------------------------------------------------------------------- modified Bessel functions


def _bessel_scaled(order: int, x: float) -> float:
    """e^-|x| I_n(x) for n = 0 or 1."""
    size = abs(x)
    sign = -1.0 if order == 1 and x < 0 else 1.0
    if size == math.inf:
        return 0.0
    if size > 40:
        term = total = 1.0
        for k in range(1, 30):
            factor = (4 * order * order - (2 * k - 1) ** 2) / (8 * size * k)
            term *= -factor
            total += term
        return sign * total / math.sqrt(2 * math.pi * size)
    term = total = (size / 2) ** order
    k = 1
    while term > total * 1e-18:
        term *= (size / 2) ** 2 / (k * (k + order))
        total += term
        k += 1
    return sign * total * math.exp(-size)


def _bessel(order: int, x: float) -> float:
    return _bessel_scaled(order, x) * math.exp(abs(x))


I0 = unary("i0", lambda x: _bessel(0, x), smooth(32, lambda x, v: abs(v)))
I1 = unary("i1", lambda x: _bessel(1, x), smooth(32, lambda x, v: abs(v) + 1))
I0E = unary("i0e", lambda x: _bessel_scaled(0, x), smooth(32, lambda x, v: abs(v)))
I1E = unary("i1e", lambda x: _bessel_scaled(1, x), smooth(32, lambda x, v: 1.0))


# -------------------------------------------------------------------- the error function turned round


def _erfinv(x: float) -> float:
    if abs(x) >= 1:
        return math.copysign(math.inf, x) if abs(x) == 1 else math.nan
    found = NormalDist().inv_cdf((1 + abs(x)) / 2) / math.sqrt(2) if abs(x) < 1 - 1e-15 else 5.6
    for _ in range(3):
        gap = math.erf(found) - abs(x)
        if found > 1:
            gap = (1 - abs(x)) - math.erfc(found)
        found -= gap * math.sqrt(math.pi) / 2 * math.exp(found * found)
    return math.copysign(found, x)


ERFINV = unary("erfinv", _erfinv, smooth(8, lambda x, v: math.exp(v * v)))


# -------------------------------------------------------------------- division to an integer


def _floored(a: float, b: float) -> float:
    """⌊a / b⌋ as torch computes it: through the exact remainder."""
    if b == 0 or not math.isfinite(a) or b != b:
        return DIV.safe(a, b)  # type: ignore[no-any-return]  # an operation's function returns Any
    rest = math.fmod(a, b)
    quotient = (a - rest) / b
    return float(round(quotient)) - (1.0 if rest and (rest < 0) != (b < 0) else 0.0)


def _truncated(a: float, b: float) -> float:
    found: float = DIV.safe(a, b)
    return float(math.trunc(found)) if math.isfinite(found) else found


def _of_floor(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """The remainder is exact, and what is divided from it an integer; it is rounded where it is large."""
    return [2 * r.u * abs(x) if abs(x) * r.u >= 0.25 else 0.0 for x in v]


def _of_truncation(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """Torch rounds the quotient first: just below an integer it may be that integer, 1 away."""
    found = []
    for x, a, b in zip(v, *parts):  # noqa: B905 - parts may repeat
        size = 2 * r.u * abs(x) if abs(x) * r.u >= 0.25 else 0.0
        if b and math.isfinite(a) and math.isfinite(b) and math.fmod(a, b):
            quotient = abs(a / b)
            near = abs(quotient - round(quotient)) <= 2 * r.u * quotient
            size += 1.0 if near else 0.0
        found.append(size)
    return found


FLOOR_DIVIDE = Operation("floor_divide", _floored, _floored, _of_floor, complex_result=False)
TRUNCATED_DIVIDE = Operation("truncated_divide", _truncated, _truncated, _of_truncation, complex_result=False)
