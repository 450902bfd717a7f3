"""Rounding of the machine that torch computed on: one frozen record per dtype.

Every bound in the engine is built from these numbers. `u` is the unit roundoff of the dtype a result
is stored in, `ua` that of the accumulator inside sums and dots, `eta` an absolute floor below which
subnormal numbers are lost, `largest` the largest finite number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from math import copysign, inf
from struct import pack, unpack


@dataclass(frozen=True, slots=True)
class Rounding:
    """How one dtype rounds, and how errors are put together.

    `product` is the extra roundoff of each operand inside a matrix product (TF32: 2**-11).
    `worst` adds errors up in the worst case; `quadrature` in the root of squares (used where a
    bound is carried through many nodes). Without either, sums use the statistical bound.
    """

    u: float
    ua: float
    eta: float
    largest: float
    product: float = 0.0
    worst: bool = False
    quadrature: bool = False


# float64 counts twice: the engine itself computes in double precision and rounds as torch does.
_DOUBLE = Rounding(u=2.0**-52, ua=2.0**-52, eta=2.0**-1021, largest=1.7976931348623157e308)
_SINGLE = Rounding(u=2.0**-24, ua=2.0**-24, eta=2.0**-126, largest=3.4028234663852886e38)


def _of_pairs(real: Rounding) -> Rounding:
    """Complex numbers: a product rounds six times and a quotient twelve, each to the size of the result."""
    return replace(real, u=4 * real.u, ua=4 * real.ua)


ROUNDINGS: dict[str, Rounding] = {
    "float64": _DOUBLE,
    "complex128": _of_pairs(_DOUBLE),
    "float32": _SINGLE,
    "complex64": _of_pairs(_SINGLE),
    "float16": Rounding(u=2.0**-11, ua=2.0**-24, eta=2.0**-24, largest=65504.0),
    "bfloat16": Rounding(u=2.0**-8, ua=2.0**-24, eta=2.0**-126, largest=3.3895313892515355e38),
}


def stored(x: float, dtype: str) -> float:
    """`x` as a tensor of `dtype` holds it, rounded to the nearest (to float32 first for the half types)."""
    if dtype in ("float64", "complex128") or x - x != 0:
        return x
    try:
        bits = pack("f", x)
        if dtype == "float16":
            bits = pack("f", unpack("e", pack("e", unpack("f", bits)[0]))[0])
    except OverflowError:
        return copysign(inf, x)
    if dtype == "bfloat16":
        whole = unpack("I", bits)[0]
        bits = pack("I", whole + 0x7FFF + (whole >> 16 & 1) & 0xFFFF0000)
    found: float = unpack("f", bits)[0]
    return found


def rounding_of(dtypes: Iterable[str]) -> Rounding:
    """The coarsest rounding among `dtypes`; names that are no float or complex dtype are ignored.

    A node that mixes dtypes (autocast) rounds at least once to each of them.
    """
    known = [ROUNDINGS[name] for name in dtypes if name in ROUNDINGS]
    return max(known, key=lambda rounding: rounding.u, default=_SINGLE)
