"""By hand, PyTorch, engine, numeric: the four ways to a gradient side by side, as homework is checked.

    rows = side_by_side(
        by_hand={"x": 12.0},
        pytorch={"x": x.grad.tolist()},
        engine=engine_gradients(function, {"x": 2.0}),
        numeric=numeric_gradients(function, {"x": 2.0}),
    )
    print(comparison(rows))

Points and gradients are plain numbers or nested lists of them, by name. Nothing imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from math import inf, isclose, isnan
from typing import Any, TypeAlias

from explorer import engine as stand_alone
from explorer.errors import UsageError
from explorer.report import Quotients, Row

__all__ = [
    "Nested",
    "Row",
    "agrees",
    "central_differences",
    "comparison",
    "engine_gradients",
    "numeric_gradients",
    "side_by_side",
    "told",
]

Nested: TypeAlias = Any
"""A number, or lists of numbers to any depth; a recursive type that Any stands for."""

EXACT = 1e-5
"""Relative difference allowed between values that are computed, not approximated (float32)."""

NUMERIC = 1e-3
"""The same for a central difference, which is an approximation."""

DIGITS = 7
"""Significant digits in the table."""


def central_differences(
    function: Callable[[Sequence[float]], float], point: Sequence[float], step: float = 1e-6
) -> tuple[float, ...]:
    """(f(x + h) − f(x − h)) / 2h by each coordinate of `point`, with h = step · max(1, |x|).

    The error is of order h² from the formula and 1e-16 · |f| / h from rounding, so `function` should
    compute in float64.
    """
    found = []
    for place, value in enumerate(point):
        h = step * max(1.0, abs(value))
        above, below = list(point), list(point)
        above[place], below[place] = value + h, value - h
        found.append((function(above) - function(below)) / (above[place] - below[place]))
    return tuple(found)


def numeric_gradients(
    function: Callable[..., Any], point: Mapping[str, Nested], step: float = 1e-6
) -> dict[str, Nested]:
    """The gradient of ``function(**point)`` by every number in `point`, by central differences.

    Args:
        function: called with the names of `point`, each a number or nested lists; it returns a number, or
            anything of one element with ``item()``. It should compute in float64 (see
            `central_differences`) and give the same result whenever it is called.
        point: where the gradient is asked for.

    Returns:
        The gradients, nested as `point` is.

    Raises:
        UsageError: `function` gives two results at the same point; its differences would mean nothing.
    """
    names = list(point)
    numbers = [number for name in names for _, number in _elements(point[name])]

    def flat(values: Sequence[float]) -> float:
        rest = iter(values)
        result = function(**{name: _refilled(point[name], rest) for name in names})
        return float(result.item() if hasattr(result, "item") else result)

    first, second = flat(numbers), flat(numbers)
    if first != second and not (isnan(first) and isnan(second)):
        raise UsageError(
            f"the function gave {first!r}, then {second!r} at the same point: fix its random numbers "
            "(dropout, sampling) before its gradient is taken by differences"
        )
    found = iter(central_differences(flat, numbers, step))
    return {name: _refilled(point[name], found) for name in names}


def engine_gradients(function: Callable[..., Any], point: Mapping[str, Nested]) -> dict[str, Nested]:
    """The gradient of ``function(**point)`` by the stand-alone engine, nested as `point` is.

    `function` gets an `explorer.engine.Tensor` per name and returns one of a single element.
    """
    tensors = {name: stand_alone.tensor(value, requires_grad=True) for name, value in point.items()}
    function(**tensors).backward()
    return {
        name: _refilled(point[name], iter([0.0] * tensor.numel()))
        if tensor.grad is None
        else tensor.grad.tolist()
        for name, tensor in tensors.items()
    }


def side_by_side(
    by_hand: Mapping[str, Nested] | None = None,
    pytorch: Mapping[str, Nested] | None = None,
    engine: Mapping[str, Nested] | None = None,
    numeric: Mapping[str, Nested] | None = None,
) -> tuple[Row, ...]:
    """A `Row` per element of everything named, in the order first named: "w[0, 1]" for an element.

    Raises:
        UsageError: two ways give one name different shapes.
    """
    ways = (by_hand or {}, pytorch or {}, engine or {}, numeric or {})
    rows: list[Row] = []
    for name in dict.fromkeys(name for way in ways for name in way):
        columns = [dict(_elements(way[name])) if name in way else None for way in ways]
        shapes = [tuple(column) for column in columns if column is not None]
        if any(shape != shapes[0] for shape in shapes):
            raise UsageError(f"the ways to {name!r} differ in shape")
        for place in shapes[0]:
            numbers = [None if column is None else column[place] for column in columns]
            rows.append(Row(f"{name}{list(place)}" if place else name, *numbers))
    return tuple(rows)


def agrees(row: Row, exact: float = EXACT, numeric: float = NUMERIC) -> bool:
    """Whether all that is known of the row is the same number, to within the relative `exact` and, for the
    difference quotient, `numeric`; near 0 a hundredth of that counts as absolute."""
    known = [value for value in (row.by_hand, row.pytorch, row.engine) if value is not None]
    first = known[0] if known else row.numeric
    if first is None:
        return True
    return all(_close(first, value, exact) for value in known) and (
        row.numeric is None or _close(first, row.numeric, numeric)
    )


def comparison(rows: Iterable[Row], largest: int | None = None) -> str:
    """A table of the four columns and a verdict per row, ending with a line break.

    Args:
        largest: print only so many elements of each name, those of largest size, and every one that
            differs; the last line counts all of them.

    >>> print(comparison([Row("dx", -4.0, -4.0, -4.0, -4.0), Row("dy", 3.0, 2.0)]), end="")
         by hand  PyTorch  engine  numeric
    dx        -4       -4      -4       -4  agree
    dy         3        2       –        –  DIFFER
    1 of 2 agree
    """
    rows = list(rows)
    shown = rows if largest is None else list(_chosen(rows, largest))
    heads = ("", "by hand", "PyTorch", "engine", "numeric")
    body = [(row.name, *map(_cell, (row.by_hand, row.pytorch, row.engine, row.numeric))) for row in shown]
    widths = [max(len(line[column]) for line in (heads, *body)) for column in range(len(heads))]
    widths[0] = max(widths[0], 3)
    lines = [_line(heads, widths, "")]
    lines += [_line(cells, widths, _verdict(row)) for cells, row in zip(body, shown, strict=True)]
    compared = [row for row in rows if _ways(row) > 1]
    alone = len(rows) - len(compared)
    left = f", {alone} with nothing to compare" if alone else ""
    lines.append(f"{sum(map(agrees, compared))} of {len(compared)} agree{left}")
    return "\n".join(lines) + "\n"


def told(quotients: Quotients | None, by_hand: Mapping[str, Nested] | None = None) -> str:
    """The numeric gradients of a backward as a table, with what is to be said of them.

    Args:
        quotients: `Report.quotients`; None where they were not asked for.
        by_hand: one's own gradients by the variable's name, for the first column.

    Raises:
        UsageError: a gradient by hand has a name or shape that no row has.
    """
    if quotients is None:
        return "no numeric gradients: they were not asked for (explore(loss, numeric=True), --numeric)\n"
    if quotients.problem:
        return f"no numeric gradients: {quotients.problem}\n"
    own = {
        f"{name}{list(place)}" if place else name: value
        for name, nested in (by_hand or {}).items()
        for place, value in _elements(nested)
    }
    rows = [replace(row, by_hand=own.get(row.name, row.by_hand)) for row in quotients.rows]
    missing = [
        name for name in by_hand or {} if not any(_named(row, name) for row in rows if row.name in own)
    ]
    if missing:
        raise UsageError(f"no gradient of that name and shape is compared: {', '.join(missing)}")
    lines = [f"({note})" for note in quotients.notes]
    return comparison(rows) + "".join(f"{line}\n" for line in lines)


def _ways(row: Row) -> int:
    """How many of the four ways to the derivative were taken."""
    return sum(value is not None for value in (row.by_hand, row.pytorch, row.engine, row.numeric))


def _verdict(row: Row) -> str:
    """What the table says of a row; nothing where there is but one number."""
    return "" if _ways(row) < 2 else "agree" if agrees(row) else "DIFFER"


def _named(row: Row, name: str) -> bool:
    """Whether the row is of the tensor called `name`."""
    return row.name == name or row.name.startswith(f"{name}[")


def _chosen(rows: Sequence[Row], largest: int) -> Iterator[Row]:
    """Of each tensor's rows the `largest` ones and those that differ, in the order given."""
    for _, group in groupby(rows, lambda row: row.name.partition("[")[0]):
        members = list(group)
        order = sorted(range(len(members)), key=lambda place: -_size(members[place]))
        kept = {*order[:largest], *(place for place, row in enumerate(members) if not agrees(row))}
        yield from (members[place] for place in sorted(kept))


