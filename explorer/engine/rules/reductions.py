"""Rules of reductions: sums, means, variances, norms, extremes, cumulative sums, sorting."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, nan
from typing import Any

from explorer.engine.array import Array, Dims
from explorer.engine.contract import Elements, Point
from explorer.engine.elementwise import Full, Missing, index_along
from explorer.engine.memory import Box
from explorer.engine.reduce import resolve_dims, rounded_sum
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.arithmetic import in_range, signum
from explorer.engine.rules.indexing import scattered
from explorer.engine.run import Run

Vjp = list[Array | None]


def widened(g: Array, shape: Sequence[int], dims: Dims, keepdim: bool) -> Array:
    """`g` with the reduced axes back in place, of size 1, so that it broadcasts against `shape`."""
    if keepdim or not shape:
        return g
    axes = resolve_dims(dims, len(shape))
    return g.reshape(*[1 if axis in axes else size for axis, size in enumerate(shape)])


def reduced_count(shape: Sequence[int], dims: Dims) -> int:
    """How many elements one result was made of."""
    count = 1
    for axis in resolve_dims(dims, len(shape)):
        count *= shape[axis]
    return count


# -------------------------------------------------------------------- sums and moments


@vjp("SumBackward0", "MeanBackward0")
def total(n: Site, g: Array) -> Vjp:
    """y = Σ x:  dx = g everywhere;  y = Σ x / m:  dx = g / m."""
    g = g.reshape(*[1] * len(n.shape(0)))
    if n.name.startswith("Mean"):
        g = g / max(n.self_sym_numel, 1)
    return [g.expand(*n.shape(0))]


@vjp("SumBackward1")
def total_along(n: Site, g: Array) -> Vjp:
    """y = Σ x over dim:  dx = g along it."""
    return [widened(g, n.shape(0), n.dim, n.keepdim).expand(*n.shape(0))]


@vjp("MeanBackward1")
def mean_along(n: Site, g: Array) -> Vjp:
    """y = Σ x / m over dim:  dx = g / m along it."""
    shape = n.shape(0)
    return [(widened(g, shape, n.dim, n.keepdim) / reduced_count(shape, n.dim)).expand(*shape)]


@vjp("VarBackward0")
def var(n: Site, g: Array) -> Vjp:
    """y = Σ (x - x̄)² / (m - c):  dx = 2 g (x - x̄) / (m - c)."""
    return [_spread(n, g)]


@vjp("StdBackward0")
def std(n: Site, g: Array) -> Vjp:
    """y = √var:  dx = (g / 2y) · 2 (x - x̄) / (m - c); 0 where y = 0."""
    return [_spread(n, (g / in_range(n, n.result * 2)).where(n.result.ne(0)))]


@vjp("VarMeanBackward0")
def var_mean(n: Site, g: Array | None, mean: Array | None) -> Vjp:
    """(v, m) = (var x, mean x):  the two gradients added."""
    shape = n.self.shape
    found = None if g is None else _spread(n, g)
    if mean is not None:
        part = (widened(mean, shape, n.dim, n.keepdim) / reduced_count(shape, n.dim)).expand(*shape)
        found = part if found is None else found + part
    return [found]


def _spread(n: Site, g: Array) -> Array:
    x: Array = n.self
    degrees = reduced_count(x.shape, n.dim) - (1 if n.correction is None else n.correction)
    wide, mean = widened(g, x.shape, n.dim, n.keepdim), x.mean(n.dim, keepdim=True)
    if degrees <= 0:  # torch: infinite, whatever side of the mean
        return wide * Full(inf, x.shape).where(x.ne(mean), nan)
    return wide * (2.0 / degrees) * (x - mean)


@vjp("LinalgVectorNormBackward0")
def vector_norm(n: Site, g: Array) -> Vjp:
    """y = ‖x‖ₚ:  p = 2: g x / y; p = 1: g sign x; p = ∞: g sign x shared by the largest; 0 where y = 0."""
    return [norm_gradient(n.self, n.result, g, n.ord, n.dim, n.keepdim)]


def norm_gradient(x: Array, y: Array, g: Array, order: float, dims: Dims, keepdim: bool) -> Array:
    """The gradient of the p-norm of `x` over `dims`."""
    y = widened(y, x.shape, dims, keepdim)
    g = widened(g, x.shape, dims, keepdim)
    if order == 0:
        return (g * 0.0).expand(*x.shape)
    if order == 1:
        return g * signum(x)
    if order == 2:
        return g * (x / y).where(y.ne(0))
    if abs(order) == inf:
        # The size of a complex number is rounded, that of a real one is not.
        largest = (abs(abs(x) - y) <= y * 2e-7) if x.is_complex else abs(x).eq(y)
        return signum(x) * (g / largest.sum(dims, keepdim=True)).where(largest)
    if order < 1:
        return (x.sign() * abs(x) ** (order - 1)).where(x.ne(0)) * g * y ** (1 - order)
    if order < 2:
        return x.sign() * abs(x) ** (order - 1) * (g / y ** (order - 1)).where(y.ne(0))
    return x * abs(x) ** (order - 2) * (g / y ** (order - 1)).where(y.ne(0))


@vjp("LogsumexpBackward0")
def logsumexp(n: Site, g: Array) -> Vjp:
    """y = log Σ eˣ:  dx = g conj(exp(x - y))."""
    shape = n.self.shape
    y = widened(n.result, shape, n.dim, n.keepdim)
    return [widened(g, shape, n.dim, n.keepdim) * (n.self - y).exp().conj()]


# -------------------------------------------------------------------- extremes


@vjp("MaxBackward0", "MinBackward0")
def extreme_along(n: Site, g: Array) -> Vjp:
    """y = x[i*] along dim, i* saved:  dx = g at i*, 0 elsewhere: one index even where several tie."""
    shape = n.shape(0)
    if not shape:
        return [g]
    index = widened(n.indices, shape, n.dim, n.keepdim)
    return [widened(g, shape, n.dim, n.keepdim).where(index_along(shape, n.dim).eq(index)).expand(*shape)]


@vjp("MaxBackward1", "MinBackward1")
def extreme_of_all(n: Site, g: Array) -> Vjp:
    """y = max x:  dx = g shared evenly by all that equal y; by all nan where y is nan."""
    x, y = n.self, n.result
    mask = x.eq(y) | (x.ne(x) & y.ne(y))
    return [(g / mask.sum()).where(mask)]


@vjp("AmaxBackward0", "AminBackward0")
def extreme_over(n: Site, g: Array) -> Vjp:
    """y = max x over dim:  dx = g shared evenly by all that equal y; nan where y is nan (none equals it)."""
    return [shared(n.self, n.result, g, n.dim, n.keepdim)]


def shared(x: Array, y: Array, g: Array, dims: Any, keepdim: bool) -> Array:
    """`g` divided among the elements of `x` that equal `y`."""
    mask = x.eq(widened(y, x.shape, dims, keepdim))
    g = widened(g, x.shape, dims, keepdim)
    return g.where(mask, g * 0.0) / mask.sum(dims, keepdim=True)


# -------------------------------------------------------------------- along a line


@vjp("CumsumBackward0")
def cumsum(n: Site, g: Array) -> Vjp:
    """yᵢ = Σ_{j≤i} xⱼ:  dxⱼ = Σ_{i≥j} gᵢ."""
    if g.ndim == 0:
        return [g]
    if isinstance(g, Missing):
        return [g]
    dim, size = n.dim % g.ndim, g.shape[n.dim]

    def element(p: Point, run: Run) -> tuple[Any, float]:
        box: Box = (*((i,) for i in p[:dim]), range(p[dim], size), *((i,) for i in p[dim + 1 :]))
        terms, errors = run.terms(g, box)
        return rounded_sum(terms, errors, run) if len(terms) > 1 else (terms[0], errors[0] if errors else 0.0)

    return [Elements(g.shape, element)]


@vjp("TopkBackward0", "SortBackward0", "SortBackward1")
def sort(n: Site, g: Array) -> Vjp:
    """yₖ = x[iₖ] along dim:  dx[iₖ] = gₖ."""
    return [scattered(n.shape(0), n.dim, n.indices, g)]
