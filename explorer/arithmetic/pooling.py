"""Pooling: the largest of a window takes its gradient, or all of the window share it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from explorer.arithmetic.rules import Case, Worked, rule, total

__all__ = ["adaptive_average", "average", "largest"]


@rule("max_pool2d_with_indices max_pool3d_with_indices adaptive_max_pool2d adaptive_max_pool3d")
def largest(case: Case) -> Worked | None:
    """Σ G over the windows whose largest element this was."""
    indices = case.need("result1")
    dimensions = len(case.need("self").shape) - (len(case.shape) - _spatial(case))
    spatial = case.shape[len(case.shape) - dimensions :]
    own = 0
    for one, size in zip(case.place[-dimensions:], spatial, strict=True):
        own = own * size + one
    lead = case.place[: len(case.place) - dimensions]
    chosen = indices.read(*lead)
    wins = [g for g, index in zip(case.given.read(*lead), chosen, strict=True) if int(index) == own]
    if not wins:
        return None
    said = total((g,) for g in wins)
    value = sum(wins)
    text = said.text if said else f"{value:.4g}"
    windows = "1 window" if len(wins) == 1 else f"{len(wins)} windows"
    return Worked(f"{text}, the largest of {windows}", value)


def _spatial(case: Case) -> int:
    return 3 if "3" in case.node.name else 2


@rule("avg_pool2d avg_pool3d")
def average(case: Case) -> Worked | None:
    """Σ G/n over the windows the element lies in, n the elements a window is divided by."""
    dimensions = _spatial(case)
    sizes = case.whole_numbers("kernel_size", dimensions)
    steps = case.whole_numbers("stride", dimensions) if case.setting("stride") else sizes
    padding = case.whole_numbers("padding", dimensions, 0)
    divisor = case.setting("divisor_override")
    lead, own = case.place[:-dimensions], case.place[-dimensions:]
    spatial, outside = case.shape[-dimensions:], case.given.shape[-dimensions:]
    terms = []
    for place in product(*map(range, outside)):
        begins = [y * s - p for y, s, p in zip(place, steps, padding, strict=True)]
        ends = [min(b + k, n + p) for b, k, n, p in zip(begins, sizes, spatial, padding, strict=True)]
        if not all(b <= i < e for b, i, e in zip(begins, own, ends, strict=True)):
            continue
        if not case.flag("count_include_pad"):
            begins = [max(b, 0) for b in begins]
            ends = [min(e, n) for e, n in zip(ends, spatial, strict=True)]
        size = divisor[0] if divisor else prod(e - b for b, e in zip(begins, ends, strict=True))
        terms.append((case.given.at((*lead, *place)), size))
    return _shares(terms)


@rule("_adaptive_avg_pool2d _adaptive_avg_pool3d")
def adaptive_average(case: Case) -> Worked | None:
    """Σ G/n over the windows the element lies in; window y of m over N places is ⌊yN/m⌋ to ⌈(y+1)N/m⌉."""
    dimensions = _spatial(case)
    lead, own = case.place[:-dimensions], case.place[-dimensions:]
    spatial, outside = case.shape[-dimensions:], case.given.shape[-dimensions:]
    terms = []
    for place in product(*map(range, outside)):
        begins = [y * n // m for y, n, m in zip(place, spatial, outside, strict=True)]
        ends = [-(-(y + 1) * n // m) for y, n, m in zip(place, spatial, outside, strict=True)]
        if all(b <= i < e for b, i, e in zip(begins, own, ends, strict=True)):
            size = prod(e - b for b, e in zip(begins, ends, strict=True))
            terms.append((case.given.at((*lead, *place)), size))
    return _shares(terms)


def _shares(terms: Sequence[tuple[float, float]]) -> Worked | None:
    """ "0.5/4 + 0.25/4": each window's gradient divided by its size."""
    said = total((g / n,) for g, n in terms)
    if len(terms) == 1:
        ((g, n),) = terms
        return Worked(f"{g:.4g}/{n:g}", g / n)
    if said is None or len({n for _, n in terms}) > 1:
        return said
    whole = total([(g,) for g, _ in terms])
    return Worked(f"({whole.text})/{terms[0][1]:g}", said.value) if whole else None
