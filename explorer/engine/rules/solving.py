"""Rules of solves, inverses, determinants and pseudo-inverses.

A solve is computed anew in pure Python: one inverse per matrix, bounded by |A⁻¹| |A| |X|. Everything else is
products and solves with what torch saved. Aᴴ is the conjugate transpose, tril and triu keep a triangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from explorer.engine.array import Array, Values, broadcast_shapes
from explorer.engine.blocks import Part, blocks
from explorer.engine.elementwise import Full, Missing, index_along, unless
from explorer.engine.registry import Site, vjp
from explorer.engine.run import Run

Vjp = list[Array | None]

LARGEST = 40
"""Matrices of more rows are left unchecked: their inverse costs n³ steps of Python."""

# -------------------------------------------------------------------- solving


def inverse_of(a: Values, size: int) -> Values:
    """The inverse of a row-major matrix by Gauss and Jordan with row exchanges; inf where it is singular."""
    rows = [
        list(a[i * size : (i + 1) * size]) + [1.0 if j == i else 0.0 for j in range(size)]
        for i in range(size)
    ]
    for k in range(size):
        pivot = max(range(k, size), key=lambda i: abs(rows[i][k]))
        rows[k], rows[pivot] = rows[pivot], rows[k]
        if rows[k][k] == 0 or rows[k][k] != rows[k][k]:
            return [float("inf")] * (size * size)
        scale = 1 / rows[k][k]
        rows[k] = [value * scale for value in rows[k]]
        for i in range(size):
            if i != k and rows[i][k]:
                factor = rows[i][k]
                rows[i] = [p - factor * q for p, q in zip(rows[i], rows[k], strict=True)]
    return [value for row in rows for value in row[size:]]


def solve(a: Array, b: Array) -> Array:
    """X with A X = B; batch axes broadcast. Its bound: 2|A⁻¹|(E_B + 4 n u |A||X| + E_A |X|)."""
    for one in (a, b):
        if isinstance(one, Missing):
            return one
    size, width = a.shape[-1], b.shape[-1]
    if size > LARGEST:
        return Missing(f"a solve with {size} rows is too large for pure Python", (*a.shape[:-1], width))
    batch = broadcast_shapes(a.shape[:-2], b.shape[:-2])

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (av, ae), (bv, be) = parts
        inverse = inverse_of(av, size)
        values: Values = []
        errors: list[float] = []
        columns = []
        for j in range(width):
            column = bv[j::width]
            x = [sum(inverse[i * size + k] * column[k] for k in range(size)) for i in range(size)]
            slack = [
                be[k * width + j]
                + sum(
                    (4 * (size + 2) * run.rounding.u * abs(av[k * size + m]) + ae[k * size + m]) * abs(x[m])
                    for m in range(size)
                )
                for k in range(size)
            ]
            bound = [
                2 * sum(abs(inverse[i * size + k]) * slack[k] for k in range(size))
                + run.rounding.u * abs(x[i])
                + run.rounding.eta
                for i in range(size)
            ]
            columns.append((x, bound))
        for i, j in product(range(size), range(width)):
            values.append(columns[j][0][i])
            errors.append(columns[j][1][i])
        run.work += size**3
        return values, errors

    return blocks(
        batch, (size, width), [a.expand(*batch, size, size), b.expand(*batch, size, width)], compute
    )


def solve_right(a: Array, b: Array) -> Array:
    """X with X A = B."""
    return solve(a.mT, b.mT).mT


def adjoint(a: Array) -> Array:
    """Aᴴ."""
    return a.mT.conj()


def triangle(a: Array, upper: bool = False, diagonal: int = 0) -> Array:
    """The lower (or upper) triangle, on and below (above) diagonal `diagonal`."""
    gap = index_along(a.shape, -1) - index_along(a.shape, -2)
    return a.where(gap >= diagonal if upper else gap <= diagonal)


def identity(size: int) -> Array:
    """The unit matrix."""
    return Full(1.0, (size, size)).where(index_along((size, size), 0).eq(index_along((size, size), 1)))


def unit(a: Array, upper: bool) -> Array:
    """A triangle of `a` with ones on its diagonal."""
    return triangle(a, upper, 1 if upper else -1) + identity(a.shape[-1])


@vjp("LinalgSolveExBackward0")
def solve_ex(n: Site, g: Array, *_: Array | None) -> Vjp:
    """A X = B (or X A = B):  dB = A⁻ᴴ G (or G A⁻ᴴ),  dA = -dB Xᴴ (or -Xᴴ dB)."""
    a, x = n.A, n.result
    vector = x.ndim == 1 or (a.ndim - 1 == x.ndim and x.shape == a.shape[:-1])
    if vector:
        x, g = x.unsqueeze(-1), g.unsqueeze(-1)
    left = n.left or vector
    db = solve(adjoint(a), g) if left else solve_right(adjoint(a), g)
    da = -(db @ adjoint(x)) if left else -(adjoint(x) @ db)
    return [da, db.squeeze(-1) if vector else db]


@vjp("LinalgSolveTriangularBackward0")
def solve_triangular(n: Site, g: Array) -> Vjp:
    """A X = B (or X A = B), A triangular:  dB = A⁻ᴴ G,  dA = that triangle of -dB Xᴴ (or -Xᴴ dB)."""
    a, x = n.self, n.result
    whole = unit(a, n.upper) if n.unitriangular else triangle(a, n.upper)
    db = solve(adjoint(whole), g) if n.left else solve_right(adjoint(whole), g)
    da = -(db @ adjoint(x)) if n.left else -(adjoint(x) @ db)
    return [triangle(da, n.upper, (1 if n.upper else -1) if n.unitriangular else 0), db]


@vjp("TriangularSolveBackward0")
def triangular_solve(n: Site, g: Array | None, clone: Array | None) -> Vjp:
    """A X = B (or Aᵀ X = B), A triangular:  dB = A⁻ᴴ G,  dA = that triangle of -dB Xᴴ."""
    a, x = n.A, n.solution
    da: Array | None = None
    db: Array | None = None
    if g is not None:
        whole = unit(a, n.upper) if n.unitriangular else triangle(a, n.upper)
        if n.transpose:
            db = solve(whole.conj(), g)
            da = -(x.conj() @ db.mT)
        else:
            db = solve(adjoint(whole), g)
            da = -(db @ adjoint(x))
        da = triangle(da, n.upper, (1 if n.upper else -1) if n.unitriangular else 0)
    if clone is not None:
        da = clone if da is None else da + clone
    return [db, da]


# -------------------------------------------------------------------- inverse and determinant


@vjp("LinalgInvExBackward0")
def inverse(n: Site, g: Array, *_: Array | None) -> Vjp:
    """Y = A⁻¹:  dA = -Yᴴ G Yᴴ."""
    y = adjoint(n.inverse)
    return [-(y @ (g @ y))]


@vjp("LinalgDetBackward0")
def det(n: Site, g: Array, *_: Array | None) -> Vjp:
    """d = det A:  dA = g d̄ A⁻ᴴ.

    Torch solves with its own factors, to whose zeros it adds an epsilon: of a singular A nothing is claimed.
    """
    scale = (g * n.result.conj()).unsqueeze(-1).unsqueeze(-1)
    return [unless_singular(solve(adjoint(n.A), identity(n.A.shape[-1]) * scale), n.result)]


@vjp("LinalgSlogdetBackward0")
def slogdet(n: Site, sign: Array | None, log: Array | None, *_: Array | None) -> Vjp:
    """(s, l) = (d/|d|, log |d|), d = det A:  dA = (ḡ_l - i Im(ḡ_s s)) A⁻ᴴ; the first alone for real A."""
    if n.A.is_complex and sign is not None:
        turn = (sign.conj() * n.sign).imag * -1j
        log = turn if log is None else log - (sign.conj() * n.sign).imag * 1j
    if log is None:
        return [n.A * 0.0]
    scale = log.unsqueeze(-1).unsqueeze(-1)
    return [unless_singular(solve(adjoint(n.A), identity(n.A.shape[-1]) * scale), n.sign)]


def unless_singular(found: Array, known: Array) -> Array:
    """A solve, with nothing claimed where it has no number although `known` of the matrix is one."""
    return unless(found, found.ne(found) & known.eq(known).unsqueeze(-1).unsqueeze(-1))


@vjp("LinalgPinvBackward0")
def pinv(n: Site, g: Array) -> Vjp:
    """Y = A⁺:  dA = -Yᴴ G Yᴴ + (I - A Y) Gᴴ Y Yᴴ + Yᴴ Y Gᴴ (I - Y A) (Golub and Pereyra)."""
    return [pinv_gradient(n.self, n.result, g)]


def pinv_gradient(a: Array, y: Array, g: Array) -> Array:
    """dA from Y = A⁺ and its gradient G: the rule of `pinv`."""
    yh, gh = adjoint(y), adjoint(g)
    tall, wide = (gh @ y) @ yh, yh @ (y @ gh)
    return -(yh @ (g @ yh)) + (tall - a @ (y @ tall)) + (wide - (wide @ y) @ a)


@vjp("LinalgLstsqBackward0")
def lstsq(n: Site, g: Array | None, residuals: Array | None = None, *_: Array | None) -> Vjp:
    """X = A⁺ B, r = Σ |A X - B|² of each column, A of full rank:  dB = A⁺ᴴ G,  dA as for A⁺ with G Bᴴ;

    from r:  dA = 2 (A X - B) g Xᴴ,  dB = -2 (A X - B) g. The pseudo-inverse is (Aᴴ A)⁻¹ Aᴴ or Aᴴ (A Aᴴ)⁻¹.
    """
    a, b, x = n.self, n.b, n.solution
    vector = b.ndim == a.ndim - 1 and b.shape == a.shape[:-1]
    if vector:
        b, x = b.unsqueeze(-1), x.unsqueeze(-1)
        g = None if g is None else g.unsqueeze(-1)
    tall = a.shape[-2] >= a.shape[-1]
    da: Array | None = None
    db: Array | None = None
    if g is not None:
        y = solve(adjoint(a) @ a, adjoint(a)) if tall else adjoint(solve(a @ adjoint(a), a))
        da, db = pinv_gradient(a, y, g @ adjoint(b)), adjoint(y) @ g
    if residuals is not None and residuals.numel:
        rest = 2.0 * (a @ x - b) * residuals.unsqueeze(-2)
        da = rest @ adjoint(x) if da is None else da + rest @ adjoint(x)
        db = -rest if db is None else db - rest
    return [da, db.squeeze(-1) if vector and db is not None else db]
