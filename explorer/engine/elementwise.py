"""Elementwise recipes: one `Operation` a function, its value and its error bound side by side.

The error of a result v = f(a, b, ...) is what the errors of the operands do to it, plus ``c·u·|v| + eta``
for the rounding of f itself: c = 1 for arithmetic, 2 for exp and log, 4 for tanh and sigmoid.
"""

from __future__ import annotations

import cmath
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, TypeAlias

from explorer.engine.array import Array, Bounded, Box, Coords, Errors, Operand, Values, broadcast_shapes
from explorer.engine.memory import rearrange
from explorer.engine.rounding import Rounding
from explorer.engine.run import Run

Number: TypeAlias = Any  # float, int, bool or complex
ErrorRule: TypeAlias = (
    "Callable[[Rounding, Values, Sequence[Iterable[Any]], Sequence[Iterable[float] | None]], Errors]"
)


@dataclass(frozen=True, slots=True, eq=False)
class Operation:
    """A function of numbers. `fast` may raise where IEEE arithmetic gives inf or nan; `safe` may not."""

    name: str
    fast: Callable[..., Number]
    safe: Callable[..., Number]
    error: ErrorRule
    complex_result: bool | None = None  # None: complex when an operand is


class Full(Array):
    """The same number everywhere."""

    __slots__ = ("value",)

    def __init__(self, value: Number, shape: Sequence[int] = ()) -> None:
        super().__init__(shape)
        self.value = value

    @property
    def is_complex(self) -> bool:
        return isinstance(self.value, complex)

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        return Full(self.value, shape)

    def _box(self, box: Box, run: Run) -> Bounded:
        return [self.value] * math.prod(map(len, box)), None

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return [self.value] * count, None


