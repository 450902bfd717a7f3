"""Strided windows on flat memory: the one loop that reads elements.

Memory is a `memoryview` of numbers, or a plain list. A window is a start and, per axis, either a
progression ``(count, step)`` or an explicit list of offsets. Reading a window gives its elements in
row-major order, with as few Python steps as the strides allow: neighbouring axes that continue
each other are merged, and a run is read as one slice (about 10 ns an element).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

Values: TypeAlias = list[Any]  # floats, ints, bools or complex numbers, as the memory holds them
Index: TypeAlias = "range | tuple[int, ...]"
Box: TypeAlias = tuple[Index, ...]
Axis: TypeAlias = "tuple[int, int] | list[int]"

NARROW = 4
"""So many elements between two rows are read and deleted: that is faster than a slice for each row."""

_FORMATS = {
    "float32": "f",
    "float64": "d",
    "complex64": "f",
    "complex128": "d",
    "float16": "H",
    "bfloat16": "H",
    "int64": "q",
    "int32": "i",
    "int16": "h",
    "int8": "b",
    "uint8": "B",
    "uint16": "H",
    "uint32": "I",
    "uint64": "Q",
    "bool": "?",
}
ITEM_FORMATS = _FORMATS
"""The `memoryview` format of one element (of its real or imaginary part) per dtype name."""


def _half(bits: int) -> float:
    """The float16 number with these 16 bits (IEEE 754 binary16)."""
    sign = -1.0 if bits >> 15 else 1.0
    exponent, fraction = bits >> 10 & 31, bits & 1023
    if exponent == 31:
        return sign * float("inf") if fraction == 0 else float("nan")
    if exponent == 0:
        return sign * fraction * 2.0**-24
    return float(sign * (1024 + fraction) * 2.0 ** (exponent - 25))


def _bfloat(bits: int) -> float:
    """The bfloat16 number with these 16 bits (the upper half of a float32)."""
    sign = -1.0 if bits >> 15 else 1.0
    exponent, fraction = bits >> 7 & 255, bits & 127
    if exponent == 255:
        return sign * float("inf") if fraction == 0 else float("nan")
    if exponent == 0:
        return float(sign * fraction * 2.0**-133)
    return float(sign * (128 + fraction) * 2.0 ** (exponent - 134))


_TABLES: dict[str, list[float]] = {}


def table_of(dtype: str) -> list[float] | None:
    """The 65,536 values of a half type by their bits, built on first use; None for other dtypes."""
    if dtype not in ("float16", "bfloat16"):
        return None
    if dtype not in _TABLES:
        decode = _half if dtype == "float16" else _bfloat
        _TABLES[dtype] = [decode(bits) for bits in range(65536)]
    return _TABLES[dtype]


def read_run(memory: Any, start: int, count: int, step: int) -> Values:
    """`count` elements from `start`, `step` apart (which may be zero or negative)."""
    if step == 0:
        return [memory[start]] * count
    if step < 0:
        return read_run(memory, start + (count - 1) * step, count, -step)[::-1]
    part = memory[start : start + (count - 1) * step + 1 : step]
    return part if type(part) is list else part.tolist()


def read_window(memory: Any, start: int, axes: Sequence[Axis]) -> Values:
    """The elements of a window in row-major order; `axes` as `window_axes` gives them."""
    if not axes:
        return [memory[start]]
    if len(axes) == 1 and type(axes[0]) is tuple:
        return read_run(memory, start, *axes[0])
    *outer, inner = axes
    if outer and type(outer[-1]) is tuple and type(inner) is tuple:
        gap = _gap(outer[-1], inner)
        if 0 < gap <= NARROW and gap < inner[0]:
            return _read_rows(memory, start, outer, inner, gap)
    along, longest = -1, 0
    for place, axis in enumerate(axes):
        if type(axis) is tuple and axis[0] >= longest:
            along, longest = place, axis[0]
    if along < 0:
        return [memory[place] for place in _places(start, axes)]
    if along < len(axes) - 1:
        return _read_along(memory, start, axes, along)
    count, step = inner
    found: Values = []
    for base in _places(start, outer):
        found += read_run(memory, base, count, step)
    return found


def _gap(outer: tuple[int, int], inner: tuple[int, int]) -> int:
    """How many elements lie between two rows, in steps of a row; -1 where rows are not in step."""
    (_, pitch), (count, step) = outer, inner
    return -1 if step <= 0 or pitch <= 0 or pitch % step else pitch // step - count


def _read_rows(memory: Any, start: int, outer: Sequence[Axis], inner: tuple[int, int], gap: int) -> Values:
    """Rows that all but touch: read across the gaps, and delete what fell into them."""
    count, step = inner
    rows, pitch = outer[-1] if type(outer[-1]) is tuple else (0, 0)
    starts = _places(start, outer[:-1])
    found: Values = []
    for base in starts:
        block = read_run(memory, base, (rows - 1) * (pitch // step) + count, step)
        for width in range(count + gap, count, -1):
            del block[count::width]
        found += block
    return found


def _read_along(memory: Any, start: int, axes: Sequence[Axis], along: int) -> Values:
    """The longest axis is not the last one: read each of its lines as one slice and interleave them."""
    count, step = axes[along]
    befores, afters = _places(start, axes[:along]), _places(0, axes[along + 1 :])
    width = len(afters)
    found: Values = [None] * (len(befores) * count * width)
    for row, base in enumerate(befores):
        first, stop = row * count * width, (row + 1) * count * width
        for column, offset in enumerate(afters):
            found[first + column : stop : width] = read_run(memory, base + offset, count, step)
    return found


def _places(start: int, axes: Sequence[Axis]) -> list[int]:
    """Where the elements of a window lie, in row-major order."""
    places = [start]
    for axis in axes:
        offsets = axis if type(axis) is list else [i * axis[1] for i in range(axis[0])]
        places = [place + offset for place in places for offset in offsets]
    return places


def window_axes(box: Box, strides: Sequence[int]) -> tuple[int, list[Axis]]:
    """Offset and axes of the elements of `box` in memory with these strides; the box is not empty."""
    start = 0
    axes: list[Axis] = []
    for index, stride in zip(box, strides, strict=True):
        count = len(index)
        if count == 1:
            start += index[0] * stride
        elif type(index) is range:
            start += index.start * stride
            step = index.step * stride
            last = axes[-1] if axes else None
            if type(last) is tuple and last[1] == count * step:
                axes[-1] = (last[0] * count, step)
            else:
                axes.append((count, step))
        else:
            axes.append([i * stride for i in index])
    return start, axes


def box_points(box: Box) -> list[tuple[int, ...]]:
    """The points of a box, row-major."""
    points: list[tuple[int, ...]] = [()]
    for index in box:
        points = [(*point, i) for point in points for i in index]
    return points


def listed_points(coords: Sequence[Sequence[int]], count: int) -> list[tuple[int, ...]]:
    """The `count` points whose indices are listed axis by axis; without axes, so many empty points."""
    return list(zip(*coords, strict=True)) if coords else [()] * count


def row_major(shape: Sequence[int]) -> tuple[int, ...]:
    """The strides of contiguous memory of this shape."""
    strides: list[int] = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def rearrange(values: Values, lengths: Sequence[int], strides: Sequence[int]) -> Values:
    """`values`, read as memory, over axes of these lengths and strides (0 repeats an element)."""
    axes: list[Axis] = []
    for count, step in zip(lengths, strides, strict=True):
        last = axes[-1] if axes else None
        if count == 0:
            return []
        if count == 1:
            continue
        if type(last) is tuple and last[1] == count * step:
            axes[-1] = (last[0] * count, step)
        else:
            axes.append((count, step))
    if len(axes) == 1 and axes[0] == (len(values), 1):
        return values
    return read_window(values, 0, axes)
