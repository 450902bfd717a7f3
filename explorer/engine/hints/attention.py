"""Hints of attention: rows at both ends of the causal diagonal, and zeros of a masked softmax."""

from __future__ import annotations

from math import inf

from explorer.engine.array import Array
from explorer.engine.contract import Point
from explorer.engine.hints.reading import READS, Hinted, known, read
from explorer.engine.memory import Box
from explorer.engine.registry import Site, hinted

NEAR = 512
"""So many elements of a softmax are read around the place where the diagonal would be."""


@hinted("ScaledDotProductFlashAttentionForCpuBackward0", "ScaledDotProductFlashAttentionBackward0",
        "ScaledDotProductEfficientAttentionBackward0")  # fmt: skip
def attention(n: Site, g: Array, *_: Array | None) -> Hinted:
    """Rows of Q, K and V where the diagonal of a causal mask begins and ends, and the first one beyond it.

    Query 0 sees key 0 alone. With L queries and S keys, the last query that is cut short is S - 2, and no
    query sees keys from L on.
    """
    if not n.is_causal or not known(n.query, n.key):
        return []
    queries, keys = n.query.shape[-2], n.key.shape[-2]
    wanted = [[1, keys - 2, keys - 1, keys], [1, queries - 1, queries]]
    return [
        [_row(array.shape, row) for row in dict.fromkeys(rows) if 0 <= row < array.shape[-2]]
        for array, rows in ((n.query, wanted[0]), (n.key, wanted[1]), (n.value, wanted[1]))
    ]


def _row(shape: tuple[int, ...], row: int) -> Point:
    """The middle of a row, in the middle head."""
    return (*(size // 2 for size in shape[:-2]), row, shape[-1] // 2)


@hinted("SoftmaxBackward0", "SafeSoftmaxBackward0")
def softmax(n: Site, g: Array) -> Hinted:
    """Elements that a mask made exactly 0, beside some that are not."""
    return [_masked(n.result, n.dim, 0.0)]


@hinted("LogSoftmaxBackward0")
def log_softmax(n: Site, g: Array) -> Hinted:
    """The same for its logarithm, -inf."""
    return [_masked(n.result, n.dim, -inf)]


def _masked(result: Array, dim: int, empty: float) -> list[Point]:
    """On three lines the first change from what is masked to what is not, both sides of it.

    Of a line only what is near the place whose number the row before it has (the diagonal, where the mask is
    causal) is read, and both ends.
    """
    if not known(result):
        return []
    dim %= result.ndim
    size = result.shape[dim]
    across = dim - 1 if dim else 0
    found: dict[Point, None] = {}
    for part in range(3):
        start = [length // 2 for length in result.shape]
        if dim:
            start[across] = part * (result.shape[across] - 1) // 2
        centre = start[across] if dim else size // 2
        low = max(min(centre - NEAR // 2, size - NEAR), 0)
        spans = [range(low, min(low + NEAR, size)), range(min(8, size)), range(max(size - 8, 0), size)]
        for span in spans:
            box: Box = tuple(span if axis == dim else (place,) for axis, place in enumerate(start))
            values = read(result, box)
            if empty not in values:
                continue
            changes = [k for k in range(1, len(values)) if (values[k] == empty) != (values[k - 1] == empty)]
            for k in (changes[:1] + changes[-1:]) or [0]:
                for at in (k, k - 1):
                    if at >= 0:
                        point = (*start[:dim], span[at], *start[dim + 1 :])
                        found[point] = None
    return list(found)


assert 3 * (NEAR + 16) <= READS
