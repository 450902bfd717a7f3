"""The elements of small tensors as flat numbers, row-major: read from text, spread over a shape, rounded."""

from __future__ import annotations

import ast
import struct
from collections.abc import Iterable, Mapping
from itertools import product
from math import isfinite, prod

from explorer.operations import Compute
from explorer.report import Number

Flat = tuple[Number, ...]
Reals = tuple[float, ...]

EPSILON = {"float64": 2.0**-52, "float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}
"""Distance from 1 to the next number of a dtype."""

DIGITS = {"float64": 15, "float32": 6, "float16": 3, "bfloat16": 2}
"""Decimal digits that a dtype always keeps."""


def parse_number(text: str) -> Flat | None:
    """The flat numbers spelled in `text` ("2", "[1.0, 2.0]", "True"), None if it spells none.

    >>> parse_number("[[1, 2], [3, 4]]")
    (1.0, 2.0, 3.0, 4.0)
    """
    if not text or len(text) > 2000:
        return None
    try:
        waiting: list[object] = [ast.literal_eval(text)]
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"nan": (float("nan"),), "inf": (float("inf"),), "-inf": (float("-inf"),)}.get(text)
    found: list[float] = []
    while waiting:
        item = waiting.pop()
        if isinstance(item, (list, tuple)):
            waiting.extend(reversed(item))
        elif isinstance(item, (bool, int, float)):
            found.append(float(item))
        else:
            return None
    return tuple(found)


def broadcast(numbers: Reals, shape: tuple[int, ...] | None, to: tuple[int, ...]) -> Reals | None:
    """`numbers` of `shape` spread over the shape `to`, row-major; None if they do not fit."""
    size = prod(to)
    if len(numbers) == size:
        return numbers
    if len(numbers) == 1:
        return numbers * size
    if shape is None or len(shape) > len(to) or prod(shape) != len(numbers):
        return None
    shape = (1,) * (len(to) - len(shape)) + shape
    if any(own not in {1, wanted} for own, wanted in zip(shape, to, strict=True)):
        return None
    steps = [0 if own == 1 else prod(shape[axis + 1 :]) for axis, own in enumerate(shape)]
    places: Iterable[tuple[int, ...]] = product(*(range(n) for n in to))
    return tuple(numbers[sum(i * step for i, step in zip(place, steps, strict=True))] for place in places)


def rounded(number: float, dtype: str) -> float:
    """`number` as a tensor of `dtype` holds it; float64 and unknown dtypes keep it."""
    codes = {"float32": "<f", "float16": "<e", "bfloat16": "<f"}
    if dtype not in codes or not isfinite(number):
        return number
    try:
        packed = struct.pack(codes[dtype], number)
    except OverflowError:
        return float("inf") if number > 0 else float("-inf")
    if dtype == "bfloat16":  # the upper half of a float32, rounded to even
        bits = int.from_bytes(packed, "little")
        bits += 0x7FFF + (bits >> 16 & 1)
        packed = (bits & 0xFFFF0000).to_bytes(4, "little")
    return float(struct.unpack(codes[dtype], packed)[0])


def shortest(
    number: float, here: Mapping[str, float], name: str, dtype: str, forward: Compute | None
) -> float:
    """The constant with the fewest digits that gives the result to within rounding; else `number`.

    (0.3 + 1) - 0.3 is 1.0000001 in float32, but the program said 1. Two units in the last place are
    allowed, because the result may itself be deduced.
    """
    if not isfinite(number) or forward is None:
        return number
    for digits in range(1, DIGITS.get(dtype, 6) + 2):
        short = float(f"{number:.{digits}g}")
        try:
            result = rounded(forward({**here, name: short}), dtype)
        except (ArithmeticError, ValueError):
            continue
        if abs(result - here["result"]) <= 2 * EPSILON.get(dtype, 0.0) * abs(result):
            return short
    return rounded(number, dtype)
