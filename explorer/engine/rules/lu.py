"""Rules of the LU factorisation A = P L U, and of solves with it.

L has ones on its diagonal, and torch keeps it below U in one matrix; P comes as a list of row exchanges.
"""

from __future__ import annotations

from collections.abc import Sequence

from explorer.engine.array import Array
from explorer.engine.blocks import Part, blocks
from explorer.engine.elementwise import Full, index_along
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.solving import adjoint, solve, solve_right, triangle
from explorer.engine.run import Run
from explorer.engine.views import cat

Vjp = list[Array | None]


def permutation(pivots: Array, size: int) -> Array:
    """The matrix P of A = P L U, from torch's row exchanges (counted from 1)."""

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        order = list(range(size))
        for i, pivot in enumerate(parts[0][0]):
            order[i], order[pivot - 1] = order[pivot - 1], order[i]
        return [1.0 if order[j] == i else 0.0 for i in range(size) for j in range(size)], [0.0] * size * size

    return blocks(pivots.shape[:-1], (size, size), [pivots], compute)


def lu_gradient(gl: Array, gu: Array, p: Array | None, lower: Array, upper: Array) -> Array:
    """A = P L U, m × n, k the smaller:  dA = P L⁻ᴴ (tril(Lᴴ dL, -1) + triu(dU Uᴴ)) U⁻ᴴ for square A.

    Wide: dA₂ = P L⁻ᴴ dU₂, which takes dU₂ U₂ᴴ from the first term; tall in the same way.
    """
    m, n = lower.shape[-2], upper.shape[-1]
    k = min(m, n)
    l1, u1 = lower.slice(-2, 0, k), upper.slice(-1, 0, k)
    left, right = adjoint(l1) @ gl.slice(-2, 0, k), gu.slice(-1, 0, k) @ adjoint(u1)
    if n > k:
        left = left - gu.slice(-1, k) @ adjoint(upper.slice(-1, k))
    if m > k:
        right = right - adjoint(lower.slice(-2, k)) @ gl.slice(-2, k)
    inner = triangle(left, diagonal=-1) + triangle(right, upper=True)
    found = solve_right(adjoint(u1), solve(adjoint(l1), inner))
    if n > k:
        found = cat([found, solve(adjoint(l1), gu.slice(-1, k))], -1)
    if m > k:
        found = cat([found, solve_right(adjoint(u1), gl.slice(-2, k))], -2)
    return found if p is None else p @ found


def _lower_upper(lu: Array) -> tuple[Array, Array]:
    m, n = lu.shape[-2:]
    k = min(m, n)
    eye = index_along((m, k), 0).eq(index_along((m, k), 1))
    return triangle(lu.slice(-1, 0, k), diagonal=-1) + eye, triangle(lu.slice(-2, 0, k), upper=True)


@vjp("LinalgLuFactorExBackward0")
def lu_factor(n: Site, g: Array, *_: Array | None) -> Vjp:
    """A = P L U, L and U in one matrix:  as `lu_gradient` with the two triangles of G."""
    lower, upper = _lower_upper(n.LU)
    k = min(n.LU.shape[-2:])
    gl, gu = triangle(g.slice(-1, 0, k), diagonal=-1), triangle(g.slice(-2, 0, k), upper=True)
    return [lu_gradient(gl, gu, permutation(n.pivots, g.shape[-2]) if n.pivot else None, lower, upper)]


@vjp("LinalgLuBackward0")
def lu(n: Site, *g: Array | None) -> Vjp:
    """A = P L U:  see `lu_gradient`; P is a step function of A."""
    gl, gu = g[-2:]
    gl = Full(0.0, n.L.shape) if gl is None else gl
    gu = Full(0.0, n.U.shape) if gu is None else gu
    return [lu_gradient(gl, gu, n.P if n.pivot else None, n.L, n.U)]


@vjp("LuUnpackBackward0")
def lu_unpack(n: Site, *g: Array | None) -> Vjp:
    """L and U are the two triangles of LU:  dLU = tril(dL, -1) + triu(dU)."""
    gl, gu = g[-2:]
    rows, columns = n.LU_data_sym_argsize_minus_2, n.LU_data_sym_argsize_minus_1
    k = min(rows, columns)
    shape = n.shape(0)
    found: Array = Full(0.0, shape)
    if gl is not None:
        found = found + triangle(gl, diagonal=-1).pad(-1, 0, columns - k)
    if gu is not None:
        found = found + triangle(gu, upper=True).pad(-2, 0, rows - k)
    return [found]


@vjp("LinalgLuSolveBackward0")
def lu_solve(n: Site, g: Array) -> Vjp:
    """A X = B, A = P L U:  dB = A⁻ᴴ G,  dL = tril(Pᴴ M Uᴴ, -1),  dU = triu(Lᴴ Pᴴ M), M = dA = -dB Xᴴ."""
    lower, upper = _lower_upper(n.LU)
    p, x = permutation(n.pivots, n.LU.shape[-1]), n.result
    a = p @ (lower @ upper)
    whole = a if n.adjoint else adjoint(a)
    db = solve(whole, g) if n.left else solve_right(whole, g)
    m = -(db @ adjoint(x)) if n.left else -(adjoint(x) @ db)
    m = adjoint(p) @ (adjoint(m) if n.adjoint else m)
    return [triangle(m @ adjoint(upper), diagonal=-1) + triangle(adjoint(lower) @ m, upper=True), db]
