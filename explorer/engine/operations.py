"""Elementwise operations: one `Operation` a function, its value and its error bound side by side.

The error of a result v = f(a, b, ...) is what the errors of the operands do to it, plus ``c·u·|v| + eta``
for the rounding of f itself: c = 1 for arithmetic, 2 for exp and log, 4 for tanh and sigmoid.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from explorer.engine.propagation import (
    ErrorRule,
    Number,
    carried,
    exact,
    of_choice,
    of_claim,
    of_exp,
    of_larger,
    of_number,
    of_power,
    of_product,
    of_quotient,
    of_sum,
    smooth,
)


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A function of numbers. `fast` may raise where IEEE arithmetic gives inf or nan; `safe` may not."""

    name: str
    fast: Callable[..., Number]
    safe: Callable[..., Number]
    error: ErrorRule
    complex_result: bool | None = None  # None: complex when an operand is


def guarded(
    real: Callable[[float], float], overflow: float, domain: Callable[[float], float], other: Any = None
) -> Callable[[Number], Number]:
    """`real`, but with `overflow` and `domain` for its exceptions and `other` for complex numbers."""

    def function(x: Number) -> Number:
        if isinstance(x, complex):
            return other(x)
        try:
            return real(x)
        except OverflowError:
            return overflow
        except ValueError:
            return domain(x)

    return function


def _nan(x: float) -> float:
    return math.nan


def _divide(a: Number, b: Number) -> Number:
    try:
        return a / b
    except ZeroDivisionError:
        if isinstance(a, complex) or isinstance(b, complex):
            return complex(math.nan, math.nan)
        return math.nan if a == 0 or a != a else math.copysign(math.inf, a) * math.copysign(1.0, b)
    except OverflowError:  # integers too large for a float
        return math.inf


def power(a: Number, b: Number) -> Number:
    """a**b as IEEE has it: 0**-1 = inf, (-1)**0.5 = nan; nan for complex numbers beyond the range."""
    if isinstance(a, complex) or isinstance(b, complex):
        if a == 0:
            return 1.0 if b == 0 else 0.0 if b.real > 0 else complex(math.nan, math.nan)
        try:
            return a**b if cmath.isfinite(a) else complex(math.nan, math.nan)
        except ArithmeticError:
            return complex(math.nan, math.nan)
    try:
        return math.pow(a, b)
    except OverflowError:
        return math.copysign(math.inf, a) if b % 2 == 1 else math.inf
    except ValueError:
        return (math.copysign(math.inf, a) if b % 2 == 1 else math.inf) if a == 0 else math.nan


def _sigmoid(x: Number) -> Number:
    if isinstance(x, complex):
        return 1 / (1 + cmath.exp(-x))
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    scale = math.exp(x)
    return scale / (1.0 + scale)


def _sign(x: Number) -> Number:
    if isinstance(x, complex):
        return x / abs(x) if x else 0.0
    return (x > 0) - (x < 0) if x == x else math.nan


def _normal_cdf(x: float) -> float:
    return 0.5 * math.erfc(-x * math.sqrt(0.5))


def _number(value: Number, x: float) -> Number:
    return value if x == x else 0.0


def _claimed(value: Number, doubtful: bool) -> Number:
    return 0.0 if doubtful else value


def _smaller(a: float, b: float) -> float:
    return b if b < a or b != b else a


def _larger(a: float, b: float) -> float:
    return b if b > a or b != b else a


def unary(
    name: str,
    real: Callable[[float], float],
    error: ErrorRule,
    *,
    overflow: float = math.inf,
    domain: Callable[[float], float] = _nan,
    other: Any = None,
) -> Operation:
    """An operation of one operand; `other` is the function on complex numbers."""
    return Operation(name, real, guarded(real, overflow, domain, other), error)


def _inverse(x: Number) -> float:
    return 1 / abs(x) if x else math.inf


def _log_domain(x: float) -> float:
    return -math.inf if x == 0 else math.nan


