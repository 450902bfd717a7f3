"""Hints of choices: masks, kinks, and the winners of reductions.

Where a gradient goes one way or the other, both sides are looked at, and the boundary if it was met.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import Point
from explorer.engine.hints.reading import (
    READS,
    Hinted,
    element,
    known,
    line,
    onto,
    read,
    run_of,
    seen,
)
from explorer.engine.registry import Site, hinted

SHORT = 256
"""Reads for hints of activations: there are many in a model, and their elements cost next to nothing."""

# -------------------------------------------------------------------- masks


@hinted("WhereBackward0", "MaskedFillBackward0", "MaskedFillBackward1", "MaskedScatterBackward0",
        "MaskedSelectBackward0", "NativeDropoutBackward0")  # fmt: skip
def masked(n: Site, g: Array) -> Hinted:
    """Elements where the mask holds and where it does not, and two neighbours of which one is masked."""
    mask = n.saved.get("mask", n.saved.get("condition", n.saved.get("result1")))
    if not known(mask):
        return []
    found = seen(mask).first(bool, lambda hit: not hit) + run_of(mask, READS).edge()
    return [
        [] if spec is None else [onto(point, spec.shape) for point in found if len(point) <= len(spec.shape)]
        for spec in n.inputs
    ]


# -------------------------------------------------------------------- kinks


def sides(x: Any, kinks: Sequence[float]) -> list[Point]:
    """An element below, above and (where one was met) at each kink."""
    found: dict[Point, None] = {}
    for some in (seen(x, SHORT), run_of(x, SHORT)) if known(x) and not x.is_complex else ():
        values = some.values
        for kink in kinks:
            if kink in values:
                found[some.point(values.index(kink))] = None
            for hits in ([v < kink for v in values], [v > kink for v in values]):
                if True in hits:
                    found[some.point(hits.index(True))] = None
        if x.numel <= SHORT:
            break
    return list(found)


@hinted("ReluBackward0")
def rectified(n: Site, g: Array) -> Hinted:
    """Where the result is 0 and where it is not."""
    return [sides(n.result, (0.0,))]


@hinted("ThresholdBackward0", "ThresholdBackward1")
def threshold(n: Site, g: Array) -> Hinted:
    """Both sides of the threshold."""
    return [sides(n.self, (n.threshold,))]


@hinted("LeakyReluBackward0", "EluBackward0", "CeluBackward0", "AbsBackward0", "PreluKernelBackward0")
def signed(n: Site, g: Array) -> Hinted:
    """Both sides of 0, and 0."""
    return [sides(n.saved.get("self"), (0.0,))]


@hinted("HardtanhBackward0")
def hardtanh(n: Site, g: Array) -> Hinted:
    """Both sides of both edges."""
    return [sides(n.self, (n.min_val, n.max_val))]


@hinted("HardsigmoidBackward0", "HardswishBackward0")
def hard(n: Site, g: Array) -> Hinted:
    """Both sides of -3 and of 3."""
    return [sides(n.self, (-3.0, 3.0))]


@hinted("HardshrinkBackward0", "SoftshrinkBackward0")
def shrunk(n: Site, g: Array) -> Hinted:
    """Both sides of what is cut out."""
    return [sides(n.self, (-n.lambd, n.lambd))]


@hinted("ClampBackward1", "ClampMinBackward0", "ClampMaxBackward0")
def clamp(n: Site, g: Array) -> Hinted:
    """Both sides of each limit."""
    limits = [n.saved[name] for name in ("min", "max") if n.saved.get(name) is not None]
    return [sides(n.self, limits)]


@hinted("MaximumBackward0", "MinimumBackward0")
def larger(n: Site, g: Array) -> Hinted:
    """Where one is larger, where the other is, and where they tie."""
    found = sides((n.self - n.other) if known(n.self, n.other) else None, (0.0,))
    return [[] if spec is None else [onto(point, spec.shape) for point in found] for spec in n.inputs]


# -------------------------------------------------------------------- winners of reductions


def _beside(point: Point, dim: int, size: int) -> list[Point]:
    """A point and its two neighbours along an axis."""
    around = (point[dim], (point[dim] + 1) % size, (point[dim] - 1) % size)
    return [(*point[:dim], i, *point[dim + 1 :]) for i in around]


@hinted("MaxBackward0", "MinBackward0", "KthvalueBackward0", "ModeBackward0", "MedianBackward1",
        "NanmedianBackward1")  # fmt: skip
def winner(n: Site, *g: Array | None) -> Hinted:
    """The chosen elements of two lines, and their neighbours."""
    shape, index = n.shape(0), n.indices
    if not shape or not known(index):
        return []
    dim = n.dim % len(shape)
    found: dict[Point, None] = {}
    for divisor in (2, 3):
        place = tuple(size // divisor for size in index.shape)
        rest = place[:dim] + place[dim + 1 :] if index.ndim == len(shape) else place
        chosen = int(element(index, place))
        found.update(dict.fromkeys(_beside((*rest[:dim], chosen, *rest[dim:]), dim, shape[dim])))
    return [list(found)]


@hinted("AmaxBackward0", "AminBackward0", "AminmaxBackward0")
def extreme(n: Site, *g: Array | None) -> Hinted:
    """The largest (smallest) of the line in the middle, ties with it, and their neighbours."""
    x, dims = n.self, n.dim
    dims = [dims] if isinstance(dims, int) else list(dims or ())
    if not known(x) or (len(dims) != 1 and x.ndim != 1):
        return []
    dim = (dims[0] if dims else 0) % x.ndim
    middle = tuple(size // 2 for size in x.shape)
    values = line(x, dim, middle)
    found: dict[Point, None] = {}
    for end in (max(values), min(values)):
        for at in (values.index(end), len(values) - 1 - values[::-1].index(end)):
            found.update(dict.fromkeys(_beside((*middle[:dim], at, *middle[dim + 1 :]), dim, x.shape[dim])))
    return [list(found)]


@hinted("MaxBackward1", "MinBackward1", "MedianBackward0", "NanmedianBackward0")
def extreme_of_all(n: Site, g: Array) -> Hinted:
    """Elements that equal the result, if some were met."""
    if not known(n.self):
        return []
    result = read(n.result, n.result.full_box)[0]
    return [seen(n.self).first(lambda value: value == result)]
