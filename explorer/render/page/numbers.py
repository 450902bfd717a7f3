"""Numbers as the page's data spells them."""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

from explorer.report import Number


def numbers(values: Sequence[Number] | None) -> list[Any] | None:
    return None if values is None else [number(value) for value in values]


def finite(value: float | None) -> float | None:
    """`value` where it is a usual number; a report that was read back may hold any."""
    return value if value is not None and isfinite(value) else None


def number(value: Number | None) -> Any:
    """A number to nine significant digits; a text where it is not finite, [re, im] where complex."""
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, complex):
        return [number(value.real), number(value.imag)]
    if not isfinite(value):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return float(f"{value:.9g}")
