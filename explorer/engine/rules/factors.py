"""Rules of matrix factorisations, inverses and solves, from the factors torch saved.

A solve is computed anew in pure Python: one inverse per matrix, bounded by |A⁻¹| |A| |X|. Everything else is
products and solves with saved factors. Aᴴ is the conjugate transpose, tril and triu keep a triangle.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from explorer.engine.array import Array, Values, broadcast_shapes
from explorer.engine.blocks import Part, blocks
from explorer.engine.elementwise import Full, Missing, index_along
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.run import Run
from explorer.engine.views import cat
from explorer.engine.views import diagonal as diagonal_of

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
    """d = det A:  dA = g d̄ A⁻ᴴ."""
    scale = (g * n.result.conj()).unsqueeze(-1).unsqueeze(-1)
    return [solve(adjoint(n.A), identity(n.A.shape[-1]) * scale)]


@vjp("LinalgSlogdetBackward0")
def slogdet(n: Site, sign: Array | None, log: Array | None, *_: Array | None) -> Vjp:
    """(s, l) = (d/|d|, log |d|), d = det A:  dA = (ḡ_l - i Im(ḡ_s s)) A⁻ᴴ; the first alone for real A."""
    if n.A.is_complex and sign is not None:
        turn = (sign.conj() * n.sign).imag * -1j
        log = turn if log is None else log - (sign.conj() * n.sign).imag * 1j
    if log is None:
        return [n.A * 0.0]
    return [solve(adjoint(n.A), identity(n.A.shape[-1]) * log.unsqueeze(-1).unsqueeze(-1))]


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


# -------------------------------------------------------------------- Cholesky


@vjp("CholeskyBackward0", "LinalgCholeskyExBackward0")
def cholesky(n: Site, g: Array, *_: Array | None) -> Vjp:
    """A = L Lᴴ:  dA = ½ L⁻ᴴ S L⁻¹, S = tril(P) + tril(P, -1)ᴴ, P = Lᴴ G. For A = Uᴴ U, L = Uᴴ."""
    factor = n.L if n.name.startswith("Linalg") else n.result
    if n.upper:
        factor, g = adjoint(factor), adjoint(g)
    p = adjoint(factor) @ g
    s = triangle(p) + adjoint(triangle(p, diagonal=-1))
    return [solve_right(factor, solve(adjoint(factor), s * 0.5))]


@vjp("CholeskyInverseBackward0")
def cholesky_inverse(n: Site, g: Array) -> Vjp:
    """Y = (L Lᴴ)⁻¹:  dL = -Y (G + Gᴴ) Y L;  for Uᴴ U:  dU = -U Y (G + Gᴴ) Y."""
    y = n.result
    common = y @ ((g + adjoint(g)) @ y)
    return [-(n.self @ common) if n.upper else -(common @ n.self)]


@vjp("CholeskySolveBackward0")
def cholesky_solve(n: Site, g: Array) -> Vjp:
    """L Lᴴ X = B:  dB = (L Lᴴ)⁻¹ G,  dL = -(dB Xᴴ + X dBᴴ) L;  for Uᴴ U:  dU = -U (dB Xᴴ + X dBᴴ)."""
    factor, x = n.input2, n.result
    lower = adjoint(factor) if n.upper else factor
    db = solve(adjoint(lower), solve(lower, g))
    if not n.needs(1):
        return [db, None]
    common = db @ adjoint(x)
    common = common + adjoint(common)
    return [db, -(factor @ common) if n.upper else -(common @ factor)]


# -------------------------------------------------------------------- LU


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


# -------------------------------------------------------------------- QR, eigenvalues, singular values


@vjp("LinalgQrBackward0")
def qr(n: Site, gq: Array | None, gr: Array | None) -> Vjp:
    """A = Q R:  dA = (dQ + Q S) R⁻ᴴ, S = T + Tᴴ with half its diagonal, T = triu(dR Rᴴ - Qᴴ dQ).

    Wide, R = (U, V):  dQ takes Q V dVᴴ more, and the columns beyond the square get Q dV.
    """
    q, r = n.Q, n.R
    k = r.shape[-2]
    if n.mode == "complete" and q.shape[-2] > r.shape[-1]:
        raise RuleError("complete QR of a tall matrix has no gradient")
    gq = Full(0.0, q.shape) if gq is None else gq
    gr = Full(0.0, r.shape) if gr is None else gr
    u, gu = r.slice(-1, 0, k), gr.slice(-1, 0, k)
    if r.shape[-1] > k:
        gv = gr.slice(-1, k)
        gq = gq + q @ (r.slice(-1, k) @ adjoint(gv))
    t = triangle(gu @ adjoint(u) - adjoint(q) @ gq, upper=True)
    s = t + adjoint(t)
    s = (s * 0.5).where(identity(k).ne(0), s)
    found = solve_right(adjoint(u), gq + q @ s)
    return [cat([found, q @ gr.slice(-1, k)], -1) if r.shape[-1] > k else found]


def _gaps(values: Array) -> Array:
    """E with E[i, j] = λ_j - λ_i, and 1 on its diagonal."""
    gap = values.unsqueeze(-2) - values.unsqueeze(-1)
    return gap.where(identity(values.shape[-1]).eq(0), 1.0)


def _with_diagonal(inner: Array | None, diagonal: Array | None, size: int) -> Array:
    """`inner` off the diagonal, `diagonal` on it; None stands for 0."""
    on = identity(size).ne(0)
    off: Array = Full(0.0, (size, size)) if inner is None else inner
    return off.where(~on) if diagonal is None else diagonal.unsqueeze(-1).where(on, off)


@vjp("LinalgEighBackward0")
def eigh(n: Site, gl: Array | None, gv: Array | None) -> Vjp:
    """A = V diag(λ) Vᴴ:  dA = V (diag(dλ) + ½ (M - Mᴴ)/E) Vᴴ, M = Vᴴ dV, E_ij = λ_j - λ_i."""
    v = n.eigenvectors
    inner = None
    if gv is not None:
        turned = adjoint(v) @ gv
        inner = (turned - adjoint(turned)) * 0.5 / _gaps(n.eigenvalues)
    return [v @ (_with_diagonal(inner, gl, v.shape[-1]) @ adjoint(v))]


@vjp("LinalgEigBackward0")
def eig(n: Site, gl: Array | None, gv: Array | None) -> Vjp:
    """A V = V diag(λ):  dA = V⁻ᴴ (diag(dλ) + (Vᴴ dV - Vᴴ V Re diag(Vᴴ dV))/Ē) Vᴴ, E_ij = λ_j - λ_i."""
    v, size = n.eigenvectors, n.eigenvectors.shape[-1]
    inner = None
    if gv is not None:
        turned = adjoint(v) @ gv
        norms = diagonal_of(turned, 0, -2, -1).real.unsqueeze(-2)
        inner = (turned - (adjoint(v) @ v) * norms) / _gaps(n.eigenvalues).conj()
    return [solve(adjoint(v), _with_diagonal(inner, gl, size) @ adjoint(v))]


@vjp("LinalgSvdBackward0")
def svd(n: Site, gu: Array | None, gs: Array | None, gvh: Array | None) -> Vjp:
    """A = U S Vᴴ:  dA = U (W(Uᴴ dU) S + S W(Vᴴ dV) + diag dS) Vᴴ, W(M) = (M - Mᴴ)/E, E_ij = s_j² - s_i²;

    what of dU lies outside U's span comes as (dU - U Uᴴ dU) S⁻¹ Vᴴ, and so for V. For complex A the
    diagonal of Uᴴ dU (which must be imaginary) is divided by 2 s.
    """
    if n.U.is_complex and (gu is not None or gvh is not None):
        raise RuleError("complex singular vectors: defined up to a phase, which their rounding turns")
    s, k = n.S, n.S.shape[-1]
    u, vh = n.U.slice(-1, 0, k), n.Vh.slice(-2, 0, k)
    gap = (s.unsqueeze(-2) - s.unsqueeze(-1)) * (s.unsqueeze(-2) + s.unsqueeze(-1))
    gap = gap.where(identity(k).eq(0), 1.0)
    row, column = s.unsqueeze(-2), s.unsqueeze(-1)
    inner: Array | None = None
    outer: Array | None = None
    diagonal = gs
    if gu is not None:
        gu = gu.slice(-1, 0, k)
        turned = adjoint(u) @ gu
        inner = (turned - adjoint(turned)) / gap * row
        if u.is_complex:
            skew = diagonal_of(turned - adjoint(turned), 0, -2, -1) / (2 * s)
            diagonal = skew if diagonal is None else diagonal + skew
        if u.shape[-2] > k:
            outer = ((gu - u @ turned) / row) @ vh
    if gvh is not None:
        gvh = gvh.slice(-2, 0, k)
        turned = gvh @ adjoint(vh)
        part = (adjoint(turned) - turned) / gap * column
        inner = part if inner is None else inner + part
        if vh.shape[-1] > k:
            rest = u @ ((gvh - turned @ vh) / column)
            outer = rest if outer is None else outer + rest
    found = u @ (_with_diagonal(inner, diagonal, k) @ vh)
    return [found if outer is None else found + outer]
