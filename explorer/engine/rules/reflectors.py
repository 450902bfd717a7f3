"""Rules of the matrix exponential and of products of Householder reflectors, computed a matrix at a time.

Each result comes with the same recursion over absolute values, which is what its rounding is measured by.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf, log2
from typing import Any, TypeAlias

from explorer.engine.array import Array
from explorer.engine.blocks import Part, blocks
from explorer.engine.elementwise import Missing
from explorer.engine.memory import Values
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.solving import adjoint
from explorer.engine.run import Run

Vjp = list[Array | None]
Rows: TypeAlias = "list[list[Any]]"
"""A matrix as a list of rows of real or complex numbers."""

LARGEST = 24
"""Matrices of more rows are left unchecked: each product of two costs n³ steps of Python."""


def _rows(values: Values, width: int) -> Rows:
    return [list(values[i : i + width]) for i in range(0, len(values), width)]


def _product(a: Rows, b: Rows) -> Rows:
    columns = list(zip(*b, strict=True))
    return [[sum(p * q for p, q in zip(row, column, strict=True)) for column in columns] for row in a]


def _sum(a: Rows, b: Rows, factor: float = 1.0) -> Rows:
    return [[p + factor * q for p, q in zip(r, s, strict=True)] for r, s in zip(a, b, strict=True)]


def _sizes(a: Rows) -> Rows:
    return [[abs(x) for x in row] for row in a]


# -------------------------------------------------------------------- the matrix exponential


def exponential_slope(x: Rows, g: Rows) -> Rows:
    """L = ∫₀¹ e^{sX} G e^{(1-s)X} ds, the derivative of eˣ along G: Taylor's series of X/2ˢ, squared s times.

    For E = eˣ: the series of L is Σ (Dₖ)/k!, Dₖ₊₁ = X Dₖ + G Xᵏ; squaring takes L to E L + L E.
    """
    norm = max((sum(abs(v) for v in row) for row in x), default=0.0)
    halvings = max(0, ceil(log2(norm)) + 1) if norm > 0.5 else 0
    scale = 0.5**halvings
    x = [[v * scale for v in row] for row in x]
    size = len(x)
    power: Rows = [[1.0 if i == j else 0.0 for j in range(size)] for i in range(size)]
    whole, slope = power, [[v * scale for v in row] for row in g]
    g = slope
    term = g
    power = x
    whole = _sum(whole, x)
    factorial = 1.0
    for k in range(2, 20):
        factorial *= k
        term = _sum(_product(x, term), _product(g, power))
        power = _product(x, power)
        slope = _sum(slope, term, 1 / factorial)
        whole = _sum(whole, power, 1 / factorial)
    for _ in range(halvings):
        slope = _sum(_product(whole, slope), _product(slope, whole))
        whole = _product(whole, whole)
    return slope


@vjp("LinalgMatrixExpBackward0")
def matrix_exp(n: Site, g: Array) -> Vjp:
    """Y = e^A:  dA = ∫₀¹ e^{sAᴴ} G e^{(1-s)Aᴴ} ds; bound (32 + 8 n) u times the same of |A| and |G|."""
    size = g.shape[-1]
    if size > LARGEST:
        return [Missing(f"the exponential of a matrix of {size} rows is too large for pure Python", g.shape)]

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (x, _), (upstream, errors) = parts
        found = exponential_slope(_rows(x, size), _rows(upstream, size))
        run.work += 40 * size**3
        if not run.bounds:
            return [v for row in found for v in row], [0.0] * len(x)
        wide = _rows([abs(v) for v in x], size)
        weight = exponential_slope(wide, _rows([abs(v) for v in upstream], size))
        carried = exponential_slope(wide, _rows(errors, size)) if any(errors) else None
        most = max((v for row in weight for v in row), default=0.0)
        bounds = [
            ((32 + 8 * size) * v + 4 * most) * run.rounding.u + run.rounding.eta for r in weight for v in r
        ]
        if carried is not None:
            bounds = [b + e for b, e in zip(bounds, (v for row in carried for v in row), strict=True)]
        return [v for row in found for v in row], bounds

    return [blocks(g.shape[:-2], (size, size), [adjoint(n.self), g], compute)]


# -------------------------------------------------------------------- reflectors


def _reflected(vectors: Rows, taus: Sequence[Any], order: Sequence[int], x: Rows) -> Rows:
    """H x for each reflector H = 1 - τ v vᴴ in `order`."""
    for i in order:
        v, tau = vectors[i], taus[i]
        along = [sum(_bar(p) * q for p, q in zip(v, column, strict=True)) for column in zip(*x, strict=True)]
        x = [[q - tau * p * a for q, a in zip(row, along, strict=True)] for p, row in zip(v, x, strict=True)]
    return x


def _bar(x: Any) -> Any:
    return x.conjugate() if isinstance(x, complex) else x


def _columns_of(source: Rows, count: int) -> Rows:
    """The vectors of reflectors: column i of `source` below the diagonal, 1 on it, 0 above."""
    size = len(source)
    return [[source[r][i] if r > i else float(r == i) for r in range(size)] for i in range(count)]


def reflector_gradients(
    source: Rows, taus: Sequence[Any], g: Rows, bound: bool = False
) -> tuple[Rows, Values]:
    """The gradients for `source` and `taus` of Q = H₁ ⋯ Hₖ (its first columns), whose own gradient is `g`.

    With L = H₁⋯Hᵢ₋₁, R = Hᵢ₊₁⋯Hₖ and M = Lᴴ G Rᴴ:  dτᵢ = -vᴴ M v,  dvᵢ = -(τ̄ M v + τ Mᴴ v). With
    `bound`, every number is taken for its size and every difference for a sum.
    """
    size, width, count = len(source), len(g[0]), len(taus)
    vectors = _columns_of(source, count)
    turned = [_bar(tau) for tau in taus]
    if bound:
        turned = taus = [-abs(tau) for tau in taus]
        vectors, g = _sizes(vectors), _sizes(g)
    adjoint_rows = [[_bar(g[r][c]) for r in range(size)] for c in range(width)]
    found: Rows = [[0.0] * len(source[0]) for _ in source]
    slopes: Values = []
    for i in range(count):
        v = [[p] for p in vectors[i]]
        right = _reflected(vectors, turned, range(i + 1, count), v)[:width]  # Rᴴ v
        forth = _reflected(vectors, turned, range(i), _product(g, right))  # M v
        left = _reflected(vectors, taus, range(i - 1, -1, -1), v)  # L v
        back = _product(adjoint_rows, left) + [[0.0]] * (size - width)
        behind = _reflected(vectors, taus, range(count - 1, i, -1), back)  # Mᴴ v
        sign = 1 if bound else -1
        slopes.append(sign * sum(_bar(p) * m[0] for p, m in zip(vectors[i], forth, strict=True)))
        one, two = (abs(taus[i]), abs(taus[i])) if bound else (_bar(taus[i]), taus[i])
        for r in range(i + 1, size):
            found[r][i] = sign * (one * forth[r][0] + two * behind[r][0])
    return found, slopes


def _amplified(vectors: Rows, taus: Sequence[Any]) -> float:
    """How much torch's way, which undoes one reflector after the other, may enlarge an error."""
    found = 1.0
    for v, tau in zip(vectors, taus, strict=True):
        size = abs(1 - tau * sum(abs(p) ** 2 for p in v))  # the eigenvalue of 1 - τ v vᴴ on v
        found *= max(size, 1 / size) if size else inf
    return found


