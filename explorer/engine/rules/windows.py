"""Rules of windows: cut out along an axis, laid out as columns, and the winners of pooling by saved index."""

from __future__ import annotations

from collections.abc import Sequence

from explorer.engine.array import Array
from explorer.engine.contract import Point, linear
from explorer.engine.elementwise import Full
from explorer.engine.registry import Site, vjp
from explorer.engine.rules.indexing import gathered, scattered
from explorer.engine.run import Run

Vjp = list[Array | None]

# -------------------------------------------------------------------- winners of windows


@vjp("AdaptiveMaxPool2DBackward0", "FractionalMaxPool2DBackward0", "AdaptiveMaxPool3DBackward0",
     "FractionalMaxPool3DBackward0", "MaxPool3DWithIndicesBackward0")  # fmt: skip
def max_pool(n: Site, g: Array, *_: Array | None) -> Vjp:
    """y[q] = flat x[i[q]] in each plane, i saved:  dx[p] = Σ g[q] over i[q] = p."""
    shape, spatial = n.shape(0), 3 if "3D" in n.name else 2
    lead = shape[: len(shape) - spatial]
    size = Full(0.0, shape[len(lead) :]).numel
    index = n.result1.reshape(*lead, -1)
    return [scattered((*lead, size), -1, index, g.reshape(*lead, -1)).reshape(*shape)]


@vjp("MaxUnpool2DBackward0", "MaxUnpool3DBackward0", "MaxPool2DWithIndicesBackwardBackward0",
     "MaxPool3DWithIndicesBackwardBackward0", "AdaptiveMaxPool2DBackwardBackward0",
     "AdaptiveMaxPool3DBackwardBackward0", "FractionalMaxPool2DBackwardBackward0",
     "FractionalMaxPool3DBackwardBackward0")  # fmt: skip
def max_unpool(n: Site, g: Array) -> Vjp:
    """y[i[q]] = flat x[q] in each plane:  dx[q] = flat g[i[q]]."""
    spatial = 3 if "3D" in n.name else 2
    lead = g.shape[: g.ndim - spatial]
    index = n.indices
    found = gathered(g.reshape(*lead, -1), -1, index.reshape(*lead, -1)).reshape(*index.shape)
    rest = [None if spec is None else Full(0.0, spec.shape) for spec in n.inputs[1:]]
    return [found, *rest]


# -------------------------------------------------------------------- windows cut out


@vjp("UnfoldBackward0", "UnfoldBackward0_copy")
def unfold(n: Site, g: Array) -> Vjp:
    """y[.., w, .., k] = x[.., w·step + k, ..]:  dx[p] = Σ g over the (w, k) with w·step + k = p."""
    shape = n.shape(0)
    if not shape:
        return [g.reshape()]
    dim, size, step = n.dimension % len(shape), n.size, n.step

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        place = point[dim]
        first = max(-(-(place - size + 1) // step), 0)
        windows = range(first, min(place // step + 1, g.shape[dim]))
        return [(*point[:dim], w, *point[dim + 1 :], place - w * step) for w in windows], None

    return [linear(shape, g, terms)]


def _columns(n: Site) -> tuple[Sequence[int], Sequence[int], Sequence[int], Sequence[int]]:
    return n.kernel_size, n.dilation, n.padding, n.stride


@vjp("Im2ColBackward0")
def im2col(n: Site, g: Array) -> Vjp:
    """y[c k + t, q] = x[c, q s - p + t d]:  dx[c, place] = Σ g[c k + t, q] over q s - p + t d = place."""
    shape = n.shape(0)
    kernel, dilation, padding, stride = _columns(n)
    counts = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, d, p, s in zip(shape[-2:], kernel, dilation, padding, stride, strict=True)
    ]
    lead = len(shape) - 3
    wide = g.reshape(*shape[:lead], shape[lead], *kernel, *counts)

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        pairs = [
            [
                (t, (place + p - t * d) // s)
                for t in range(k)
                if (place + p - t * d) % s == 0 and 0 <= (place + p - t * d) // s < count
            ]
            for place, k, d, p, s, count in zip(
                point[-2:], kernel, dilation, padding, stride, counts, strict=True
            )
        ]
        return [(*point[:-2], a[0], b[0], a[1], b[1]) for a in pairs[0] for b in pairs[1]], None

    return [linear(shape, wide, terms)]


@vjp("Col2ImBackward0")
def col2im(n: Site, g: Array) -> Vjp:
    """y[c, place] = Σ x[c k + t, q] over q s - p + t d = place:  dx[c k + t, q] = g[c, q s - p + t d]."""
    shape = n.shape(0)
    kernel, dilation, padding, stride = _columns(n)
    across = (g.shape[-1] + 2 * padding[1] - dilation[1] * (kernel[1] - 1) - 1) // stride[1] + 1

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        channel, tap = divmod(point[-2], kernel[0] * kernel[1])
        taps, windows = divmod(tap, kernel[1]), divmod(point[-1], across)
        places = [
            q * s - p + t * d for q, t, s, p, d in zip(windows, taps, stride, padding, dilation, strict=True)
        ]
        if any(not 0 <= place < size for place, size in zip(places, g.shape[-2:], strict=True)):
            return [], None
        return [(*point[:-2], channel, *places)], None

    return [linear(shape, g, terms)]
