"""Rules of linear algebra: matrix and vector products."""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.arithmetic import scaled

Vjp = list[Array | None]


@vjp("MmBackward0", "BmmBackward0")
def mm(n: Site, g: Array) -> Vjp:
    """Y = A B:  dA = G Bᴴ,  dB = Aᴴ G."""
    da = g @ n.mat2.mT.conj() if n.needs(0) else None
    db = n.self.mT.conj() @ g if n.needs(1) else None
    return [da, db]


@vjp("AddmmBackward0")
def addmm(n: Site, g: Array) -> Vjp:
    """Y = β C + α A B:  dC = β̄ G,  dA = ᾱ G Bᴴ,  dB = ᾱ Aᴴ G."""
    return [scaled(g, n.beta), *factor_gradients(n, g, "mat1", "mat2")]


@vjp("BaddbmmBackward0")
def baddbmm(n: Site, g: Array) -> Vjp:
    """Y = β C + α A B for each batch:  dC = β̄ G,  dA = ᾱ G Bᴴ,  dB = ᾱ Aᴴ G."""
    return [scaled(g, n.beta), *factor_gradients(n, g, "batch1", "batch2")]


@vjp("AddbmmBackward0")
def addbmm(n: Site, g: Array) -> Vjp:
    """Y = β C + α Σ A B over the batch:  dC = β̄ G;  dA = ᾱ G Bᴴ,  dB = ᾱ Aᴴ G, for each batch."""
    return [scaled(g, n.beta), *factor_gradients(n, g.unsqueeze(0), "batch1", "batch2")]


def factor_gradients(n: Site, g: Array, left: str, right: str) -> Vjp:
    """ᾱ G Bᴴ and ᾱ Aᴴ G for inputs 1 and 2, the saved values `left` (A) and `right` (B); None: not wanted.

    Torch keeps either factor only if the other's gradient is wanted.
    """
    da = scaled(g @ getattr(n, right).mT.conj(), n.alpha) if n.needs(1) else None
    db = scaled(getattr(n, left).mT.conj() @ g, n.alpha) if n.needs(2) else None
    return [da, db]


@vjp("MvBackward0")
def mv(n: Site, g: Array) -> Vjp:
    """y = A x:  dA = g xᴴ,  dx = Aᴴ g."""
    da = g.unsqueeze(1) * n.vec.unsqueeze(0).conj() if n.needs(0) else None
    return [da, n.self.mT.conj() @ g if n.needs(1) else None]


@vjp("AddmvBackward0")
def addmv(n: Site, g: Array) -> Vjp:
    """y = β c + α A x:  dc = β̄ g,  dA = ᾱ g xᴴ,  dx = ᾱ Aᴴ g."""
    da = scaled(g.unsqueeze(1) * n.vec.unsqueeze(0).conj(), n.alpha) if n.needs(1) else None
    dx = scaled(n.mat.mT.conj() @ g, n.alpha) if n.needs(2) else None
    return [scaled(g, n.beta), da, dx]


@vjp("DotBackward0")
def dot(n: Site, g: Array) -> Vjp:
    """y = Σ a b:  da = g b̄,  db = g ā."""
    return [g * n.tensor.conj() if n.needs(0) else None, g * n.self.conj() if n.needs(1) else None]
