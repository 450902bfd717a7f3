"""Views: permute, slice, expand, reshape, concatenate, pad. They move indices, never elements."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from explorer.engine.array import Array, Bounded, Box, Coords, Derived
from explorer.engine.elementwise import Full, Missing
from explorer.engine.leaf import resolve_shape
from explorer.engine.memory import Values, box_points, rearrange
from explorer.engine.run import Run
from explorer.errors import ShapeError


class View(Derived):
    """A strided view of any recipe; `axes` as in `Array.window`."""

    __slots__ = ("_plain", "axes")

    def __init__(self, source: Array, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> None:
        super().__init__(shape, source)
        self.axes = tuple(axes)
        used = [axis for axis, _, _ in axes if axis >= 0]
        self._plain = len(set(used)) == len(used)  # a diagonal uses one axis twice

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        merged = []
        for axis, start, step in self.axes:
            if axis < 0:
                merged.append((-1, start, 0))
            else:
                outer, first, stride = axes[axis]
                merged.append((outer, start + step * first, step * stride))
        return View(self.source, shape, merged)

    def projected(self, axis: int, signs: Sequence[int], run: Run) -> Array | None:
        if sorted(self.axes) != [(at, 0, 1) for at in range(self.ndim)] or self.source.ndim != self.ndim:
            return None  # axes exchanged, nothing else
        place = [at for at, _, _ in self.axes].index(axis)
        found = self.source.projected(place, signs, run)
        if found is None or self.source.shape[place] != self.shape[axis]:
            return None
        shape = [1 if at == axis else size for at, size in enumerate(self.shape)]
        return found.window(shape, self.axes)

    def _box(self, box: Box, run: Run) -> Bounded:
        if not self._plain:
            return self._diagonal(box, run)
        inner: list[range | tuple[int, ...]] = []
        for axis, start, step in self.axes:
            if axis < 0:
                inner.append((start,))
                continue
            index = box[axis]
            if start == 0 and step == 1:
                inner.append(index)
            elif type(index) is range:
                first = start + step * index.start
                inner.append(range(first, first + step * index.step * len(index), step * index.step or 1))
                if step == 0:
                    inner[-1] = (start,) * len(index)
            else:
                inner.append(tuple(start + step * i for i in index))
        values, errors = self.source.eval(tuple(inner), run)
        lengths = [len(index) for index in box]
        strides = [0] * len(box)
        width = 1
        for (axis, _, _), index in zip(reversed(self.axes), reversed(inner), strict=True):
            if axis >= 0:
                strides[axis] = width
            width *= len(index)
        return rearrange(values, lengths, strides), errors and rearrange(errors, lengths, strides)

    def _diagonal(self, box: Box, run: Run) -> Bounded:
        points = list(box_points(box))
        return self.at(list(zip(*points, strict=True)), len(points), run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        inner: list[Sequence[int]] = []
        for axis, start, step in self.axes:
            if axis < 0:
                inner.append([start] * count)
            elif start == 0 and step == 1:
                inner.append(coords[axis])
            else:
                inner.append([start + step * i for i in coords[axis]])
        return self.source.at(inner, count, run)


class Reshape(Derived):
    """Another shape for the same row-major elements."""

    __slots__ = ()

    def reshape(self, *shape: int) -> Array:
        return self.source.reshape(*resolve_shape(shape, self.numel))

    def _box(self, box: Box, run: Run) -> Bounded:
        if (
            all(len(index) == size for index, size in zip(box, self.shape, strict=True))
            and box == self.full_box
        ):
            return self.source.eval(self.source.full_box, run)
        inner: list[range | tuple[int, ...]] = []
        for ours, theirs in _groups(self.shape, self.source.shape):
            part = _regroup(
                [box[axis] for axis in ours],
                [self.shape[axis] for axis in ours],
                [self.source.shape[axis] for axis in theirs],
            )
            if part is None:
                points = list(box_points(box))
                return self.at(list(zip(*points, strict=True)), len(points), run)
            inner += part
        return self.source.eval(tuple(inner), run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        inner: list[Sequence[int]] = []
        for ours, theirs in _groups(self.shape, self.source.shape):
            if len(ours) == 1 and len(theirs) == 1:
                inner.append(coords[ours[0]])
                continue
            flat = [0] * count
            for axis in ours:
                size = self.shape[axis]
                flat = [place * size + i for place, i in zip(flat, coords[axis], strict=True)]
            split: list[Sequence[int]] = []
            for axis in reversed(theirs):
                size = self.source.shape[axis]
                split.append([place % size for place in flat])
                flat = [place // size for place in flat]
            inner += reversed(split)
        return self.source.at(inner, count, run)


def _groups(left: Sequence[int], right: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """The smallest groups of axes of two shapes (of equal, non-zero numel) that hold the same elements."""
    found: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while i < len(left) or j < len(right):
        ours, theirs = [], []
        size_left = size_right = 1
        if i < len(left):
            ours.append(i)
            size_left = left[i]
            i += 1
        if j < len(right) and (size_left != 1 or i >= len(left) or right[j] == 1):
            theirs.append(j)
            size_right = right[j]
            j += 1
        while size_left != size_right:
            if size_left < size_right:
                ours.append(i)
                size_left *= left[i]
                i += 1
            else:
                theirs.append(j)
                size_right *= right[j]
                j += 1
        found.append((ours, theirs))
    return found


def _regroup(
    box: Sequence[range | tuple[int, ...]], sizes: Sequence[int], wanted: Sequence[int]
) -> list[range | tuple[int, ...]] | None:
    """The part of a box in one group of axes, over the other shape's axes; None if that is no box."""
    if len(wanted) == 1 and len(sizes) == 1:
        return [box[0]]
    if all(len(index) == size for index, size in zip(box, sizes, strict=True)):
        return [range(size) for size in wanted]
    flat = [0]
    for index, size in zip(box, sizes, strict=True):
        flat = [place * size + i for place in flat for i in index]
    if len(wanted) == 1:
        return [tuple(flat)]
    if len(flat) == 1:
        place = flat[0]
        point: list[range | tuple[int, ...]] = []
        for size in reversed(wanted):
            point.append((place % size,))
            place //= size
        return point[::-1]
    return None


