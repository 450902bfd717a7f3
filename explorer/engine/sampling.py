"""Which elements of a gradient to look at, and what looking at them proves.

In order: structured places (corners, centre, borders), a Latin hypercube whose axis ends are forced, and
the hints of a rule. Everything is deterministic: the seed comes from the node's number, never from the
program's own random state.
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


@lru_cache(maxsize=4096)
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


@lru_cache(maxsize=1024)
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

    Half of the points, at least, come from the hypercube.
    """
    shape = tuple(shape)
    total = prod(shape)
    if total <= count:
        return list(product(*map(range, shape)))
    fixed = structured(shape)
    if len(fixed) > count // 2:
        keep = max(count // 2, 1)
        # First and last always; of the others a different part for each node.
        start = seed % len(fixed)
        fixed = fixed[:2] + (fixed[start:] + fixed[:start])[: max(keep - 2, 0)]
    points = dict.fromkeys(point for point in extra if len(point) == len(shape))
    points.update(dict.fromkeys(fixed))
    points.update(dict.fromkeys(latin_hypercube(shape, count - len(fixed), seed)))
    return list(points)


def spread(shape: Sequence[int], seed: int, count: int) -> Points:
    """A Latin hypercube of `count` points, each once."""
    return list(dict.fromkeys(latin_hypercube(tuple(shape), count, seed)))


def wrong_share(compared: int, existing: int) -> float:
    """With 95 % confidence the share of wrong elements is below this, after `compared` agreed.

    (1 - p)^k = 0.05 gives p = 3/k; 0 when everything was compared.
    """
    if compared >= existing:
        return 0.0
    return min(3.0 / compared, 1.0) if compared else 1.0
