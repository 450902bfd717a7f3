"""Rules of sparse tensors: made from dense ones and back, and their products with dense matrices."""

from __future__ import annotations

from math import inf
from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import Elements, Point
from explorer.engine.elementwise import Missing
from explorer.engine.entries import Entries
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rules.arithmetic import scaled
from explorer.engine.rules.products import factor_gradients
from explorer.engine.run import Run

Vjp = list[Array | None]


def _stored(pattern: Array, dense: Array) -> Array:
    """`dense` where `pattern`, a sparse tensor, stores something; 0 elsewhere."""
    if isinstance(pattern, Missing):
        return pattern
    if not isinstance(pattern, Entries):
        raise RuleError("a pattern that is not sparse")
    return dense.where(pattern.stored)


@vjp("ToSparseBackward0", "ToSparseBackward1", "ToSparseCsrBackward0", "ToSparseCscBackward0")
def to_sparse(n: Site, g: Array) -> Vjp:
    """y = x, its zeros left out:  dx = g."""
    return [g]


@vjp("ToDenseBackward0")
def to_dense(n: Site, g: Array) -> Vjp:
    """y = x with its zeros:  dx = g where x stores something.

    Elsewhere it is 0 where the gradient is masked, as it is unless asked otherwise, else g: the node does not
    tell which was asked for, and nothing is claimed.
    """
    if not isinstance(n.self, Entries):
        return [n.self if isinstance(n.self, Missing) else g]
    stored = n.self.stored

    def element(point: Point, run: Run) -> tuple[Any, float]:
        box = tuple((i,) for i in point)
        if not stored.eval(box, run)[0][0]:
            return 0.0, inf
        values, errors = g.eval(box, run)
        return values[0], errors[0] if errors else 0.0

    return [Elements(g.shape, element)]


@vjp("SparseAddmmBackward0")
def sparse_addmm(n: Site, g: Array) -> Vjp:
    """Y = β C + α A B, A sparse:  dC = β̄ G,  dA = ᾱ G Bᴴ where A stores something,  dB = ᾱ Aᴴ G."""
    da, db = factor_gradients(n, g, "mat1", "mat2")
    return [scaled(g, n.beta), None if da is None else _stored(n.mat1, da), db]


@vjp("SparseSampledAddmmBackward0")
def sampled_addmm(n: Site, g: Array) -> Vjp:
    """Y = β S + α A B where S stores something:  dS = β̄ g,  dA = ᾱ G Bᴴ,  dB = ᾱ Aᴴ G, G = g as sparse as S.

    dS is as dense as what arrives: torch leaves it so (sparse_sampled_addmm_backward).
    """
    return [scaled(g, n.beta), *factor_gradients(n, _stored(n.self, g), "mat1", "mat2")]
