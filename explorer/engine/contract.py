"""Contractions: matrix products, and results whose every element is a dot of two boxes.

`Dots` serves convolutions: an element is the dot of one box of `a` with one box of `b`. `Linear` serves
pooling, resizing, indexing and scattering: an element is a weighted sum of a few elements of the source.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from math import hypot, sqrt
from operator import mul
from typing import Any, TypeAlias

from explorer.engine.array import Array, Bounded, Box, Coords, Derived, Values, broadcast_shapes
from explorer.engine.elementwise import Missing
from explorer.engine.memory import box_points, listed_points
from explorer.engine.run import Errors, Run
from explorer.errors import ShapeError

Point: TypeAlias = tuple[int, ...]
Along: TypeAlias = "Mapping[int, tuple[Array, int, Callable[[Array], Array]]]"
Boxes: TypeAlias = Callable[[Point], "tuple[Box, Box] | None"]
Terms: TypeAlias = "Callable[[Point, Run], tuple[Sequence[Point], Sequence[float] | None]]"


def rounded_dot(a: Values, b: Values, ea: Errors, eb: Errors, run: Run) -> tuple[Any, float]:
    """Σ a·b and the bound on its error, as `reduce.sum_bound` has it."""
    count = len(a)
    run.work += 2 * count
    if run.quick or not (run.bounds or run.peak is not None):
        value = sum(map(mul, a, b))
        return value, reduce.quick_bound(value, count, run) if run.bounds else 0.0
    terms = list(map(mul, a, b))
    value = sum(terms)
    if run.peak is not None:
        run.see_sum(terms)
    if not run.bounds:
        return value, 0.0
    errors: Errors = None
    if ea is not None and eb is not None:
        errors = [abs(q) * e + abs(p) * f + e * f for p, q, e, f in zip(a, b, ea, eb, strict=True)]
    elif ea is not None:
        errors = list(map(mul, map(abs, b), ea))
    elif eb is not None:
        errors = list(map(mul, map(abs, a), eb))
    return value, reduce.sum_bound(value, terms, errors, run, run.rounding.product)


class MatMul(Array):
    """Batched matrix product of two recipes of at least two axes; batch axes broadcast."""

    __slots__ = ("_columns", "_rows")

    def __init__(self, rows: Array, columns: Array, shape: Sequence[int]) -> None:
        super().__init__(shape)
        rows.uses += 1
        columns.uses += 1
        self._rows = rows  # (..., I, K)
        self._columns = columns  # (..., J, K): the second operand transposed, so that columns are runs

    @property
    def is_complex(self) -> bool:
        return self._rows.is_complex or self._columns.is_complex

    def _box(self, box: Box, run: Run) -> Bounded:
        *batch, left, right = box
        inner = range(self._rows.shape[-1])
        values: Values = []
        errors: list[float] = []
        for point in box_points(tuple(batch)):
            rows, row_errors = self._lines(self._rows, point, left, inner, run)
            columns, column_errors = self._lines(self._columns, point, right, inner, run)
            if run.quick or not (run.bounds or run.peak is not None):
                run.work += 2 * len(rows) * len(columns) * len(inner)
                values += [sum(map(mul, row, column)) for row in rows for column in columns]
                continue
            for row, ea in zip(rows, row_errors, strict=True):
                for column, eb in zip(columns, column_errors, strict=True):
                    value, error = rounded_dot(row, column, ea, eb, run)
                    values.append(value)
                    errors.append(error)
        if not run.bounds:
            return values, None
        if run.quick:
            r, count = run.rounding, len(inner)
            factor = (count if r.worst else min(512 + 2 * sqrt(count), count)) * r.ua + r.u
            errors = [factor * abs(value) + r.eta for value in values]
        return values, errors

    def projected(self, axis: int, signs: Sequence[int], run: Run) -> Array | None:
        place = axis - self.ndim
        rows, columns = self._rows, self._columns
        source = rows if place == -2 else columns if place == -1 else None
        summed = source and projection.signed_sum(source, source.ndim - 2, signs, run)
        if not summed:
            return None
        shape = [1 if at == axis else size for at, size in enumerate(self.shape)]
        return MatMul(summed, columns, shape) if place == -2 else MatMul(rows, summed, shape)

    @staticmethod
    def _lines(
        source: Array, batch: Point, index: range | tuple[int, ...], inner: range, run: Run
    ) -> tuple[list[Values], list[Errors]]:
        """The lines of one matrix as lists of K elements; a batch axis of size 1 stands for all."""
        own = batch[len(batch) + 2 - source.ndim :]
        first = tuple(
            (0,) if size == 1 else (i,) for i, size in zip(own, source.shape[: source.ndim - 2], strict=True)
        )
        values, errors = run.terms(source, (*first, index, inner))
        count = len(inner)
        starts = [k * count for k in range(len(index))]
        lines = [values[i : i + count] for i in starts]
        return lines, [None if errors is None else errors[i : i + count] for i in starts]


def matmul(left: Array, right: Array) -> Array:
    """``left @ right`` with torch's treatment of one-axis operands."""
    for one in (left, right):
        if isinstance(one, Missing):
            return one
    if left.ndim == 0 or right.ndim == 0:
        raise ShapeError("matmul needs at least one axis on both sides")
    if left.ndim == 1:
        return matmul(left.unsqueeze(0), right).squeeze(-1 if right.ndim == 1 else -2)
    if right.ndim == 1:
        return matmul(left, right.unsqueeze(1)).squeeze(-1)
    if left.shape[-1] != right.shape[-2]:
        raise ShapeError(f"matmul of {left.shape} with {right.shape}")
    batch = broadcast_shapes(left.shape[:-2], right.shape[:-2])
    return MatMul(left, right.mT, (*batch, left.shape[-2], right.shape[-1]))


