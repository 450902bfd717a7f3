"""Rules of convolution and pooling, in any number of spatial dimensions.

Each element of a convolution's gradient is one dot of two strided boxes: the taps that touch an input
element meet the output at places that are `stride` apart, and the places that touch a weight read the
input at places `stride` apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from math import prod

from explorer.engine.array import Array
from explorer.engine.contract import Point, dots, linear
from explorer.engine.elementwise import Missing
from explorer.engine.memory import Box, Index
from explorer.engine.registry import Site, vjp
from explorer.engine.run import Run

Vjp = list[Array | None]

# -------------------------------------------------------------------- convolution


def taps(place: int, size: int, kernel: int, stride: int, padding: int, dilation: int) -> tuple[Index, Index]:
    """The (taps k, outputs o) with ``o·stride - padding + k·dilation = place`` and o within `size`."""
    found = [
        (k, (place + padding - k * dilation) // stride)
        for k in range(kernel)
        if (place + padding - k * dilation) % stride == 0
        and 0 <= (place + padding - k * dilation) // stride < size
    ]
    return tuple(k for k, _ in found), tuple(o for _, o in found)


def reach(tap: int, size: int, outputs: int, stride: int, padding: int, dilation: int) -> tuple[range, range]:
    """The (outputs o, inputs ``o·stride - padding + tap·dilation``) whose input is within `size`."""
    shift = tap * dilation - padding
    first = max(0, -(shift // stride)) if shift < 0 else 0
    last = min(outputs, (size - 1 - shift) // stride + 1)
    count = max(last - first, 0)
    start = first * stride + shift
    return range(first, first + count), range(start, start + count * stride, stride)


def correlated_input(
    g: Array, weight: Array, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    """dx[b,c,p] = Σ_{o,k} g[b,o,q] w[o,c,k] over the taps k and outputs q that meet p."""
    outputs, inputs = weight.shape[0] // groups if groups else 0, weight.shape[1]
    kernel, sizes = weight.shape[2:], g.shape[2:]

    def boxes(point: Point) -> tuple[Box, Box] | None:
        batch, channel, *place = point
        group = channel // inputs
        channels = range(group * outputs, (group + 1) * outputs)
        pairs = [taps(*args) for args in zip(place, sizes, kernel, stride, padding, dilation, strict=True)]
        if not all(ks for ks, _ in pairs) or not outputs:
            return None
        ks, qs = [k for k, _ in pairs], [q for _, q in pairs]
        return ((batch,), channels, *qs), (channels, (channel % inputs,), *ks)

    def summed(weight: Array) -> Array:
        return correlated_input(g, weight, (shape[0], 1, *shape[2:]), stride, padding, dilation, 1)

    return dots(shape, g, weight, boxes, {1: (weight, 1, summed)} if groups == 1 else {})


def correlated_weight(
    g: Array, x: Array, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    """dw[o,c,k] = Σ_{b,q} g[b,o,q] x[b,c,q·stride - padding + k·dilation]."""
    outputs = shape[0] // groups if groups else 0
    sizes, counts, batch = x.shape[2:], g.shape[2:], range(g.shape[0])

    def boxes(point: Point) -> tuple[Box, Box] | None:
        out, channel, *tap = point
        source = out // outputs * shape[1] + channel
        pairs = [reach(*args) for args in zip(tap, sizes, counts, stride, padding, dilation, strict=True)]
        if not all(qs for qs, _ in pairs) or not batch:
            return None
        return (batch, (out,), *[q for q, _ in pairs]), (batch, (source,), *[p for _, p in pairs])

    def summed_output(g: Array) -> Array:
        return correlated_weight(g, x, (1, *shape[1:]), stride, padding, dilation, 1)

    def summed_input(x: Array) -> Array:
        return correlated_weight(g, x, (shape[0], 1, *shape[2:]), stride, padding, dilation, 1)

    along = {0: (g, 1, summed_output), 1: (x, 1, summed_input)} if groups == 1 else {}
    return dots(shape, g, x, boxes, along)


def correlated_output(
    x: Array, weight: Array, shape: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    dilation: Sequence[int], groups: int,
) -> Array:  # fmt: skip
    """y[b,o,q] = Σ_{c,k} x[b,c,q·stride - padding + k·dilation] w[o,c,k]: the convolution itself."""
    outputs, inputs = weight.shape[0] // groups if groups else 0, weight.shape[1]
    kernel, sizes = weight.shape[2:], x.shape[2:]

    def boxes(point: Point) -> tuple[Box, Box] | None:
        batch, out, *place = point
        group = out // outputs
        pairs = [
            reach(q, size, k, d, p, s)
            for q, size, k, s, p, d in zip(place, sizes, kernel, stride, padding, dilation, strict=True)
        ]
        if not all(ks for ks, _ in pairs) or not inputs:
            return None
        channels = range(group * inputs, (group + 1) * inputs)
        places = [p for _, p in pairs]
        return ((batch,), channels, *places), ((out,), range(inputs), *[k for k, _ in pairs])

    def summed(weight: Array) -> Array:
        return correlated_output(x, weight, (shape[0], 1, *shape[2:]), stride, padding, dilation, 1)

    return dots(shape, x, weight, boxes, {1: (weight, 0, summed)} if groups == 1 else {})


@vjp("ConvolutionBackward0", "ConvolutionBackward1")
def convolution(n: Site, g: Array) -> Vjp:
    """y[b,o,q] = Σ_{c,k} x[b,c,q·s - p + k·d] w[o,c,k] + β[o].

    dx[b,c,p] = Σ_{o,k} g[b,o,q] w̄[o,c,k],  dw[o,c,k] = Σ_{b,q} g[b,o,q] x̄[b,c,..],  dβ = Σ_{b,q} g.
    Transposed: y is the dx of a convolution whose output is x; so dx is that convolution of g, and dw
    its dw with x and g exchanged.
    """
    spatial = g.ndim - 2
    stride, padding, dilation = (_each(value, spatial) for value in (n.stride, n.padding, n.dilation))
    args = (stride, padding, dilation, n.groups)
    dx: Array | None
    dw: Array | None
    if n.transposed:
        dx = correlated_output(g, n.weight.conj(), n.shape(0), *args) if n.needs(0) else None
        dw = correlated_weight(n.input.conj(), g, n.shape(1), *args) if n.needs(1) else None
    else:
        dx = correlated_input(g, n.weight.conj(), n.shape(0), *args) if n.needs(0) else None
        dw = correlated_weight(g, n.input.conj(), n.shape(1), *args) if n.needs(1) else None
    db = g.sum([0, *range(2, g.ndim)]) if n.needs(2) else None
    return [dx, dw, db]


def _each(value: Sequence[int], count: int) -> tuple[int, ...]:
    """One number per spatial axis; a single number stands for all."""
    return tuple(value) if len(value) == count else (value[0],) * count


# -------------------------------------------------------------------- pooling


def _windows(place: int, outputs: int, kernel: int, stride: int, padding: int, dilation: int) -> range:
    """A range that holds every window which may touch input `place`."""
    last = (place + padding) // stride
    first = -(((kernel - 1) * dilation - place - padding) // stride)
    return range(max(first, 0), min(last + 1, outputs))


@vjp("MaxPool2DWithIndicesBackward0")
def max_pool(n: Site, g: Array) -> Vjp:
    """y[q] = x[i[q]], i saved:  dx[p] = Σ g[q] over the windows q with i[q] = p: one winner a window."""
    shape, spatial = n.shape(0), 2
    kernel = _each(n.kernel_size, spatial)
    stride = _each(n.stride or n.kernel_size, spatial)  # an empty stride means the kernel's size
    padding, dilation = _each(n.padding, spatial), _each(n.dilation, spatial)
    index, lead = n.result1, len(shape) - spatial
    if isinstance(index, Missing):
        return [index]

    def terms(point: Point, run: Run) -> tuple[list[Point], None]:
        places = point[lead:]
        flat = places[0] * shape[-1] + places[1]
        spans = [
            _windows(*args)
            for args in zip(places, g.shape[lead:], kernel, stride, padding, dilation, strict=True)
        ]
        box = (*((i,) for i in point[:lead]), *spans)
        winners = index.eval(box, run)[0]
        return [
            (*point[:lead], *q) for q, winner in zip(product(*spans), winners, strict=True) if winner == flat
        ], None

    return [linear(shape, g, terms)]


@vjp("AvgPool2DBackward0", "AvgPool3DBackward0")
def avg_pool(n: Site, g: Array) -> Vjp:
    """y[q] = Σ x / m over a window:  dx[p] = Σ g[q] / m over the windows that hold p."""
    shape = n.shape(0)
    spatial = 3 if n.name.startswith("AvgPool3D") else 2
    lead = len(shape) - spatial
    kernel = _each(n.kernel_size, spatial)
    stride = _each(n.stride or n.kernel_size, spatial)
    padding = _each(n.padding, spatial)

    def area(window: Point) -> float:
        if n.divisor_override:
            return float(n.divisor_override)
        count = 1
        for q, size, k, s, p in zip(window, shape[lead:], kernel, stride, padding, strict=True):
            start, stop = q * s - p, min(q * s - p + k, size + p)
            count *= stop - start if n.count_include_pad else min(stop, size) - max(start, 0)
        return float(count)

    def terms(point: Point, run: Run) -> tuple[list[Point], list[float]]:
        spans = [
            _windows(place, size, k, s, p, 1)
            for place, size, k, s, p in zip(
                point[lead:], g.shape[lead:], kernel, stride, padding, strict=True
            )
        ]
        found = list(product(*spans))
        return [(*point[:lead], *q) for q in found], [1 / area(q) for q in found]

    return [linear(shape, g, terms)]


@vjp("AdaptiveAvgPool2DBackward0", "AdaptiveAvgPool3DBackward0")
def adaptive_avg_pool(n: Site, g: Array) -> Vjp:
    """y[q] = mean of x over [⌊q m/M⌋, ⌈(q+1) m/M⌉):  dx[p] = Σ g[q] / area over the windows that hold p."""
    shape = n.shape(0)
    spatial = 3 if n.name.startswith("AdaptiveAvgPool3D") else 2
    lead = len(shape) - spatial
    sizes, counts = shape[lead:], g.shape[lead:]

    def edges(q: int, size: int, count: int) -> tuple[int, int]:
        return q * size // count, -(-(q + 1) * size // count)

    def terms(point: Point, run: Run) -> tuple[list[Point], list[float]]:
        spans = []
        for place, size, count in zip(point[lead:], sizes, counts, strict=True):
            near = range(max(place * count // size - 1, 0), min((place + 1) * count // size + 2, count))
            spans.append([q for q in near if edges(q, size, count)[0] <= place < edges(q, size, count)[1]])
        found = list(product(*spans))
        weights = []
        for window in found:
            limits = [edges(*args) for args in zip(window, sizes, counts, strict=True)]
            weights.append(1 / prod(stop - start for start, stop in limits))
        return [(*point[:lead], *q) for q in found], weights

    return [linear(shape, g, terms)]
