"""Convolutions of any number of dimensions, strides, paddings, dilations and groups, also transposed.

With y the places of the strided side (the output; for a transposed one the input) and u those of the
kernel, output y and input x meet where x = y·stride + u·dilation − padding.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from math import prod

from explorer.arithmetic.block import LARGEST, Block
from explorer.arithmetic.rules import Case, Worked, rule, total

__all__ = ["convolution"]

Place = tuple[int, ...]


@rule("convolution convolution_overrideable cudnn_convolution mkldnn_convolution _slow_conv2d_forward")
def convolution(case: Case) -> Worked | None:
    """Weight: Σ G·input over batch and places; input: Σ G·weight over the kernels over it; bias: Σ G."""
    if case.argument == "bias":
        return total((one,) for one in case.given.read(None, case.place[0]))
    geometry = _Geometry(case)
    if case.argument == "weight":
        return total(geometry.weight_terms(case))
    return total(geometry.input_terms(case))


class _Geometry:
    """How the places of one convolution meet."""

    def __init__(self, case: Case) -> None:
        self.dimensions = len(case.given.shape) - 2
        self.stride = case.whole_numbers("stride", self.dimensions, 1)
        self.padding = case.whole_numbers("padding", self.dimensions, 0)
        self.dilation = case.whole_numbers("dilation", self.dimensions, 1)
        (self.groups,) = case.whole_numbers("groups", 1, 1)
        self.transposed = case.flag("transposed")

    def meeting(self, y: Place, u: Place, sizes: Place) -> Place | None:
        """The wide place that strided place `y` and kernel place `u` meet in; None outside."""
        x = tuple(
            a * s + b * d - p
            for a, b, s, d, p in zip(y, u, self.stride, self.dilation, self.padding, strict=True)
        )
        return x if all(0 <= one < size for one, size in zip(x, sizes, strict=True)) else None

    def strided(self, x: Place, u: Place, sizes: Place) -> Place | None:
        """The strided place that wide place `x` and kernel place `u` belong to; None if there is none."""
        found = []
        for a, b, s, d, p, size in zip(x, u, self.stride, self.dilation, self.padding, sizes, strict=True):
            y, rest = divmod(a + p - b * d, s)
            if rest or not 0 <= y < size:
                return None
            found.append(y)
        return tuple(found)

    def weight_terms(self, case: Case) -> Iterator[tuple[float, float]]:
        """G·input for every pair of places that this weight joins."""
        first, second, *u = case.place
        per_group = case.shape[0] // self.groups
        source = case.need("input")
        # a weight is [out, in of its group, …]; of a transposed convolution [in, out of its group, …]
        other = first // per_group * case.shape[1] + second
        small, wide = (source, case.given) if self.transposed else (case.given, source)
        sizes = small.shape[2:]
        if small.shape[0] * prod(sizes) > LARGEST:
            raise LookupError("too many terms for one element")
        joined = self.joined(tuple(u), sizes, wide.shape[2:])
        if joined is None:
            return
        for n in range(small.shape[0]):
            narrow, broad = small.read(n, first, *joined[0]), wide.read(n, other, *joined[1])
            yield from zip(broad, narrow, strict=True) if self.transposed else zip(narrow, broad, strict=True)

    def joined(
        self, u: Place, small: Place, wide: Place
    ) -> tuple[tuple[slice, ...], tuple[slice, ...]] | None:
        """The places of the strided side that kernel place `u` joins, and of the wide side; None: none."""
        found = []
        for b, s, d, p, size, width in zip(
            u, self.stride, self.dilation, self.padding, small, wide, strict=True
        ):
            shift = b * d - p  # y meets y·s + shift
            first, last = max(0, -(shift // s)), min(size - 1, (width - 1 - shift) // s)
            if last < first:
                return None
            found.append((slice(first, last + 1), slice(first * s + shift, last * s + shift + 1, s)))
        return tuple(one for one, _ in found), tuple(one for _, one in found)

    def input_terms(self, case: Case) -> Iterator[tuple[float, float]]:
        """G·weight for every output that this input pixel went into."""
        n, channel, *x = case.place
        weight = case.need("weight")
        channels = self.channels(case, weight, channel)
        for u in product(*map(range, weight.shape[2:])):
            sizes = case.given.shape[2:]
            place = self.meeting(tuple(x), u, sizes) if self.transposed else self.strided(tuple(x), u, sizes)
            if place is None:
                continue
            given = case.given.read(n, channels, *place)
            kernel = self.kernel(weight, channel, channels, u, case)
            yield from zip(given, kernel, strict=True)

    def channels(self, case: Case, weight: Block, channel: int) -> slice:
        """The output channels that input channel `channel` goes into."""
        if self.transposed:
            group, per = channel // (weight.shape[0] // self.groups), weight.shape[1]
        else:
            group, per = channel // weight.shape[1], weight.shape[0] // self.groups
        return slice(group * per, (group + 1) * per)

    def kernel(self, weight: Block, channel: int, channels: slice, u: Place, case: Case) -> list[float]:
        """The weights between one input channel and its output channels, at kernel place `u`."""
        if self.transposed:
            return weight.read(channel, None, *u)
        return weight.read(channels, channel % weight.shape[1], *u)