class Cat(Array):
    """Several recipes one after the other along axis `dim`."""

    __slots__ = ("dim", "parts", "starts")

    def __init__(self, parts: Sequence[Array], dim: int) -> None:
        shape = list(parts[0].shape)
        self.starts: list[int] = []
        size = 0
        for part in parts:
            part.uses += 1
            self.starts.append(size)
            size += part.shape[dim]
        shape[dim] = size
        super().__init__(shape)
        self.parts = tuple(parts)
        self.dim = dim

    @property
    def is_complex(self) -> bool:
        return any(part.is_complex for part in self.parts)

    def _box(self, box: Box, run: Run) -> Bounded:
        index = box[self.dim]
        outer = prod(len(axis) for axis in box[: self.dim])
        inner = prod(len(axis) for axis in box[self.dim + 1 :])
        width = len(index) * inner
        values: Values = [0.0] * (outer * width)
        errors: list[float] = [0.0] * (outer * width)
        exact = True
        for start, part in zip(self.starts, self.parts, strict=True):
            stop = start + part.shape[self.dim]
            mine = [(place, i - start) for place, i in enumerate(index) if start <= i < stop]
            if not mine:
                continue
            wanted = tuple(i for _, i in mine)
            whole: range | tuple[int, ...] = wanted
            if wanted == tuple(range(wanted[0], wanted[0] + len(wanted))):
                whole = range(wanted[0], wanted[0] + len(wanted))
            found, error = part.eval((*box[: self.dim], whole, *box[self.dim + 1 :]), run)
            exact = exact and error is None
            for row in range(outer):
                for k, (place, _) in enumerate(mine):
                    to = row * width + place * inner
                    at = (row * len(mine) + k) * inner
                    values[to : to + inner] = found[at : at + inner]
                    if error is not None:
                        errors[to : to + inner] = error[at : at + inner]
        return values, None if exact else errors


def cat(parts: Sequence[Array], dim: int) -> Array:
    """`parts` joined along `dim`, which may be negative."""
    for part in parts:
        if isinstance(part, Missing):
            return part
    if not parts:
        raise ShapeError("cat needs at least one part")
    return Cat(parts, dim % parts[0].ndim) if len(parts) > 1 else parts[0]


def stack(parts: Sequence[Array], dim: int) -> Array:
    """`parts` of one shape joined along a new axis `dim`."""
    return cat([part.unsqueeze(dim) for part in parts], dim)


# -------------------------------------------------------------------- views by name


def _axes(source: Array) -> list[tuple[int, int, int]]:
    return [(axis, 0, 1) for axis in range(source.ndim)]