class Map(Array):
    """`operation` applied to operands broadcast against each other."""

    __slots__ = ("_complex", "operands", "operation")

    def __init__(self, operation: Operation, operands: Sequence[Array], shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.operation = operation
        self.operands = tuple(operands)
        for operand in operands:
            operand.uses += 1
        wanted = operation.complex_result
        self._complex = any(one.is_complex for one in operands) if wanted is None else wanted

    @property
    def is_complex(self) -> bool:
        return self._complex

    def _box(self, box: Box, run: Run) -> Bounded:
        count = math.prod(map(len, box))
        parts: list[Iterable[Any]] = []
        errors: list[Iterable[float] | None] = []
        for operand in self.operands:
            if type(operand) is Full:
                parts.append(repeat(operand.value))
                errors.append(None)
                continue
            if operand.shape == self.shape:
                values, error = operand.eval(box, run)
            else:
                values, error = _broadcast(operand, box, count, run)
            parts.append(values if len(values) == count else repeat(values[0]))
            errors.append(error if error is None or len(error) == count else repeat(error[0]))
        return self._finish(parts, errors, count, run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        parts: list[Iterable[Any]] = []
        errors: list[Iterable[float] | None] = []
        for operand in self.operands:
            if type(operand) is Full:
                parts.append(repeat(operand.value))
                errors.append(None)
                continue
            if operand.shape == self.shape:
                values, error = operand.at(coords, count, run)
            else:
                inner = coords[len(coords) - operand.ndim :]
                zero = [0] * count
                inner = [zero if size == 1 else at for at, size in zip(inner, operand.shape, strict=True)]
                values, error = operand.at(inner, count, run)
            parts.append(values)
            errors.append(error)
        return self._finish(parts, errors, count, run)

    def _finish(
        self, parts: list[Iterable[Any]], errors: list[Iterable[float] | None], count: int, run: Run
    ) -> Bounded:
        run.work += count
        operation = self.operation
        if all(type(part) is repeat for part in parts):
            parts[0] = [next(iter(parts[0]))] * count
        try:
            values = list(map(operation.fast, *parts))
        except (ArithmeticError, ValueError, TypeError):
            values = list(map(operation.safe, *parts))
        if not run.bounds:
            return values, None
        return values, operation.error(run.rounding, values, parts, errors)


def _broadcast(operand: Array, box: Box, count: int, run: Run) -> Bounded:
    """`operand` over the part of `box` it has, repeated to the whole; one element stays one."""
    outer = len(box) - operand.ndim
    inner = tuple(
        range(1) if size == 1 else index for index, size in zip(box[outer:], operand.shape, strict=True)
    )
    values, error = operand.eval(inner, run)
    if len(values) == 1 or len(values) == count:
        return values, error
    lengths = [len(index) for index in box]
    strides = [0] * len(box)
    step = 1
    for axis in range(operand.ndim - 1, -1, -1):
        have = len(inner[axis])
        strides[outer + axis] = 0 if operand.shape[axis] == 1 else step
        step *= have
    return rearrange(values, lengths, strides), None if error is None else rearrange(error, lengths, strides)


def apply(operation: Operation, *operands: Operand) -> Array:
    """`operation` on operands broadcast against each other; a missing operand makes the result missing."""
    arrays = [one if isinstance(one, Array) else _constant(one) for one in operands]
    for one in arrays:
        if isinstance(one, Missing):
            return one
    if len(arrays) == 1:
        return Map(operation, arrays, arrays[0].shape)
    return Map(operation, arrays, broadcast_shapes(*[one.shape for one in arrays]))


def _constant(value: Operand | None) -> Array:
    """A number as an array; None, where torch kept nothing, is missing."""
    return Missing("torch kept no value here") if value is None else Full(value)


class Iota(Array):
    """The index along one axis."""

    __slots__ = ("dim",)

    def __init__(self, shape: Sequence[int], dim: int) -> None:
        super().__init__(shape)
        self.dim = dim

    def _box(self, box: Box, run: Run) -> Bounded:
        inner = math.prod(map(len, box[self.dim + 1 :]))
        line = [i for i in box[self.dim] for _ in range(inner)]
        return line * math.prod(map(len, box[: self.dim])), None

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return list(coords[self.dim]), None


def index_along(shape: Sequence[int], dim: int) -> Array:
    """An array of `shape` whose elements are their own index along axis `dim`."""
    kept = [1] * len(shape)
    dim %= len(shape)
    kept[dim] = shape[dim]
    return Iota(kept, dim)


class Missing(Array):
    """A saved value that cannot be read: every recipe made from it is missing for the same reason."""

    __slots__ = ("reason",)

    def __init__(self, reason: str, shape: Sequence[int] = ()) -> None:
        super().__init__(shape)
        self.reason = reason

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        return self


def _stay_missing(self: Missing, *args: object, **options: object) -> Missing:
    return self


for _name in [
    "reshape",
    "permute",
    "transpose",
    "unsqueeze",
    "squeeze",
    "select",
    "slice",
    "expand",
    "flip",
    "pad",
    "sum",
    "mean",
    "amax",
    "amin",
    "sum_to",
    "conj",
    "__matmul__",
]:
    setattr(Missing, _name, _stay_missing)
for _name in ("mT", "real", "imag"):
    setattr(Missing, _name, property(_stay_missing))


# -------------------------------------------------------------------- how errors pass through


def _exact(
    u: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """No rounding at all: comparisons, and sign."""
    return None


def _carried(
    u: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """An exact function with slope of size 1: the operand's own error."""
    return None if errors[0] is None else list(errors[0])


def _of_sum(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """ea + eb + u|v|."""
    (ea, eb), u, eta = errors, r.u, r.eta
    if ea is None and eb is None:
        return [u * abs(x) + eta for x in v]
    if ea is None or eb is None:
        return [e + u * abs(x) + eta for x, e in zip(v, ea or eb or ())]  # noqa: B905 - eb may repeat for ever
    if r.quadrature:
        return [math.hypot(a, b) + u * abs(x) + eta for x, a, b in zip(v, ea, eb)]  # noqa: B905 - as above
    return [a + b + u * abs(x) + eta for x, a, b in zip(v, ea, eb)]  # noqa: B905 - as above


def _of_product(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """|a| eb + |b| ea + u|v|."""
    (a, b), (ea, eb), u, eta = parts, errors, r.u, r.eta
    if ea is None and eb is None:
        return [u * abs(x) + eta for x in v]
    if eb is None:
        return [abs(q) * e + u * abs(x) + eta for x, q, e in zip(v, b, ea or ())]  # noqa: B905 - b may repeat
    if ea is None:
        return [abs(p) * e + u * abs(x) + eta for x, p, e in zip(v, a, eb)]  # noqa: B905 - a may repeat
    return [
        abs(q) * e + abs(p) * f + e * f + u * abs(x) + eta
        for x, p, q, e, f in zip(v, a, b, ea, eb)  # noqa: B905 - a or b may repeat
    ]


def _of_quotient(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """(ea + |v| eb) / |b| + u|v|."""
    (_, b), (ea, eb), u, eta = parts, errors, r.u, r.eta
    if ea is None and eb is None:
        return [u * abs(x) + eta for x in v]
    return [
        ((e + abs(x) * f) / (abs(q) - f) if abs(q) > f else math.inf) + u * abs(x) + eta
        for x, q, e, f in zip(v, b, ea or repeat(0.0), eb or repeat(0.0))  # noqa: B905 - b may repeat
    ]


def _of_choice(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """where: the error of the operand chosen."""
    (c, _, _), (_, ea, eb) = parts, errors
    if ea is None and eb is None:
        return None
    pairs = zip(v, c, ea or repeat(0.0), eb or repeat(0.0))  # noqa: B905 - parts may repeat
    return [e if chosen else f for _, chosen, e, f in pairs]


def _of_larger(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """minimum and maximum: the larger error."""
    ea, eb = errors
    if ea is None and eb is None:
        return None
    return [max(e, f) for _, e, f in zip(v, ea or repeat(0.0), eb or repeat(0.0))]  # noqa: B905 - may repeat


def smooth(c: float, slope: Callable[[Number, Number], float], floor: float = 0.0) -> ErrorRule:
    """The error of a differentiable f: ``|f'(a)| ea + c u |v| + floor ua``; `slope` gets a and v."""

    def error(
        r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
    ) -> Errors:
        cu, eta = c * r.u, r.eta + floor * r.ua
        ea = errors[0]
        if ea is None:
            return [cu * abs(x) + eta for x in v]
        pairs = zip(v, parts[0], ea)  # noqa: B905 - parts may repeat
        return [(slope(a, x) * e if e else 0.0) + cu * abs(x) + eta for x, a, e in pairs]

    return error


def _of_power(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """a**b: |v b/a| ea + |v log a| eb + 2u|v|."""
    (a, b), (ea, eb), u, eta = parts, errors, r.u, r.eta
    found = []
    for x, p, q, e, f in zip(v, a, b, ea or repeat(0.0), eb or repeat(0.0)):  # noqa: B905 - may repeat
        size = 2 * u * abs(x) + eta
        if e:
            size += abs(x * q / p) * e if p else math.inf
        if f:
            size += abs(x * math.log(abs(p))) * f if p else 0.0
        found.append(size)
    return found


# -------------------------------------------------------------------- functions with IEEE results


def _of_exp(c: float) -> ErrorRule:
    """The error of exp, ``exp(a + ea) + c u |v|``; |v| ea alone is too little once ea is near 1."""

    def error(
        r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
    ) -> Errors:
        cu, eta = c * r.u, r.eta
        ea = errors[0]
        if ea is None:
            return [cu * abs(x) + eta for x in v]
        pairs = zip(v, parts[0], ea)  # noqa: B905 - parts may repeat
        return [_grown(x, a, e) + cu * abs(x) + eta for x, a, e in pairs]

    return error


def _grown(value: Number, argument: Number, error: float) -> float:
    """At least how much exp grows from `argument` to ``argument + error``."""
    if error < 0.01:
        return 1.01 * float(abs(value)) * error
    try:
        return float(math.exp(argument.real + error))
    except OverflowError:
        return math.inf


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
    """a**b as IEEE has it: 0**-1 = inf, (-1)**0.5 = nan."""
    if isinstance(a, complex) or isinstance(b, complex):
        if a == 0:
            return 1.0 if b == 0 else 0.0
        return a**b
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


def _log_domain(x: float) -> float:
    return -math.inf if x == 0 else math.nan


ADD = Operation("add", operator.add, operator.add, _of_sum)
SUB = Operation("sub", operator.sub, operator.sub, _of_sum)
MUL = Operation("mul", operator.mul, operator.mul, _of_product)
DIV = Operation("div", operator.truediv, _divide, _of_quotient)
POW = Operation("pow", math.pow, power, _of_power)
NEG = Operation("neg", operator.neg, operator.neg, _carried)
ABS = Operation("abs", abs, abs, _carried, complex_result=False)
CONJ = Operation("conj", lambda x: x.conjugate(), lambda x: x.conjugate(), _carried)
REAL = Operation("real", lambda x: x.real, lambda x: x.real, _carried, complex_result=False)
IMAG = Operation("imag", lambda x: x.imag, lambda x: x.imag, _carried, complex_result=False)
COMPLEX = Operation("complex", complex, complex, _of_sum, complex_result=True)

LT = Operation("lt", operator.lt, operator.lt, _exact, complex_result=False)
LE = Operation("le", operator.le, operator.le, _exact, complex_result=False)
GT = Operation("gt", operator.gt, operator.gt, _exact, complex_result=False)
GE = Operation("ge", operator.ge, operator.ge, _exact, complex_result=False)
EQ = Operation("eq", operator.eq, operator.eq, _exact, complex_result=False)
NE = Operation("ne", operator.ne, operator.ne, _exact, complex_result=False)
AND = Operation("and", operator.and_, operator.and_, _exact, complex_result=False)
OR = Operation("or", operator.or_, operator.or_, _exact, complex_result=False)
NOT = Operation("not", operator.not_, operator.not_, _exact, complex_result=False)
SIGN = Operation("sign", _sign, _sign, _exact)
WHERE = Operation("where", lambda c, a, b: a if c else b, lambda c, a, b: a if c else b, _of_choice)
MINIMUM = Operation("minimum", _smaller, _smaller, _of_larger)
MAXIMUM = Operation("maximum", _larger, _larger, _of_larger)

EXP = unary("exp", math.exp, _of_exp(2), other=cmath.exp)
SHARP_EXP = unary("exp", math.exp, _of_exp(40), other=cmath.exp)
"""exp as the attention kernels approximate it: 40 units."""
LOG = unary("log", math.log, smooth(2, lambda a, v: 1 / abs(a)), domain=_log_domain, other=cmath.log)
LOG1P = unary(
    "log1p", math.log1p, smooth(2, lambda a, v: 1 / abs(1 + a)), domain=lambda x: _log_domain(1 + x)
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
