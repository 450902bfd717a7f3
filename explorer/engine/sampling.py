"""Which elements of a gradient to look at, and what looking at them proves.

In order: structured places (corners, centre, borders), places that the values themselves name (the largest,
the smallest non-zero one, a zero), the hints of a rule, and a Latin hypercube whose axis ends are forced.
Everything is deterministic: the seed comes from the node's number, never from the program's own random state.

How much is looked at is bounded in reads, not in seconds: a clock would make another report of the same
program on a busy machine, and a mistake found once might not be found again. A read (an element taken from
memory and multiplied) takes 50 to 100 ns on a typical machine. So `compare.WORK`, what a sample of one
gradient may read before no more elements are added, is about 1 ms; `DEAR`, where one element is a long sum,
about 30 ms; `MOST_READS`, at which even the fewest elements are cut down, less than half a second.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import product
from math import gcd, prod
from random import Random

Points = list[tuple[int, ...]]

MOST = 256
"""At most this many points in a Latin hypercube."""

SEEDS = 16
"""So many different samples of one shape: layers alike are looked at in different places, and yet the places
of a model with thousands of nodes are computed once."""

SCANNED = 512
"""Among so many elements, evenly spaced, the largest and the smallest are looked for."""


@lru_cache(maxsize=512)
def structured(shape: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    """First, last, centre, up to 16 corners, and every axis in turn pinned to its borders."""
    if 0 in shape:
        return ()
    first = tuple(0 for _ in shape)
    last = tuple(size - 1 for size in shape)
    centre = tuple(size // 2 for size in shape)
    found = [first, last, centre]
    wide = [axis for axis, size in enumerate(shape) if size > 1]
    if len(wide) <= 4:
        ends = [(0, size - 1) if size > 1 else (0,) for size in shape]
        found += list(product(*ends))
    else:
        for axis in wide:
            found.append((*first[:axis], last[axis], *first[axis + 1 :]))
            found.append((*last[:axis], 0, *last[axis + 1 :]))
    for axis in wide:
        found.append((*centre[:axis], 0, *centre[axis + 1 :]))
        found.append((*centre[:axis], last[axis], *centre[axis + 1 :]))
    return tuple(dict.fromkeys(found))


@lru_cache(maxsize=256)
def latin_hypercube(shape: tuple[int, ...], count: int, seed: int) -> tuple[tuple[int, ...], ...]:
    """`count` points; each axis is divided into `count` strata and every stratum is met once.

    An axis of at most `count` indices is covered whole, its first and last index always.
    """
    if 0 in shape or count <= 0:
        return ()
    random = Random(seed)
    columns: list[list[int]] = []
    for size in shape:
        if size == 1:
            columns.append([0] * count)
            continue
        # An affine map of the strata is a permutation, and ten times faster than a shuffle.
        factor = random.randrange(1, count + 1)
        while gcd(factor, count) != 1:
            factor += 1
        shift = random.randrange(count)
        strata = [(factor * i + shift) % count for i in range(count)]
        if count >= size or count == 1:
            columns.append([stratum * size // count for stratum in strata])
        else:
            jitter = random.random()
            columns.append(
                [
                    0 if s == 0 else size - 1 if s == count - 1 else int((s + jitter) * size / count)
                    for s in strata
                ]
            )
    return tuple(zip(*columns, strict=True)) if columns else ((),) * count


def plan(shape: Sequence[int], seed: int, count: int, extra: Iterable[tuple[int, ...]] = ()) -> Points:
    """At most about `count` distinct points (structured ones first come first served; `extra` always).

    The first is at the beginning, the second at the end, the third in the middle. Half of the points, at
    least, come from the hypercube.
    """
    shape = tuple(shape)
    found = _planned(shape, seed % SEEDS, count)
    if prod(shape) <= count:
        return list(found)
    added = [point for point in dict.fromkeys(extra) if _within(point, shape) and point not in found]
    if not added:
        return list(found)
    return [*found[:3], *added, *found[3:]]


def _within(point: Sequence[int], shape: tuple[int, ...]) -> bool:
    """Whether there is such an element."""
    return len(point) == len(shape) and all(0 <= i < size for i, size in zip(point, shape, strict=True))


@lru_cache(maxsize=512)
def _planned(shape: tuple[int, ...], seed: int, count: int) -> tuple[tuple[int, ...], ...]:
    if prod(shape) <= count:
        return tuple(product(*map(range, shape)))
    fixed = structured(shape)
    if len(fixed) > count // 2:
        keep = max(count // 2, 1)
        # First, last and centre always; of the others a different part for each node.
        start = 3 + seed % max(len(fixed) - 3, 1)
        fixed = (fixed[:3] + fixed[start:] + fixed[3:start])[:keep]
    points = dict.fromkeys(fixed)
    points.update(dict.fromkeys(latin_hypercube(shape, count - len(fixed), seed)))
    return tuple(points)


@lru_cache(maxsize=256)
def spread(shape: tuple[int, ...], seed: int, count: int) -> tuple[tuple[int, ...], ...]:
    """A Latin hypercube of `count` points, each once."""
    return tuple(dict.fromkeys(latin_hypercube(shape, count, seed % SEEDS)))


def stride(total: int, count: int, shape: Sequence[int]) -> int:
    """The step that meets at most `count` of `total` elements, and no column (last axis) more than others."""
    step = max(-(-total // count), 1)
    columns = shape[-1] if len(shape) > 1 else 1
    while gcd(step, columns) > 1:
        step += 1
    return step


def notable(values: Sequence[float], places: Sequence[int]) -> list[int]:
    """The places of the largest magnitude, the smallest non-zero one and a zero, as far as there are such."""
    sizes = list(map(abs, values))
    if not sizes:
        return []
    largest = max(sizes)
    found = [sizes.index(largest)]
    if 0.0 in sizes:
        found.append(sizes.index(0.0))
    smallest = min((size for size in sizes if size), default=0.0)
    if smallest:
        found.append(sizes.index(smallest))
    return [places[i] for i in dict.fromkeys(found)]


def wrong_share(compared: int, existing: int) -> float:
    """With 95 % confidence the share of wrong elements is below this, after `compared` agreed.

    (1 - p)^k = 0.05 gives p = 3/k; 0 when everything was compared.
    """
    if compared >= existing:
        return 0.0
    return min(3.0 / compared, 1.0) if compared else 1.0


def wrong_share_of_all(samples: Iterable[tuple[int, int]]) -> float:
    """The same bound for many gradients, each of which had `compared` of `existing` elements agree.

    A share p_i of each may be wrong; that none was met has the probability Π (1 - p_i)^k_i ≤ exp(-Σ k_i p_i),
    so Σ k_i p_i ≤ 3 with 95 % confidence. The largest Σ n_i p_i under that puts all wrong elements where the
    fewest of the most were looked at.
    """
    room, wrong, total = 3.0, 0.0, 0
    rows = sorted(samples, key=lambda row: row[1] / max(row[0], 1e-9), reverse=True)
    for compared, existing in rows:
        total += existing
        if compared < existing and room > 0:
            share = min(room / compared, 1.0) if compared else 1.0
            wrong += share * existing
            room -= share * compared
    return min(wrong / total, 1.0) if total else 0.0
