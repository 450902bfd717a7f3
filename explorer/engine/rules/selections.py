"""Rules of further reductions: order statistics, norms, products and cumulative functions."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any, TypeAlias

from explorer.engine.array import Array
from explorer.engine.blocks import Part, lines
from explorer.engine.contract import Elements, Point
from explorer.engine.elementwise import Missing
from explorer.engine.memory import Box, Values
from explorer.engine.registry import RuleError, Site, vjp
from explorer.engine.rules.arithmetic import in_range
from explorer.engine.rules.indexing import scattered
from explorer.engine.rules.reductions import (
    _spread,
    extreme_along,
    norm_gradient,
    reduced_count,
    shared,
    widened,
)
from explorer.engine.run import Bounded, Run

Vjp = list[Array | None]
OfLine: TypeAlias = "Callable[[int, Run, Sequence[Bounded]], tuple[Any, float]]"

STEP = 8
"""What one step along a line of products or exponentials takes, in reads."""

# -------------------------------------------------------------------- one chosen element

vjp("MedianBackward1", "NanmedianBackward1", "KthvalueBackward0", "ModeBackward0")(extreme_along)


@vjp("MedianBackward0", "NanmedianBackward0")
def median_of_all(n: Site, g: Array) -> Vjp:
    """y = median x:  dx = g shared evenly by all that equal y (by all nan, if y is nan)."""
    x, y = n.self, n.result
    hit = x.eq(y) | (x.ne(x) & y.ne(y))
    return [(g / hit.sum()).where(hit)]


@vjp("AminmaxBackward0")
def aminmax(n: Site, low: Array | None, high: Array | None) -> Vjp:
    """(a, b) = (min x, max x):  each gradient shared evenly by all that equal it."""
    parts = [
        shared(n.self, y, g, n.dim, n.keepdim)
        for y, g in ((n.saved["min"], low), (n.saved["max"], high))
        if g is not None
    ]
    return [parts[0] if len(parts) == 1 else parts[0] + parts[1]]


@vjp("CummaxBackward0", "CumminBackward0")
def cumulative_extreme(n: Site, g: Array) -> Vjp:
    """yₖ = x[iₖ] along dim, i saved:  dx[q] = Σ g over iₖ = q."""
    return [scattered(n.shape(0), n.dim, n.indices, g)]


# -------------------------------------------------------------------- sums and norms


@vjp("NansumBackward0")
def nansum(n: Site, g: Array) -> Vjp:
    """y = Σ of the x that are no nan:  dx = g there, 0 elsewhere."""
    return [widened(g, n.self.shape, n.dim, n.keepdim).where(n.self.eq(n.self))]


@vjp("StdMeanBackward0")
def std_mean(n: Site, g: Array | None, mean: Array | None) -> Vjp:
    """(s, m) = (std x, mean x):  dx = g/(2s) ∂var, 0 where s = 0, plus the mean's gradient / m."""
    shape = n.self.shape
    found = None if g is None else _spread(n, (g / in_range(n, n.result0 * 2)).where(n.result0.ne(0)))
    if mean is not None:
        part = (widened(mean, shape, n.dim, n.keepdim) / reduced_count(shape, n.dim)).expand(*shape)
        found = part if found is None else found + part
    return [found]


@vjp("NormBackward0", "NormBackward1", "NormBackward2", "NormBackward3")
def norm(n: Site, g: Array) -> Vjp:
    """y = ‖x‖ₚ (p = 2 unless given):  as for the vector norm; complex p-norms by |x|."""
    order = 2 if n.p is None else n.p
    dims, keepdim = n.saved.get("dim"), bool(n.saved.get("keepdim", False))
    return [norm_gradient(n.self, n.result, g, order, dims, keepdim)]


@vjp("DistBackward0")
def dist(n: Site, g: Array) -> Vjp:
    """y = ‖a - b‖ₚ:  da = the norm's gradient at a - b,  db = -da."""
    da = norm_gradient(n.self - n.other, n.result, g, n.p, None, False)
    return [da, -da]


# -------------------------------------------------------------------- products along a line


def _other_products(x: Values) -> Values:
    """For each element the product of all others."""
    before, after = [1.0], [1.0]
    for value in x:
        before.append(before[-1] * value)
    for value in reversed(x):
        after.append(after[-1] * value)
    return [before[k] * after[len(x) - 1 - k] for k in range(len(x))]


def _leave_one_out(run: Run, parts: Sequence[Part]) -> Part:
    """Torch stores products in the dtype, in an order of its own, and divides by x.

    Each product on the way may lose what is subnormal, or overflow (binary_kernel_reduce_vec of the dtype).
    """
    x, r = parts[0][0], run.rounding
    found = _other_products(x)
    most = prod(max(1.0, abs(value)) for value in x)
    lost = len(x) * r.eta * most if most <= r.largest else inf
    return found, [
        (len(found) + 3) * r.u * abs(value) + lost * (1 + (1 / abs(own) if own else 0.0))
        for value, own in zip(found, x, strict=True)
    ]


