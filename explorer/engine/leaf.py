"""Leaves: recipes that read memory, through strides and without a copy."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeAlias

from explorer.engine.array import Array, Bounded, Box, Coords, Errors, Values
from explorer.engine.memory import read_window, row_major, table_of, window_axes
from explorer.engine.run import Run
from explorer.errors import ShapeError


class Leaf(Array):
    """A strided window on `memory`: element ``[i, j]`` is ``memory[offset + i*strides[0] + j*strides[1]]``.

    `memory` is a list of numbers, or a memoryview whose items are the numbers of `dtype` (for the half
    types their 16 bits, for the complex types real and imaginary parts in turn), or what reads like one and
    has many items at once, by its `many`. `errors`, when given, bounds the error of each item of `memory`.
    `address` is where the memory begins, 0 when not known.
    """

    __slots__ = ("_complex", "_pairs", "_table", "address", "dtype", "errors", "memory", "offset", "strides")

    def __init__(
        self,
        memory: Any,
        shape: Sequence[int],
        strides: Sequence[int] | None = None,
        offset: int = 0,
        dtype: str = "float64",
        errors: Errors = None,
        address: int = 0,
    ) -> None:
        super().__init__(shape)
        self.memory = memory
        self.strides = row_major(shape) if strides is None else tuple(strides)
        self.offset = offset
        self.dtype = dtype
        self.errors = errors
        self.address = address
        listed = type(memory) is list
        self._complex = dtype.startswith("complex")
        self._pairs = self._complex and not listed
        self._table = None if listed else table_of(dtype)

    @property
    def is_complex(self) -> bool:
        return self._complex

    def eval(self, box: Box, run: Run) -> Bounded:
        if not all(box):
            return [], None
        memory = self.memory
        if type(memory) is list and self.errors is None and len(box) == 1 and len(box[0]) == len(memory):
            index = box[0]
            if type(index) is range and index.start == 0 and self.strides == (1,):
                run.work += len(memory)
                return memory.copy(), None  # a small gradient, copied as a whole
        start, axes = window_axes(box, self.strides)
        start += self.offset
        if self._pairs:
            return self._read_pairs(box, run), None
        values = read_window(self.memory, start, axes)
        if self._table is not None:
            values = list(map(self._table.__getitem__, values))
        run.work += len(values)
        if self.errors is None or not run.bounds:
            return values, None
        return values, read_window(self.errors, start, axes)

    def at(self, coords: Coords, count: int, run: Run) -> Bounded:
        places = self._places(coords, count, run)
        memory = self.memory
        run.work += count
        if self._pairs:
            real = _items(memory, [2 * place for place in places])
            return list(map(complex, real, _items(memory, [2 * place + 1 for place in places]))), None
        values = _items(memory, places)
        if self._table is not None:
            values = [self._table[bits] for bits in values]
        if self.errors is None or not run.bounds:
            return values, None
        return values, [self.errors[place] for place in places]

    def _places(self, coords: Coords, count: int, run: Run) -> list[int]:
        """The item of each element; tensors of one layout, read at the same points, find them once."""
        key = (id(coords), self.strides, self.offset)
        known = run.places.get(key)
        if known is not None:
            return known[1]
        places = [self.offset] * count
        for at, stride in zip(coords, self.strides, strict=True):
            if stride:
                places = [place + i * stride for place, i in zip(places, at, strict=True)]
        run.places[key] = coords, places  # the very list of coordinates is kept, so that its id stays its own
        return places

    def _read_pairs(self, box: Box, run: Run) -> Values:
        start, axes = window_axes(box, [2 * stride for stride in self.strides])
        start += 2 * self.offset
        real = read_window(self.memory, start, axes)
        run.work += 2 * len(real)
        return list(map(complex, real, read_window(self.memory, start + 1, axes)))

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        offset = self.offset
        strides = [0] * len(shape)
        for stride, (axis, start, step) in zip(self.strides, axes, strict=True):
            offset += stride * start
            if axis >= 0:
                strides[axis] += stride * step
        return self._share(shape, strides, offset)

    def reshape(self, *shape: int) -> Array:
        wanted = resolve_shape(shape, self.numel)
        strides = reshaped_strides(self.shape, self.strides, wanted)
        return super().reshape(*wanted) if strides is None else self._share(wanted, strides, self.offset)

    def _share(self, shape: Sequence[int], strides: Sequence[int], offset: int) -> Array:
        return Leaf(self.memory, shape, strides, offset, self.dtype, self.errors, self.address)


def _items(memory: Any, places: list[int]) -> Values:
    """The items of `memory` at `places`; at once, where each one by itself would be waited for."""
    if hasattr(memory, "many"):
        values: Values = memory.many(places)
        return values
    return [memory[place] for place in places]


Layout: TypeAlias = "tuple[int, str, tuple[int, ...], tuple[int, ...]]"
"""Where an array lies: the address of its first element, dtype, shape, strides (0 along axes of size 1)."""


def layout_of(one: Array) -> Layout | None:
    """Where the numbers of a leaf lie; None for a list of numbers, and for what is computed."""
    if not isinstance(one, Leaf) or not one.address:
        return None
    item = one.memory.itemsize * (2 if one.is_complex else 1)
    steps = tuple(stride if size > 1 else 0 for size, stride in zip(one.shape, one.strides, strict=True))
    return one.address + one.offset * item, one.dtype, one.shape, steps


def same_memory(one: Array, other: Array) -> bool:
    """Whether two arrays read the very same numbers: the same memory in the same order."""
    layout = layout_of(one)
    return layout is not None and layout == layout_of(other)


def resolve_shape(shape: Sequence[int], numel: int) -> tuple[int, ...]:
    """`shape` with its one -1 replaced; raises ShapeError where the sizes do not multiply to `numel`."""
    known = 1
    for size in shape:
        if size != -1:
            known *= size
    found = tuple((numel // known if known else 0) if size == -1 else size for size in shape)
    total = 1
    for size in found:
        total *= size
    if total != numel:
        raise ShapeError(f"cannot reshape {numel} elements to {tuple(shape)}")
    return found


def reshaped_strides(
    shape: Sequence[int], strides: Sequence[int], wanted: Sequence[int]
) -> tuple[int, ...] | None:
    """Strides of the same memory under another shape, None where only a copy could do that.

    As torch's `computeStride`: axes of the old shape that continue each other form blocks, and each
    block must be split by whole new axes.
    """
    old = [(size, stride) for size, stride in zip(shape, strides, strict=True) if size != 1]
    if not old or 0 in shape:
        return row_major(wanted)
    blocks: list[list[int]] = []
    for size, stride in old:
        if blocks and blocks[-1][1] == size * stride:
            blocks[-1][0] *= size
            blocks[-1][1] = stride
        else:
            blocks.append([size, stride])
    found: list[int] = []
    room, step = blocks.pop()
    for size in reversed(wanted):
        if size == 1:
            found.append(0)
            continue
        if room == 1 and blocks:
            room, step = blocks.pop()
        if room % size:
            return None
        found.append(step)
        step *= size
        room //= size
    return tuple(reversed(found)) if room == 1 and not blocks else None


def array(data: Any) -> Leaf:
    """An array from nested lists of numbers (or a single number); raises ShapeError where ragged."""
    shape: list[int] = []
    flat: Any = [data]
    while flat and isinstance(flat[0], (list, tuple)):
        size = len(flat[0])
        if any(not isinstance(row, (list, tuple)) or len(row) != size for row in flat):
            raise ShapeError(f"ragged nested lists at depth {len(shape)}")
        shape.append(size)
        flat = list(chain.from_iterable(flat))
    dtype = "complex128" if any(isinstance(one, complex) for one in flat) else "float64"
    return Leaf(flat, shape, dtype=dtype)