def _factor_gradients(source: Array, tau: Array, g: Array) -> Vjp:
    """The gradients for reflectors (..., m, n) and τ (..., k) from that of their product."""
    rows, width = source.shape[-2:]
    count, columns = tau.shape[-1], g.shape[-1]
    if max(rows, width) > LARGEST:
        return [Missing(f"reflectors of {rows} rows are too many for pure Python", source.shape)] * 2

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (a, _), (t, _), (up, errors) = parts
        matrix, upstream = _rows(a, width), _rows(up, columns)
        found, slopes = reflector_gradients(matrix, t, upstream)
        run.work += 8 * count * count * rows
        values = [v for row in found for v in row] + slopes
        if not run.bounds:
            return values, [0.0] * len(values)
        u = run.rounding.u * (4 * (rows + count) + 32) * _amplified(_columns_of(matrix, count), t)
        wide = [abs(v) + e / u for v, e in zip(up, errors, strict=True)]
        sizes, steep = reflector_gradients(matrix, t, _rows(wide, columns), bound=True)
        most = max([v for row in sizes for v in row] + steep, default=0.0)
        return values, [u * most + run.rounding.eta if v or u == inf else 0.0 for v in values]

    both = blocks(source.shape[:-2], (rows * width + count,), [source, tau, g], compute)
    return [both.slice(-1, 0, rows * width).reshape(*source.shape), both.slice(-1, rows * width)]


@vjp("LinalgHouseholderProductBackward0")
def householder_product(n: Site, g: Array) -> Vjp:
    """Q = H₁ ⋯ Hₖ, Hᵢ = 1 - τᵢ vᵢ vᵢᴴ:  see `reflector_gradients`."""
    return _factor_gradients(n.input, n.tau, g)


@vjp("OrmqrBackward0")
def ormqr(n: Site, g: Array) -> Vjp:
    """Y = Q C, Qᴴ C, C Q or C Qᴴ:  dC = Qᴴ G, Q G, G Qᴴ, G Q;  dQ = G Cᴴ, C Gᴴ, Cᴴ G, Gᴴ C."""
    source, tau, c = n.self, n.input2, n.input3
    size = source.shape[-2]
    if size > LARGEST:
        return [Missing(f"reflectors of {size} rows are too many for pure Python", g.shape)] * 3
    if n.left:
        dq = c @ adjoint(g) if n.transpose else g @ adjoint(c)
    else:
        dq = adjoint(g) @ c if n.transpose else adjoint(c) @ g
    found = _factor_gradients(source, tau, dq) if n.needs(0) or n.needs(1) else [None, None]
    if not n.needs(2):
        return [*found, None]
    q = _whole(source, tau)
    turned = q if n.transpose else adjoint(q)
    return [*found, turned @ g if n.left else g @ turned]


def _whole(source: Array, tau: Array) -> Array:
    """All of Q, square."""
    rows, width = source.shape[-2:]
    count = tau.shape[-1]

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        (a, _), (t, _) = parts
        vectors = _columns_of(_rows(a, width), count)
        eye: Rows = [[float(i == j) for j in range(rows)] for i in range(rows)]
        found = _reflected(vectors, t, range(count - 1, -1, -1), eye)
        sizes = _reflected(_sizes(vectors), [-abs(tau) for tau in t], range(count - 1, -1, -1), eye)
        run.work += 2 * count * rows * rows
        factor = (2 * rows + 4 * count + 8) * run.rounding.u
        return [v for row in found for v in row], [
            factor * v + run.rounding.eta for row in sizes for v in row
        ]

    return blocks(source.shape[:-2], (rows, rows), [source, tau], compute)
