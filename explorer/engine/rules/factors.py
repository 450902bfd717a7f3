"""Rules of Cholesky and QR factorisations, eigenvalues and singular values, from factors that torch saved.

Aᴴ is the conjugate transpose, tril and triu keep a triangle.
Solves are those of `explorer.engine.rules.solving`.
"""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.elementwise import Full
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rules.solving import adjoint, identity, solve, solve_right, triangle
from explorer.engine.views import cat
from explorer.engine.views import diagonal as diagonal_of

Vjp = list[Array | None]

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