class Pointwise(Array, ABC):
    """A recipe whose every element is computed by itself, in `_points`."""

    __slots__ = ()

    def _box(self, box: Box, run: Run) -> Bounded:
        return self._points(box_points(box), run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return self._points(listed_points(coords, count), run)

    @abstractmethod
    def _points(self, points: Sequence[Point], run: Run) -> Bounded:
        """The elements at `points`, as `eval` gives them."""


class Dots(Pointwise):
    """Element p is the dot of ``a`` over one box with ``b`` over another: ``boxes(p)``, None for zero.

    `along` gives, by axis of the result, the operand and its axis that carry the index, and the same recipe
    made of that operand summed over it.
    """

    __slots__ = ("_along", "a", "b", "boxes")

    def __init__(self, shape: Sequence[int], a: Array, b: Array, boxes: Boxes, along: Along) -> None:
        super().__init__(shape)
        self._along = along
        a.uses += 1
        b.uses += 1
        self.a = a
        self.b = b
        self.boxes = boxes

    @property
    def is_complex(self) -> bool:
        return self.a.is_complex or self.b.is_complex

    def projected(self, axis: int, signs: Sequence[int], run: Run) -> Array | None:
        if axis not in self._along:
            return None
        source, carrier, again = self._along[axis]
        summed = projection.signed_sum(source, carrier, signs, run)
        return None if summed is None else again(summed)

    def _points(self, points: Sequence[Point], run: Run) -> Bounded:
        values: Values = []
        errors: list[float] = []
        for point in points:
            pair = self.boxes(point)
            if pair is None:
                values.append(0.0)
                errors.append(0.0)
                continue
            a, ea = run.terms(self.a, pair[0])
            b, eb = run.terms(self.b, pair[1])
            value, error = rounded_dot(a, b, ea, eb, run)
            values.append(value)
            errors.append(error)
        return values, errors if run.bounds else None


def dots(shape: Sequence[int], a: Array, b: Array, boxes: Boxes, along: Along | None = None) -> Array:
    """The `Dots` recipe, missing where an operand is."""
    for one in (a, b):
        if isinstance(one, Missing):
            return one
    return Dots(shape, a, b, boxes, along or {})


class Linear(Pointwise, Derived):
    """Element p is Σ weight·source[q] over ``terms(p, run)``: the points q and their weights (None: 1)."""

    __slots__ = ("terms",)

    def __init__(self, shape: Sequence[int], source: Array, terms: Terms) -> None:
        super().__init__(shape, source)
        self.terms = terms

    def _points(self, points: Sequence[Point], run: Run) -> Bounded:
        asked = [self.terms(point, run) for point in points]
        places = [place for found, _ in asked for place in found]
        parts, part_errors = read_points(self.source, places, run)
        values: Values = []
        errors: list[float] = []
        start = 0
        for found, weights in asked:
            stop = start + len(found)
            terms, error = parts[start:stop], part_errors and part_errors[start:stop]
            start = stop
            if weights is not None:
                terms = list(map(mul, terms, weights))
                error = error and [abs(weight) * e for weight, e in zip(weights, error, strict=True)]
            if len(terms) == 1 and weights is None:
                values.append(terms[0])
                errors.append(error[0] if error else 0.0)
            elif terms:
                value, bound = reduce.rounded_sum(terms, error, run)
                values.append(value)
                errors.append(bound)
            else:
                values.append(0.0)
                errors.append(0.0)
        return values, errors if run.bounds else None


def read_points(source: Array, places: Sequence[Point], run: Run) -> Bounded:
    """The elements of `source` at `places`, of which there may be none."""
    return source.at(list(zip(*places, strict=True)), len(places), run) if places else ([], None)


def linear(shape: Sequence[int], source: Array, terms: Terms) -> Array:
    """The `Linear` recipe, missing where the source is."""
    return source if isinstance(source, Missing) else Linear(shape, source, terms)


class Elements(Pointwise):
    """Anything else: ``element(point, run)`` gives one value and its error bound."""

    __slots__ = ("element",)

    def __init__(self, shape: Sequence[int], element: Callable[[Point, Run], tuple[Any, float]]) -> None:
        super().__init__(shape)
        self.element = element

    def _points(self, points: Sequence[Point], run: Run) -> Bounded:
        pairs = [self.element(point, run) for point in points]
        return [value for value, _ in pairs], [error for _, error in pairs] if run.bounds else None


def norm(values: Values) -> float:
    """The 2-norm of a list of real or complex numbers."""
    return hypot(*map(abs, values))


from explorer.engine import projection, reduce  # noqa: E402 - they need the classes of `array` first
