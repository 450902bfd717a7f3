"""By hand, PyTorch, engine, numeric: the four ways to a gradient side by side, as homework is checked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isclose, isnan

__all__ = ["Row", "agrees", "central_differences", "comparison"]

EXACT = 1e-5
"""Relative difference allowed between values that are computed, not approximated (float32)."""

NUMERIC = 1e-3
"""The same for a central difference, which is an approximation."""

DIGITS = 7
"""Significant digits in the table."""


@dataclass(frozen=True, slots=True)
class Row:
    """One derivative, known in up to four ways; None where that way was not taken."""

    name: str
    by_hand: float | None = None
    pytorch: float | None = None
    engine: float | None = None
    numeric: float | None = None


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


def agrees(row: Row) -> bool:
    """Whether all that is known of the row is the same number, to within `EXACT` and `NUMERIC`."""
    exact = [value for value in (row.by_hand, row.pytorch, row.engine) if value is not None]
    first = exact[0] if exact else row.numeric
    if first is None:
        return True
    return all(_close(first, value, EXACT) for value in exact) and (
        row.numeric is None or _close(first, row.numeric, NUMERIC)
    )


def comparison(rows: Iterable[Row]) -> str:
    """A table of the four columns and a verdict per row, ending with a line break.

    >>> print(comparison([Row("dx", -4.0, -4.0, -4.0, -4.0), Row("dy", 3.0, 2.0)]), end="")
         by hand  PyTorch  engine  numeric
    dx        -4       -4      -4       -4  agree
    dy         3        2       –        –  DIFFER
    1 of 2 agree
    """
    rows = list(rows)
    heads = ("", "by hand", "PyTorch", "engine", "numeric")
    body = [(row.name, *map(_cell, (row.by_hand, row.pytorch, row.engine, row.numeric))) for row in rows]
    widths = [max(len(line[column]) for line in (heads, *body)) for column in range(len(heads))]
    widths[0] = max(widths[0], 3)
    lines = [_line(heads, widths, "")]
    lines += [
        _line(cells, widths, "agree" if agrees(row) else "DIFFER")
        for cells, row in zip(body, rows, strict=True)
    ]
    lines.append(f"{sum(map(agrees, rows))} of {len(rows)} agree")
    return "\n".join(lines) + "\n"


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
