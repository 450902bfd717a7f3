"""What an `Operation` is, and the ways to put one into the table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["OPERATIONS", "Compute", "Operation", "Values", "constant", "sides", "unary", "whole"]

Values = Mapping[str, float]
Compute = Callable[[Values], float]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one aten operation means; see the package's first lines for each field."""

    forward: str
    partial: Mapping[str, str]
    elementwise: bool = True
    value: Compute | None = None
    slope: Mapping[str, Compute] = field(default_factory=dict)


OPERATIONS: dict[str, Operation] = {}
"""aten name ("mul") or name with overload ("pow.Scalar") -> its `Operation`."""


def sides(names: str, forward: str, value: Compute, **partial: tuple[str, Compute]) -> None:
    """An elementwise operation: for each input the local derivative in words and as a function."""
    words = {name: text for name, (text, _) in partial.items()}
    slopes = {name: slope for name, (_, slope) in partial.items()}
    for name in names.split():
        OPERATIONS[name] = Operation(forward, words, True, value, slopes)


def unary(names: str, forward: str, value: Callable[[float], float], text: str, slope: Compute) -> None:
    """An elementwise function of one input, called self."""
    sides(names, forward, lambda v: value(v["self"]), self=(text, slope))


def whole(names: str, forward: str, **partial: str) -> None:
    """An operation on whole tensors: what goes back to each input, G being the incoming gradient."""
    for name in names.split():
        OPERATIONS[name] = Operation(forward, partial, False)


def constant(number: float) -> Compute:
    """A slope that is the same everywhere."""
    return lambda v: number