def _size(row: Row) -> float:
    """The size of what is known of the row; nan counts as the largest."""
    known = (row.by_hand, row.pytorch, row.engine, row.numeric)
    sizes = [inf if isnan(value) else abs(value) for value in known if value is not None]
    return max(sizes, default=0.0)


def _elements(value: Nested, place: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], float]]:
    """Every number in `value` with its place, row-major."""
    if isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _elements(part, (*place, index))
    else:
        yield place, float(value)


def _refilled(value: Nested, numbers: Iterator[float]) -> Nested:
    """The next `numbers`, nested as `value` is."""
    if isinstance(value, (list, tuple)):
        return [_refilled(part, numbers) for part in value]
    return next(numbers)


def _line(cells: Sequence[str], widths: Sequence[int], verdict: str) -> str:
    """The name to the left, the numbers to the right."""
    numbers = (cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True))
    return "  ".join([cells[0].ljust(widths[0]), *numbers, verdict]).rstrip()


def _cell(value: float | None) -> str:
    """A number, or a dash for a way not taken."""
    return "–" if value is None else f"{value:.{DIGITS}g}"


def _close(one: float, other: float, relative: float) -> bool:
    """Equal to within `relative`; two nans are the same result."""
    if isnan(one) or isnan(other):
        return isnan(one) and isnan(other)
    return isclose(one, other, rel_tol=relative, abs_tol=relative * 1e-2)
