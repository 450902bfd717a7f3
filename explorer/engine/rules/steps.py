"""Rules of step functions, of what they are part of, and of results that do not depend on the input."""

from __future__ import annotations

from math import inf

from explorer.engine.array import Array
from explorer.engine.elementwise import Full
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.arithmetic import conj
from explorer.engine.special import FLOOR_DIVIDE, TRUNCATED_DIVIDE

Vjp = list[Array | None]


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
