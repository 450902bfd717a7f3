"""Rules of Fourier transforms (as sums) and of pairwise distances.

`normalization` is 0 for none, 1 for 1/√n, 2 for 1/n, n the number of transformed elements.
"""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from math import inf, log2, pi, prod, sqrt

from explorer.engine.array import Array
from explorer.engine.blocks import Part, blocks
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import index_along
from explorer.engine.registry import Site, as_complex, vjp
from explorer.engine.rounding import rounding_of
from explorer.engine.run import Run

Vjp = list[Array | None]


def transformed(x: Array, dim: int, sign: int) -> Array:
    """y[k] = Σ_j x[j] e^(sign 2πi jk/n) along `dim`; bound: (4 log₂ n + 16) u ‖x‖₁."""
    dim %= x.ndim
    size = x.shape[dim]
    roots = [cmath.exp(sign * 2j * pi * k / size) for k in range(size)]
    x = x.transpose(dim, -1)

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        values, errors = parts[0]
        weight = sum(map(abs, values)) * (4 * log2(size + 1) + 16) * run.rounding.u + sum(errors)
        found = [sum(v * roots[j * k % size] for j, v in enumerate(values)) for k in range(size)]
        return found, [weight + run.rounding.eta] * size

    return blocks(x.shape[:-1], (size,), [as_complex(x.real, x.imag)], compute).transpose(dim, -1)


def _scaled(x: Array, normalization: int, size: int) -> Array:
    return x if normalization == 0 else x * (1 / sqrt(size) if normalization == 1 else 1 / size)


@vjp("FftC2CBackward0")
def fft(n: Site, g: Array) -> Vjp:
    """y[k] = c Σ x[j] e^(∓2πi jk/n):  dx[j] = c Σ g[k] e^(±2πi jk/n)."""
    size = prod(g.shape[dim] for dim in n.dim)
    for dim in n.dim:
        g = transformed(g, dim, 1 if n.forward else -1)
    return [_scaled(g, n.normalization, size)]


@vjp("FftR2CBackward0")
def rfft(n: Site, g: Array) -> Vjp:
    """y[k] = c Σ x[j] e^(-2πi jk/n), x real, k up to n/2 if one-sided:  dx[j] = c Re Σ g[k] e^(2πi jk/n)."""
    shape, last = n.shape(0), n.dim[-1] % g.ndim
    if n.onesided:
        g = g.pad(last, 0, shape[last] - g.shape[last])
    for dim in n.dim:
        g = transformed(g, dim, 1)
    return [_scaled(g.real, n.normalization, prod(shape[dim] for dim in n.dim))]


@vjp("FftC2RBackward0")
def irfft(n: Site, g: Array) -> Vjp:
    """y[j] = c Σ x[k] e^(2πi jk/n), k ≤ n/2 standing for its mirror too:  dx[k] = c w Σ g[j] e^(-2πi jk/n).

    w = 2 where k has a mirror image, else 1.
    """
    shape, last = n.shape(0), n.dim[-1] % g.ndim
    size = prod(g.shape[dim] for dim in n.dim)
    kept, length = shape[last], g.shape[last]
    for dim in reversed(n.dim):
        g = transformed(g, dim, -1)
        if dim % g.ndim == last:
            g = g.slice(last, 0, kept)
    index = index_along(g.shape, last)
    double = (index > 0) & (index < length - kept + 1)
    return [_scaled((g * 2).where(double, g), n.normalization, size)]


# -------------------------------------------------------------------- pairwise distances


def distance_slope(difference: Array, distance: Array, g: Array, order: float, u: float) -> Array:
    """g ∂‖d‖ₚ/∂d, 0 where the distance is 0. p = 1: sign d; p = ∞: sign d at the largest; else |d|^(p-1).

    `u` is the roundoff of the dtype in which torch took the differences and kept the largest.
    """
    if order == 0:
        return difference * 0.0
    if order == 1:
        return g * difference.sign()
    if order == inf:
        return (g * difference.sign()).where(abs(abs(difference) - distance) <= distance * u)
    if order == 2:
        return (g * difference / distance).where(distance.ne(0))
    slope = difference.sign() * abs(difference) ** (order - 1) * g / distance ** (order - 1)
    return slope.where(distance.ne(0) & difference.ne(0))


def _roundoff(n: Site) -> float:
    return rounding_of([spec.dtype for spec in n.outputs if spec is not None]).u


@vjp("CdistBackward0")
def cdist(n: Site, g: Array) -> Vjp:
    """y[i, j] = ‖aᵢ - bⱼ‖ₚ:  daᵢ = Σⱼ g ∂‖aᵢ - bⱼ‖,  dbⱼ = -Σᵢ g ∂‖aᵢ - bⱼ‖."""
    difference = n.x1.unsqueeze(-2) - n.x2.unsqueeze(-3)
    slope = distance_slope(difference, n.result.unsqueeze(-1), g.unsqueeze(-1), n.p, _roundoff(n))
    return [slope.sum(-2), -slope.sum(-3)]


@vjp("EuclideanDistBackward0")
def euclidean_dist(n: Site, g: Array) -> Vjp:
    """y[i, j] = ‖aᵢ - bⱼ‖, by a product:  daᵢ = aᵢ Σⱼ r - Σⱼ r bⱼ, r = g/y, 0 where y = 0; and so for b."""
    y, a, b = n.result, n.x1, n.x2
    ratio = (g / y).where(y.ne(0))
    da = a * ratio.sum(-1, keepdim=True) - ratio @ b
    return [da, b * ratio.sum(-2).unsqueeze(-1) - ratio.mT @ a]


@vjp("PdistBackward0")
def pdist(n: Site, g: Array) -> Vjp:
    """y = ‖xᵢ - xⱼ‖ₚ for i < j:  dxᵢ = Σⱼ g ∂‖xᵢ - xⱼ‖."""
    x = n.self
    rows = x.shape[0]

    def place(point: Point, run: Run) -> tuple[list[Point], None]:
        i, j = min(point[:2]), max(point[:2])
        return ([] if i == j else [(i * rows - i * (i + 1) // 2 + j - i - 1,)]), None

    both = [linear((rows, rows, 1), one, place) for one in (g, n.result)]
    slope = distance_slope(x.unsqueeze(1) - x.unsqueeze(0), both[1], both[0], n.p, _roundoff(n))
    return [slope.sum(1)]
