"""Rules of products of vectors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from explorer.engine.array import Array
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.arithmetic import scaled
from explorer.engine.views import stack

Vjp = list[Array | None]

# -------------------------------------------------------------------- products of vectors


@vjp("VdotBackward0")
def vdot(n: Site, g: Array) -> Vjp:
    """y = Σ ā b:  da = ḡ b,  db = g a."""
    return [g.conj() * n.other if n.needs(0) else None, g * n.self if n.needs(1) else None]


@vjp("AddrBackward0")
def addr(n: Site, g: Array) -> Vjp:
    """y = β c + α a bᵀ:  dc = β̄ g,  da = ᾱ g b̄,  db = ᾱ gᵀ ā."""
    da = scaled(g @ n.vec2.conj(), n.alpha) if n.needs(1) else None
    db = scaled(g.mT @ n.vec1.conj(), n.alpha) if n.needs(2) else None
    return [scaled(g, n.beta), da, db]


@vjp("LinalgCrossBackward0")
def cross(n: Site, g: Array) -> Vjp:
    """y = a × b:  da = b̄ × g,  db = g × ā."""
    da = crossed(n.other.conj(), g, n.dim) if n.needs(0) else None
    return [da, crossed(g, n.self.conj(), n.dim) if n.needs(1) else None]


def crossed(a: Array, b: Array, dim: int) -> Array:
    """a × b along `dim`, of size 3."""
    first = [(a.select(dim, (k + 1) % 3), b.select(dim, (k + 2) % 3)) for k in range(3)]
    second = [(a.select(dim, (k + 2) % 3), b.select(dim, (k + 1) % 3)) for k in range(3)]
    parts = [p * q - r * s for (p, q), (r, s) in zip(first, second, strict=True)]
    return stack(parts, dim)


@vjp("TrilinearBackward0")
def trilinear(n: Site, g: Array) -> Vjp:
    """y = Σ a b c, each with axes of size 1 put in:  da = Σ g b c over those put in, and so on."""
    parts = [_with_axes(x, axes) for x, axes in ((n.i1, n.expand1), (n.i2, n.expand2), (n.i3, n.expand3))]
    wide = _with_axes(g, n.sumdim)
    found: Vjp = []
    for slot, axes in enumerate((n.expand1, n.expand2, n.expand3)):
        if not n.needs(slot):
            found.append(None)
            continue
        first, second = [part for k, part in enumerate(parts) if k != slot]
        total = (wide * (first * second)).sum(axes, keepdim=True) if axes else wide * (first * second)
        for axis in sorted(axes, reverse=True):
            total = total.squeeze(axis)
        found.append(total)
    return found


def _with_axes(x: Any, axes: Sequence[int]) -> Any:
    for axis in sorted(axes):
        x = x if x is None else x.unsqueeze(axis)
    return x
