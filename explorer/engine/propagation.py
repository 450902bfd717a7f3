"""How the errors of operands pass through an elementwise function.

An `ErrorRule` gets the rounding, the values v = f(a, b, ...), the operands and their errors, and gives one
bound per value: what the operands' errors do to it, plus ``c·u·|v| + eta`` for the rounding of f itself.
Operands may repeat one number for ever, hence the unstrict zips.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any, TypeAlias

from explorer.engine.memory import Values
from explorer.engine.rounding import Rounding
from explorer.engine.run import Errors

Number: TypeAlias = Any  # float, int, bool or complex
ErrorRule: TypeAlias = (
    "Callable[[Rounding, Values, Sequence[Iterable[Any]], Sequence[Iterable[float] | None]], Errors]"
)


def exact(
    u: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """No rounding at all: comparisons, and sign."""
    return None


def carried(
    u: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """An exact function with slope of size 1: the operand's own error."""
    return None if errors[0] is None else list(errors[0])


def of_sum(
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


def of_product(
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


def of_quotient(
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


def of_choice(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """where: the error of the operand chosen."""
    (c, _, _), (_, ea, eb) = parts, errors
    if ea is None and eb is None:
        return None
    pairs = zip(v, c, ea or repeat(0.0), eb or repeat(0.0))  # noqa: B905 - parts may repeat
    return [e if chosen else f for _, chosen, e, f in pairs]


def of_larger(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """minimum and maximum: the larger error."""
    ea, eb = errors
    if ea is None and eb is None:
        return None
    return [max(e, f) for _, e, f in zip(v, ea or repeat(0.0), eb or repeat(0.0))]  # noqa: B905 - may repeat


def of_number(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """The first operand's error; without end where the second operand is nan."""
    pairs = zip(v, parts[1], errors[0] or repeat(0.0))  # noqa: B905 - parts may repeat
    found = [e if x == x else math.inf for _, x, e in pairs]
    return found if errors[0] is not None or math.inf in found else None


def of_claim(
    r: Rounding, v: Values, parts: Sequence[Iterable[Any]], errors: Sequence[Iterable[float] | None]
) -> Errors:
    """The first operand's error; without end where the second operand holds."""
    pairs = zip(v, parts[1], errors[0] or repeat(0.0))  # noqa: B905 - parts may repeat
    found = [math.inf if doubtful else e for _, doubtful, e in pairs]
    return found if errors[0] is not None or math.inf in found else None


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


def of_power(
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


def of_exp(c: float) -> ErrorRule:
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