def reshape(source: Array, shape: Sequence[int]) -> Array:
    """The same elements under `shape`."""
    wanted = resolve_shape(shape, source.numel)
    if wanted == source.shape:
        return source
    if isinstance(source, Full):
        return Full(source.value, wanted)
    return Reshape(wanted, source)


def permute(source: Array, dims: Sequence[int]) -> Array:
    """Axis ``dims[i]`` becomes axis i."""
    places = [dim % source.ndim for dim in dims]
    if sorted(places) != list(range(source.ndim)):
        raise ShapeError(f"permute{tuple(dims)} of shape {source.shape}")
    axes = [(places.index(axis), 0, 1) for axis in range(source.ndim)]
    return source.window([source.shape[place] for place in places], axes)


def transpose(source: Array, first: int, second: int) -> Array:
    """Two axes swapped; a 0-d or 1-d array stays as it is where torch lets it."""
    if source.ndim == 0:
        return source
    dims = list(range(source.ndim))
    first, second = first % source.ndim, second % source.ndim
    dims[first], dims[second] = dims[second], dims[first]
    return permute(source, dims)


def unsqueeze(source: Array, dim: int) -> Array:
    """A new axis of size 1."""
    dim %= source.ndim + 1
    shape = (*source.shape[:dim], 1, *source.shape[dim:])
    return source.window(shape, [(axis + (axis >= dim), 0, 1) for axis in range(source.ndim)])


def select(source: Array, dim: int, index: int) -> Array:
    """Axis `dim` removed, at `index`."""
    dim %= source.ndim
    index %= source.shape[dim]
    shape = source.shape[:dim] + source.shape[dim + 1 :]
    axes = [(axis - (axis > dim), 0, 1) for axis in range(source.ndim)]
    axes[dim] = (-1, index, 0)
    return source.window(shape, axes)


def narrow(source: Array, dim: int, start: int, stop: int | None, step: int) -> Array:
    """Part of axis `dim`."""
    dim %= source.ndim
    part = range(source.shape[dim])[start:stop:step]
    axes = _axes(source)
    axes[dim] = (dim, part.start, part.step)
    return source.window((*source.shape[:dim], len(part), *source.shape[dim + 1 :]), axes)


def expand(source: Array, shape: Sequence[int]) -> Array:
    """Broadcast to `shape`."""
    outer = len(shape) - source.ndim
    if outer < 0:
        raise ShapeError(f"cannot expand {source.shape} to {tuple(shape)}")
    full = list(shape)
    axes = []
    for axis, size in enumerate(source.shape):
        wanted = full[outer + axis]
        if wanted in (-1, size):
            full[outer + axis] = size
            axes.append((outer + axis, 0, 1))
        elif size == 1:
            axes.append((-1, 0, 0))
        else:
            raise ShapeError(f"cannot expand {source.shape} to {tuple(shape)}")
    return source.window(full, axes)


def flip(source: Array, dims: Sequence[int]) -> Array:
    """Axes reversed; a 0-d array, whose axis torch lets one name, stays as it is."""
    if source.ndim == 0:
        return source
    axes = _axes(source)
    for dim in dims:
        dim %= source.ndim
        axes[dim] = (dim, source.shape[dim] - 1, -1)
    return source.window(source.shape, axes)


def diagonal(source: Array, offset: int = 0, first: int = 0, second: int = 1) -> Array:
    """The diagonal of two axes, as a new last axis."""
    first, second = first % source.ndim, second % source.ndim
    rows, columns = source.shape[first], source.shape[second]
    down, right = max(-offset, 0), max(offset, 0)
    length = max(min(rows - down, columns - right), 0)
    kept = [axis for axis in range(source.ndim) if axis not in (first, second)]
    axes = [(0, 0, 1)] * source.ndim
    for place, axis in enumerate(kept):
        axes[axis] = (place, 0, 1)
    axes[first] = (len(kept), down, 1)
    axes[second] = (len(kept), right, 1)
    return source.window([*[source.shape[axis] for axis in kept], length], axes)


def pad(source: Array, dim: int, before: int, after: int, value: float = 0.0) -> Array:
    """`value` before and after along `dim`; negative amounts cut elements off."""
    dim %= source.ndim
    if before < 0 or after < 0:
        stop = source.shape[dim] + min(after, 0)
        source = narrow(source, dim, max(-before, 0), max(stop, 0), 1)
    parts: list[Array] = [source]
    shape = list(source.shape)
    if before > 0:
        shape[dim] = before
        parts.insert(0, Full(value, shape))
    if after > 0:
        shape[dim] = after
        parts.append(Full(value, shape))
    return cat(parts, dim)