ADD = Operation("add", operator.add, operator.add, of_sum)
SUB = Operation("sub", operator.sub, operator.sub, of_sum)
MUL = Operation("mul", operator.mul, operator.mul, of_product)
DIV = Operation("div", operator.truediv, _divide, of_quotient)
POW = Operation("pow", math.pow, power, of_power)
NEG = Operation("neg", operator.neg, operator.neg, carried)
ABS = Operation("abs", abs, abs, carried, complex_result=False)
CONJ = Operation("conj", lambda x: x.conjugate(), lambda x: x.conjugate(), carried)
REAL = Operation("real", lambda x: x.real, lambda x: x.real, carried, complex_result=False)
IMAG = Operation("imag", lambda x: x.imag, lambda x: x.imag, carried, complex_result=False)
COMPLEX = Operation("complex", complex, complex, of_sum, complex_result=True)

LT = Operation("lt", operator.lt, operator.lt, exact, complex_result=False)
LE = Operation("le", operator.le, operator.le, exact, complex_result=False)
GT = Operation("gt", operator.gt, operator.gt, exact, complex_result=False)
GE = Operation("ge", operator.ge, operator.ge, exact, complex_result=False)
EQ = Operation("eq", operator.eq, operator.eq, exact, complex_result=False)
NE = Operation("ne", operator.ne, operator.ne, exact, complex_result=False)
AND = Operation("and", operator.and_, operator.and_, exact, complex_result=False)
OR = Operation("or", operator.or_, operator.or_, exact, complex_result=False)
NOT = Operation("not", operator.not_, operator.not_, exact, complex_result=False)
SIGN = Operation("sign", _sign, _sign, exact)
WHERE = Operation("where", lambda c, a, b: a if c else b, lambda c, a, b: a if c else b, of_choice)
WHERE_NUMBER = Operation("where a number", _number, _number, of_number)
"""The first operand, and nothing claimed of it where the second is nan."""
CLAIMED = Operation("claimed", _claimed, _claimed, of_claim)
"""The first operand, and nothing claimed of it where the second one holds."""
MINIMUM = Operation("minimum", _smaller, _smaller, of_larger)
MAXIMUM = Operation("maximum", _larger, _larger, of_larger)

EXP = unary("exp", math.exp, of_exp(2), other=cmath.exp)
SHARP_EXP = unary("exp", math.exp, of_exp(40), other=cmath.exp)
"""exp as the attention kernels approximate it: 40 units."""
LOG = unary("log", math.log, smooth(2, lambda a, v: _inverse(a)), domain=_log_domain, other=cmath.log)
LOG1P = unary(
    "log1p", math.log1p, smooth(2, lambda a, v: _inverse(1 + a)), domain=lambda x: _log_domain(1 + x)
)
SQRT = unary("sqrt", math.sqrt, smooth(1, lambda a, v: 0.5 / abs(v) if v else math.inf), other=cmath.sqrt)
SIN = unary("sin", math.sin, smooth(2, lambda a, v: 1.0), other=cmath.sin)
COS = unary("cos", math.cos, smooth(2, lambda a, v: 1.0), other=cmath.cos)
SINH = unary("sinh", math.sinh, smooth(4, lambda a, v: abs(v) + 1), other=cmath.sinh)
COSH = unary("cosh", math.cosh, smooth(4, lambda a, v: abs(v)), other=cmath.cosh)
TANH = unary("tanh", math.tanh, smooth(4, lambda a, v: abs(1 - v * v)), other=cmath.tanh)
SIGMOID = unary("sigmoid", _sigmoid, smooth(4, lambda a, v: abs(v * (1 - v))), overflow=0.0, other=_sigmoid)
ERF = unary("erf", math.erf, smooth(4, lambda a, v: 1.13))
NORMAL_CDF = unary("normal_cdf", _normal_cdf, smooth(4, lambda a, v: 0.4, floor=4))
"""(1 + erf(x/sqrt 2))/2 as torch computes it, which leaves an absolute error of a few units."""


def _softplus(x: float) -> float:
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


SOFTPLUS = unary("softplus", _softplus, smooth(4, lambda a, v: 1.0))
"""log(1 + exp(x)), without overflow."""
