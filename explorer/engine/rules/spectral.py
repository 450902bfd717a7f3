"""Rules of Fourier transforms (as sums) and of pairwise distances.

`normalization` is 0 for none, 1 for 1/√n, 2 for 1/n, n the number of transformed elements.
"""

from __future__ import annotations

import cmath
from collections.abc import Sequence
from math import inf, log2, pi, prod, sqrt
from operator import add, mul, sub
from typing import Any

from explorer.engine.array import Array
from explorer.engine.blocks import Part, blocks
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Missing, index_along
from explorer.engine.registry import Site, as_complex, vjp
from explorer.engine.rounding import rounding_of
from explorer.engine.run import Run

Vjp = list[Array | None]


LONGEST = 20_000_000
"""Reads that one element may take, about two seconds: an image of 700 x 700, a line of a prime 3,000."""


def _factors(size: int) -> list[int]:
    """The prime factors, the smallest first; none of 1."""
    found, factor = [], 2
    while factor * factor <= size:
        while size % factor == 0:
            found.append(factor)
            size //= factor
        factor += 1
    return [*found, size] if size > 1 else found


def fourier(values: Sequence[Any], roots: Sequence[complex]) -> list[Any]:
    """y[k] = Σ_j x[j] w^(jk), `roots` the powers of w; n Σp steps, p the prime factors of n.

    Cooley and Tukey, from the innermost lines outwards: those of length m at stride n/m become those of
    length p m, y[k] = Σ_{r<p} w^(r k n/(pm)) y_r[k mod m].
    """
    size = len(values)
    lines, length = [[value] for value in values], 1  # line s holds x[s], x[s + stride], ..; here one each
    for factor in reversed(_factors(size)):
        stride, longer = len(lines) // factor, length * factor
        step = size // longer
        if factor == 2:
            turns = roots[: length * step : step]
            merged = []
            for even, odd in zip(lines[:stride], lines[stride:], strict=True):
                turned = list(map(mul, turns, odd))
                merged.append([*map(add, even, turned), *map(sub, even, turned)])
            lines = merged
        else:
            turns_of = [[roots[r * k * step % size] for k in range(longer)] for r in range(factor)]
            lines = [
                [
                    sum(turn[k] * lines[s + r * stride][k % length] for r, turn in enumerate(turns_of))
                    for k in range(longer)
                ]
                for s in range(stride)
            ]
        length = longer
    return lines[0] if lines else []


def transformed(x: Array, dim: int, sign: int) -> Array:
    """y[k] = Σ_j x[j] e^(sign 2πi jk/n) along `dim`; bound: (4 log₂ n + 16) u ‖x‖₁."""
    dim %= x.ndim
    size = x.shape[dim]
    work = _work(size)
    roots = [cmath.exp(sign * 2j * pi * k / size) for k in range(size)]
    x = x.transpose(dim, -1)

    def compute(run: Run, parts: Sequence[Part]) -> Part:
        values, errors = parts[0]
        weight = sum(map(abs, values)) * (4 * log2(size + 1) + 16) * run.rounding.u + sum(errors)
        run.work += work
        found = fourier(values, roots)
        return found, [weight + run.rounding.eta] * size

    return blocks(x.shape[:-1], (size,), [as_complex(x.real, x.imag)], compute).transpose(dim, -1)


def _work(size: int) -> int:
    return 2 * size * sum(_factors(size))


def transformed_all(x: Array, dims: Sequence[int], sign: int) -> Array:
    """`transformed` along each of `dims` in turn; missing where one element needs too many lines."""
    sizes = [x.shape[dim] for dim in dims]
    reads = sum(_work(size) * prod(sizes[at + 1 :]) for at, size in enumerate(sizes))
    if reads > LONGEST:
        long = " x ".join(map(str, sizes))
        return Missing(f"a Fourier transform of {long} elements takes too long in pure Python", x.shape)
    for dim in dims:
        x = transformed(x, dim, sign)
    return x


def _scaled(x: Array, normalization: int, size: int) -> Array:
    return x if normalization == 0 else x * (1 / sqrt(size) if normalization == 1 else 1 / size)


@vjp("FftC2CBackward0")
def fft(n: Site, g: Array) -> Vjp:
    """y[k] = c Σ x[j] e^(∓2πi jk/n):  dx[j] = c Σ g[k] e^(±2πi jk/n)."""
    size = prod(g.shape[dim] for dim in n.dim)
    g = transformed_all(g, n.dim, 1 if n.forward else -1)
    return [_scaled(g, n.normalization, size)]


@vjp("FftR2CBackward0")
def rfft(n: Site, g: Array) -> Vjp:
    """y[k] = c Σ x[j] e^(-2πi jk/n), x real, k up to n/2 if one-sided:  dx[j] = c Re Σ g[k] e^(2πi jk/n)."""
    shape, last = n.shape(0), n.dim[-1] % g.ndim
    if n.onesided:
        g = g.pad(last, 0, shape[last] - g.shape[last])
    g = transformed_all(g, n.dim, 1)
    return [_scaled(g.real, n.normalization, prod(shape[dim] for dim in n.dim))]


@vjp("FftC2RBackward0")
def irfft(n: Site, g: Array) -> Vjp:
    """y[j] = c Σ x[k] e^(2πi jk/n), k ≤ n/2 standing for its mirror too:  dx[k] = c w Σ g[j] e^(-2πi jk/n).

    w = 2 where k has a mirror image, else 1.
    """
    shape, last = n.shape(0), n.dim[-1] % g.ndim
    size = prod(g.shape[dim] for dim in n.dim)
    kept, length = shape[last], g.shape[last]
    g = transformed_all(g, n.dim[::-1], -1).slice(last, 0, kept)
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
