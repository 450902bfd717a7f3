"""The table of four ways to a gradient."""

from __future__ import annotations

import math

import pytest

from explorer.comparison import Row, agrees, central_differences, comparison


def test_central_differences_of_a_known_function() -> None:
    found = central_differences(lambda p: p[0] ** 2 * math.sin(p[1]), [3.0, 0.5])
    assert found == pytest.approx((6 * math.sin(0.5), 9 * math.cos(0.5)), rel=1e-8)


@pytest.mark.parametrize("place", ["by_hand", "pytorch", "engine", "numeric"])
def test_one_wrong_column_is_noticed(place: str) -> None:
    values = {"by_hand": -4.0, "pytorch": -4.0, "engine": -4.0, "numeric": -4.00001}
    assert agrees(Row("x", **values))
    assert not agrees(Row("x", **{**values, place: -4.1}))


def test_nan_agrees_with_nan_only() -> None:
    assert agrees(Row("x", pytorch=math.nan, engine=math.nan))
    assert not agrees(Row("x", pytorch=math.nan, engine=1.0))


def test_the_table_as_printed() -> None:
    rows = [Row("∂f/∂x", -4.0, -4.0, -4.0, -4.0000001), Row("∂f/∂y", 3.0, 2.0)]
    assert comparison(rows) == (
        "       by hand  PyTorch  engine  numeric\n"
        "∂f/∂x       -4       -4      -4       -4  agree\n"
        "∂f/∂y        3        2       –        –  DIFFER\n"
        "1 of 2 agree\n"
    )
    assert comparison([]).endswith("0 of 0 agree\n")
