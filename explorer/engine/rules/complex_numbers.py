"""Rules of functions that make, take apart or turn complex numbers.

The gradient of a real loss by x = a + i b is ∂/∂a + i ∂/∂b, as torch has it; for real x the imaginary part
is dropped afterwards.
"""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.registry import Site, as_complex, vjp
from explorer.engine.views import stack

Vjp = list[Array | None]


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
