"""Rules of padding: by a constant, or by the input itself, reflected or held at its border."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product

from explorer.engine.array import Array
from explorer.engine.contract import Point, linear
from explorer.engine.registry import Site, vjp
from explorer.engine.run import Run

Vjp = list[Array | None]


@vjp("ConstantPadNdBackward0")
def constant_pad(n: Site, g: Array) -> Vjp:
    """y = x between constants:  dx = g without them (and 0 where x was cut off)."""
    pads = n.pad
    for place in range(len(pads) // 2):
        g = g.pad(g.ndim - 1 - place, -pads[2 * place], -pads[2 * place + 1])
    return [g]


def mirrored(place: int, size: int) -> int:
    """The index in an axis of `size` that its reflection shows at `place` (before, within or behind it)."""
    place = abs(place)
    return place if place < size else 2 * (size - 1) - place


def held(place: int, size: int) -> int:
    """The index in an axis of `size` nearest to `place`."""
    return min(max(place, 0), size - 1)


@vjp("ReflectionPad1DBackward0", "ReflectionPad2DBackward0", "ReflectionPad3DBackward0")
def reflection_pad(n: Site, g: Array) -> Vjp:
    """y[q] = x reflected at its borders:  dx[p] = Σ g[q] over the q that show p."""
    return [_unpadded(g, n.shape(0), n.padding, mirrored)]


@vjp("ReplicationPad1DBackward0", "ReplicationPad2DBackward0", "ReplicationPad3DBackward0")
def replication_pad(n: Site, g: Array) -> Vjp:
    """y[q] = the nearest x:  dx[p] = Σ g[q] over the q that show p."""
    return [_unpadded(g, n.shape(0), n.padding, held)]


def _unpadded(
    g: Array, shape: Sequence[int], padding: Sequence[int], source: Callable[[int, int], int]
) -> Array:
    """dx[p] = Σ g[q] over the q with ``source(q - before, size) == p`` on every padded axis."""
    lead = len(shape) - len(padding) // 2
    lines: list[list[list[int]]] = []
    for axis in range(lead, len(shape)):
        before = padding[2 * (len(shape) - 1 - axis)]
        line: list[list[int]] = [[] for _ in range(shape[axis])]
        for q in range(g.shape[axis]):
            line[source(q - before, shape[axis])].append(q)
        lines.append(line)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        spans = [line[place] for line, place in zip(lines, point[lead:], strict=True)]
        return [(*point[:lead], *q) for q in product(*spans)], None

    return linear(shape, g, terms)
