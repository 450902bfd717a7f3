"""Elementwise recipes: an operation on operands broadcast against each other, and constants.

The operations themselves stand in `explorer.engine.operations`, and are offered here too.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any

from explorer.engine.array import Array, Bounded, Box, Coords, Operand, broadcast_shapes
from explorer.engine.memory import rearrange
from explorer.engine.operations import (
    ADD,
    CLAIMED,
    COMPLEX,
    COSH,
    DIV,
    ERF,
    LOG1P,
    MUL,
    NORMAL_CDF,
    SHARP_EXP,
    SINH,
    SOFTPLUS,
    WHERE_NUMBER,
    Operation,
    unary,
)
from explorer.engine.propagation import ErrorRule, Number, smooth
from explorer.engine.run import Run

__all__ = [
    "ADD",
    "COMPLEX",
    "COSH",
    "DIV",
    "ERF",
    "LOG1P",
    "NORMAL_CDF",
    "SHARP_EXP",
    "SINH",
    "SOFTPLUS",
    "ErrorRule",
    "Full",
    "Iota",
    "Map",
    "Missing",
    "Operation",
    "apply",
    "index_along",
    "smooth",
    "unary",
    "unless",
    "unless_nan",
]


class Full(Array):
    """The same number everywhere."""

    __slots__ = ("value",)

    def __init__(self, value: Number, shape: Sequence[int] = ()) -> None:
        super().__init__(shape)
        self.value = value

    @property
    def is_complex(self) -> bool:
        return isinstance(self.value, complex)

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        return Full(self.value, shape)

    def _box(self, box: Box, run: Run) -> Bounded:
        return [self.value] * math.prod(map(len, box)), None

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return [self.value] * count, None


class Map(Array):
    """`operation` applied to operands broadcast against each other."""

    __slots__ = ("_complex", "operands", "operation")

    def __init__(self, operation: Operation, operands: Sequence[Array], shape: Sequence[int]) -> None:
        super().__init__(shape)
        self.operation = operation
        self.operands = tuple(operands)
        for operand in operands:
            operand.uses += 1
        wanted = operation.complex_result
        self._complex = any(one.is_complex for one in operands) if wanted is None else wanted

    @property
    def is_complex(self) -> bool:
        return self._complex

    def projected(self, axis: int, signs: Sequence[int], run: Run) -> Array | None:
        if self.operation is not MUL or len(self.operands) != 2:
            return None
        factors = sorted(self.operands, key=lambda one: type(one) is Full)
        if type(factors[1]) is not Full or factors[0].shape != self.shape:
            return None
        found = factors[0].projected(axis, signs, run)
        return None if found is None else apply(MUL, found, factors[1])

    def _box(self, box: Box, run: Run) -> Bounded:
        count = math.prod(map(len, box))
        parts: list[Iterable[Any]] = []
        errors: list[Iterable[float] | None] = []
        for operand in self.operands:
            if type(operand) is Full:
                parts.append(repeat(operand.value))
                errors.append(None)
                continue
            if operand.shape == self.shape:
                values, error = operand.eval(box, run)
            else:
                values, error = _broadcast(operand, box, count, run)
            parts.append(values if len(values) == count else repeat(values[0]))
            errors.append(error if error is None or len(error) == count else repeat(error[0]))
        return self._finish(parts, errors, count, run)

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        parts: list[Iterable[Any]] = []
        errors: list[Iterable[float] | None] = []
        for operand in self.operands:
            if type(operand) is Full:
                parts.append(repeat(operand.value))
                errors.append(None)
                continue
            if operand.shape == self.shape:
                values, error = operand.at(coords, count, run)
            else:
                inner = coords[len(coords) - operand.ndim :]
                zero = [0] * count
                inner = [zero if size == 1 else at for at, size in zip(inner, operand.shape, strict=True)]
                values, error = operand.at(inner, count, run)
            parts.append(values)
            errors.append(error)
        return self._finish(parts, errors, count, run)

    def _finish(
        self, parts: list[Iterable[Any]], errors: list[Iterable[float] | None], count: int, run: Run
    ) -> Bounded:
        run.work += count
        operation = self.operation
        if all(type(part) is repeat for part in parts):
            parts[0] = [next(iter(parts[0]))] * count
        try:
            values = list(map(operation.fast, *parts))
        except (ArithmeticError, ValueError, TypeError):
            values = list(map(operation.safe, *parts))
        if not run.bounds:
            return values, None
        return values, operation.error(run.rounding, values, parts, errors)


def _broadcast(operand: Array, box: Box, count: int, run: Run) -> Bounded:
    """`operand` over the part of `box` it has, repeated to the whole; one element stays one."""
    outer = len(box) - operand.ndim
    inner = tuple(
        range(1) if size == 1 else index for index, size in zip(box[outer:], operand.shape, strict=True)
    )
    values, error = operand.eval(inner, run)
    if len(values) == 1 or len(values) == count:
        return values, error
    lengths = [len(index) for index in box]
    strides = [0] * len(box)
    step = 1
    for axis in range(operand.ndim - 1, -1, -1):
        have = len(inner[axis])
        strides[outer + axis] = 0 if operand.shape[axis] == 1 else step
        step *= have
    return rearrange(values, lengths, strides), None if error is None else rearrange(error, lengths, strides)


def apply(operation: Operation, *operands: Operand) -> Array:
    """`operation` on operands broadcast against each other; a missing operand makes the result missing."""
    arrays = [one if isinstance(one, Array) else _constant(one) for one in operands]
    for one in arrays:
        if isinstance(one, Missing):
            return one
    if len(arrays) == 1:
        return Map(operation, arrays, arrays[0].shape)
    return Map(operation, arrays, broadcast_shapes(*[one.shape for one in arrays]))


def unless_nan(value: Array, x: Array) -> Array:
    """`value`, with nothing claimed where `x` is nan.

    For functions whose vector loop in torch treats nan as one side of a kink, and whose loop over the last
    few elements treats it as the other.
    """
    return apply(WHERE_NUMBER, value, x)


def unless(value: Array, doubtful: Array) -> Array:
    """`value`, with nothing claimed where `doubtful` holds: what torch has there its libraries decide."""
    return apply(CLAIMED, value, doubtful)


def _constant(value: Operand | None) -> Array:
    """A number as an array; None, where torch kept nothing, is missing."""
    return Missing("torch kept no value here") if value is None else Full(value)


class Iota(Array):
    """The index along one axis."""

    __slots__ = ("dim",)

    def __init__(self, shape: Sequence[int], dim: int) -> None:
        super().__init__(shape)
        self.dim = dim

    def _box(self, box: Box, run: Run) -> Bounded:
        inner = math.prod(map(len, box[self.dim + 1 :]))
        line = [i for i in box[self.dim] for _ in range(inner)]
        return line * math.prod(map(len, box[: self.dim])), None

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        return list(coords[self.dim]), None


def index_along(shape: Sequence[int], dim: int) -> Array:
    """An array of `shape` whose elements are their own index along axis `dim`."""
    kept = [1] * len(shape)
    dim %= len(shape)
    kept[dim] = shape[dim]
    return Iota(kept, dim)


class Missing(Array):
    """A saved value that cannot be read: every recipe made from it is missing for the same reason."""

    __slots__ = ("reason",)

    def __init__(self, reason: str, shape: Sequence[int] = ()) -> None:
        super().__init__(shape)
        self.reason = reason

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        return self


def _stay_missing(self: Missing, *args: object, **options: object) -> Missing:
    return self


for _name in [
    "reshape",
    "permute",
    "transpose",
    "unsqueeze",
    "squeeze",
    "select",
    "slice",
    "expand",
    "flip",
    "pad",
    "sum",
    "mean",
    "amax",
    "amin",
    "sum_to",
    "conj",
    "__matmul__",
]:
    setattr(Missing, _name, _stay_missing)
for _name in ("mT", "real", "imag"):
    setattr(Missing, _name, property(_stay_missing))
