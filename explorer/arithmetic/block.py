"""A tensor as the arithmetic reads it: a shape, and numbers at the places asked for.

An index has one entry per axis: a number, a slice, or None for the whole axis. What is read comes flat,
row-major.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import TypeAlias

__all__ = ["LARGEST", "Block", "Index", "blank", "flat_block", "spread"]

LARGEST = 2**15
"""More numbers than this are never read for one element, nor terms added: it takes some 50 ms."""

Index: TypeAlias = "tuple[int | slice | None, ...]"


@dataclass(frozen=True, slots=True)
class Block:
    """Numbers of a tensor of `shape`, real, read on request.

    `fetch` takes an index with an entry per axis and returns the numbers there, flat; it raises
    `LookupError` where they cannot be read.
    """

    shape: tuple[int, ...]
    fetch: Callable[[Index], Sequence[float]]

    def read(self, *index: int | slice | None) -> list[float]:
        """The numbers at `index`; axes left out at its end are read whole.

        Raises:
            LookupError: they are too many, or cannot be read.
        """
        whole: Index = (*index, *[None] * (len(self.shape) - len(index)))
        if prod(self.extent(whole)) > LARGEST:
            raise LookupError("too many numbers for one element")
        return list(map(float, self.fetch(whole)))

    def at(self, place: Sequence[int]) -> float:
        """The number at `place`."""
        return self.read(*place)[0]

    def spread_at(self, place: Sequence[int]) -> float:
        """The number that stands at `place` of a larger shape that this one is broadcast to."""
        own = place[len(place) - len(self.shape) :]
        return self.at(tuple(0 if size == 1 else i for i, size in zip(own, self.shape, strict=True)))

    def uses(self, place: Sequence[int], shape: Sequence[int]) -> list[float]:
        """The numbers at every place that the element at `place` of a smaller `shape` is broadcast to.

        In the order of `spread`.

        Raises:
            LookupError: `shape` is not broadcast to this one, or the numbers cannot be read.
        """
        missing = len(self.shape) - len(shape)
        own = (1,) * missing + tuple(shape)
        if missing < 0 or any(size not in {1, wanted} for size, wanted in zip(own, self.shape, strict=True)):
            raise LookupError(f"{tuple(shape)} is not broadcast to {self.shape}")
        where = (0,) * missing + tuple(place)
        return self.read(*(None if size == 1 else i for i, size in zip(where, own, strict=True)))

    def extent(self, index: Index) -> tuple[int, ...]:
        """How many places of each axis `index` means."""
        return tuple(
            1 if isinstance(one, int) else len(range(*(one or slice(None)).indices(size)))
            for one, size in zip(index, self.shape, strict=True)
        )


def flat_block(numbers: Sequence[float], shape: tuple[int, ...]) -> Block:
    """A block of numbers held flat, row-major.

    >>> flat_block((1.0, 2.0, 3.0, 4.0), (2, 2)).read(None, 1)
    [2.0, 4.0]
    """
    if prod(shape) != len(numbers):
        raise LookupError(f"{len(numbers)} numbers do not fill the shape {shape}")
    steps = [prod(shape[axis + 1 :]) for axis in range(len(shape))]

    def fetch(index: Index) -> list[float]:
        ranges = [
            (one,) if isinstance(one, int) else range(*(one or slice(None)).indices(size))
            for one, size in zip(index, shape, strict=True)
        ]
        return [
            numbers[sum(i * step for i, step in zip(place, steps, strict=True))] for place in product(*ranges)
        ]

    return Block(shape, fetch)


def blank(shape: tuple[int, ...]) -> Block:
    """A block of which only the shape is known."""

    def fetch(index: Index) -> list[float]:
        raise LookupError("these numbers are not known")

    return Block(shape, fetch)


def spread(
    place: tuple[int, ...], shape: tuple[int, ...], to: tuple[int, ...]
) -> list[tuple[int, ...]] | None:
    """The places of shape `to` that the element at `place` of `shape` is broadcast to; None if it is not.

    >>> spread((1,), (3,), (2, 3))
    [(0, 1), (1, 1)]
    """
    if len(shape) > len(to):
        return None
    missing = len(to) - len(shape)
    own = ((1,) * missing) + shape
    if any(size not in {1, wanted} for size, wanted in zip(own, to, strict=True)):
        return None
    if prod(to) > LARGEST * max(prod(shape), 1):
        return None
    where = (0,) * missing + place
    ranges = [range(wanted) if size == 1 else (i,) for i, size, wanted in zip(where, own, to, strict=True)]
    return list(product(*ranges))