@vjp("ProdBackward0")
def product(n: Site, g: Array) -> Vjp:
    """y = Π x:  dxₖ = g · conj(Π of the others)."""
    flat = lines(0, [n.self.reshape(-1)], _leave_one_out)
    return [g * flat.conj().reshape(*n.self.shape)]


@vjp("ProdBackward1")
def product_along(n: Site, g: Array) -> Vjp:
    """y = Π x over dim:  dxₖ = g · conj(Π of the others)."""
    return [widened(g, n.self.shape, n.dim, n.keepdim) * lines(n.dim, [n.self], _leave_one_out).conj()]


@vjp("CumprodBackward0")
def cumprod(n: Site, g: Array) -> Vjp:
    """yᵢ = Π_{k≤i} xₖ:  dxⱼ = Σ_{i≥j} gᵢ conj(Π_{k≤i, k≠j} xₖ)."""

    def compute(j: int, run: Run, parts: Sequence[Bounded]) -> tuple[Any, float]:
        (x, _), (gs, eg) = parts
        first: Any = prod(x[:j])
        running = first
        total, weight, spread, lost, most = 0.0, 0.0, 0.0, 0.0, 0.0
        for i in range(j, len(x)):
            running = running * x[i] if i > j else running
            total = total + gs[i] * running
            weight += abs(gs[i] * running)
            spread += eg[i] * abs(running) if eg else 0.0
            lost += abs(gs[i]) + 2
            most = max(most, abs(running * x[j]), weight * abs(x[j]))
        # Torch sums g y and divides by x: y, g y and their sum are each stored, and lose what is subnormal.
        lost *= run.rounding.eta * (1 / abs(x[j]) if x[j] else 1 + abs(first))
        if most > run.rounding.largest:
            return total, inf  # what torch divides has overflowed
        return total, 2 * (len(x) + 4) * run.rounding.u * weight + spread + lost + run.rounding.eta

    return [_each_of_line(n.dim, [n.self.conj(), g], compute)]


@vjp("LogcumsumexpBackward0")
def logcumsumexp(n: Site, g: Array) -> Vjp:
    """yᵢ = log Σ_{k≤i} e^xₖ:  dxⱼ = Σ_{i≥j} gᵢ conj(exp(xⱼ - yᵢ)); torch takes logarithms of g on its way."""
    if n.self.is_complex:
        raise RuleError("logcumsumexp of complex numbers: torch's branch of the logarithm is not followed")

    def compute(j: int, run: Run, parts: Sequence[Bounded]) -> tuple[Any, float]:
        (x, _), (y, _), (gs, eg) = parts
        size = len(x)
        weights = [_exp(x[j] - y[i]) for i in range(j, size)]
        terms = [gs[i] * w for i, w in zip(range(j, size), weights, strict=True)]
        # The exponents are differences of numbers of this size, each rounded.
        depth = max((abs(x[j]) + abs(y[i]) + abs(_log(gs[i])) for i in range(j, size)), default=0.0)
        weight = sum(map(abs, terms))
        spread = sum(eg[i] * w for i, w in zip(range(j, size), weights, strict=True)) if eg else 0.0
        error = (2 * size + 8 + 4 * depth) * run.rounding.u * weight + spread + run.rounding.eta
        return sum(terms), error

    return [_each_of_line(n.dim, [n.self, n.result, g.reshape(*n.self.shape)], compute)]


def _each_of_line(dim: int, operands: Sequence[Array], compute: OfLine) -> Array:
    """Element j of each line along `dim` is ``compute(j, run, the lines of the operands)``.

    The elements asked for are computed one by one: each takes as much as its line is long.
    """
    shape = operands[0].shape
    if not shape:
        return _each_of_line(0, [one.reshape(1) for one in operands], compute).reshape()
    dim %= len(shape)
    for one in operands:
        one.uses += 2  # points of one line read it once
        if isinstance(one, Missing):
            return one

    def element(point: Point, run: Run) -> tuple[Any, float]:
        box: Box = (*((i,) for i in point[:dim]), range(shape[dim]), *((i,) for i in point[dim + 1 :]))
        run.work += STEP * shape[dim]
        return compute(point[dim], run, [one.eval(box, run) for one in operands])

    return Elements(shape, element)


def _exp(x: float) -> float:
    return math.exp(x) if x < 700 else math.inf


def _log(x: float) -> float:
    return math.log(abs(x)) if x else 0.0
