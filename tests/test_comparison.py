"""The table of four ways to a gradient."""

from __future__ import annotations

import math

import pytest

from explorer.comparison import (
    Row,
    agrees,
    central_differences,
    comparison,
    engine_gradients,
    numeric_gradients,
    side_by_side,
    told,
)
from explorer.errors import UsageError
from explorer.report import Quotients


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


def test_numeric_gradients_are_nested_as_the_point() -> None:
    found = numeric_gradients(
        lambda a, m: a**2 * (m[0][0] + 10 * m[0][1] + m[1][0] * m[1][1]),
        {"a": 3.0, "m": [[1.0, 2.0], [4.0, 5.0]]},
    )
    assert found["a"] == pytest.approx(2 * 3 * 41, rel=1e-8)
    assert found["m"][0] == pytest.approx([9.0, 90.0], rel=1e-8)
    assert found["m"][1] == pytest.approx([45.0, 36.0], rel=1e-8)


def test_a_function_that_gives_two_results_is_refused() -> None:
    results = iter([1.0, 2.0])
    with pytest.raises(UsageError, match="fix its random numbers"):
        numeric_gradients(lambda x: next(results), {"x": 1.0})


def test_engine_gradients_are_nested_as_the_point_and_zero_where_unused() -> None:
    found = engine_gradients(lambda w, x, c: (w @ x).sum(), {"w": [[1.0, 2.0]], "x": [3.0, 4.0], "c": [7.0]})
    assert found == {"w": [[3.0, 4.0]], "x": [1.0, 2.0], "c": [0.0]}


def test_rows_per_element_and_a_dash_for_a_way_not_taken() -> None:
    rows = side_by_side({"w": [[1.0], [2.0]]}, {"w": [[1.0], [2.5]], "b": 3.0})
    assert rows == (Row("w[0, 0]", 1.0, 1.0), Row("w[1, 0]", 2.0, 2.5), Row("b", None, 3.0))
    with pytest.raises(UsageError, match="differ in shape"):
        side_by_side({"w": [1.0]}, {"w": [1.0, 2.0]})


def test_the_largest_and_the_wrong_are_shown_and_all_are_counted() -> None:
    rows = [Row("w[0]", 1.0, 1.0), Row("w[1]", 5.0, 5.0), Row("w[2]", 2.0, 3.0), Row("b", 1.0, 1.0)]
    lines = comparison(rows, largest=1).splitlines()
    assert [line.split()[0] for line in lines[1:-1]] == ["w[1]", "w[2]", "b"]
    assert lines[-1] == "3 of 4 agree"


def test_gradients_by_hand_go_into_the_first_column_of_a_report() -> None:
    found = Quotients((Row("w[0, 1]", None, 2.0, 2.0, 2.0), Row("b", None, 5.0)), ("a note",))
    table = told(found, {"w": [[1.0, 2.0]], "b": 4.0})
    assert "w[0, 1]        2        2       2        2  agree" in table
    assert "b              4        5       –        –  DIFFER" in table
    assert table.endswith("1 of 2 agree\n(a note)\n")
    with pytest.raises(UsageError, match="no gradient of that name and shape"):
        told(found, {"c": 1.0})
    assert told(Quotients(problem="it is gone")) == "no numeric gradients: it is gone\n"
    assert "not asked for" in told(None)


def test_a_number_alone_agrees_with_nothing() -> None:
    table = comparison([Row("a", pytorch=1.0), Row("b", pytorch=1.0, numeric=1.0)])
    assert table.splitlines()[1].split() == ["a", "–", "1", "–", "–"]
    assert table.endswith("1 of 1 agree, 1 with nothing to compare\n")
