"""The page's table of gradients known in several ways, against the report it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from explorer.report import Quotients, Row
from tests.browser.conftest import Show
from tests.render import samples

pytestmark = pytest.mark.browser

CELLS = (
    "[...document.querySelectorAll('.ways tr')].map((row) => [...row.cells].map((one) => one.textContent))"
)
ROWS = (
    Row("x", None, -4.0, -4.0, -4.0000001),
    Row("y", None, 3.0, None, 2.0),
    Row("<b>z</b>[0, 1]", None, float("nan"), None, None),
)


def test_the_table_says_what_the_report_says(show: Show) -> None:
    report = replace(samples.xyz(), quotients=Quotients(ROWS, ("1 of the quotients did not settle",)))
    tab = show(report)
    assert tab.run(CELLS) == [
        ["element", "verdict", "PyTorch", "engine", "numeric"],
        ["x", "✓ agree", "−4", "−4", "−4"],
        ["y", "≠ differ", "3", "–", "2"],
        ["<b>z</b>[0, 1]", "", "NaN", "–", "–"],
    ]
    said = tab.text("[aria-label='Gradients four ways']")
    assert "1 of 2 agree" in said
    assert "1 of the quotients did not settle" in said

    tab.click(".ways button")
    assert tab.text("#ae-panel h2") == "x"
    assert tab.run(CELLS)[1:] == [["x", "✓ agree", "−4", "−4", "−4"]]


def test_a_column_by_hand_is_there_when_it_was_given(show: Show) -> None:
    tab = show(replace(samples.xyz(), quotients=Quotients((Row("x", -4.0, -4.0, None, None),))))
    assert tab.run(CELLS) == [["element", "verdict", "by hand", "PyTorch"], ["x", "✓ agree", "−4", "−4"]]


def test_why_there_are_none(show: Show) -> None:
    tab = show(replace(samples.xyz(), quotients=Quotients(problem="the forward cannot be computed again")))
    assert "no numeric gradients: the forward cannot be computed again" in tab.text("#ae-panel")
    assert not tab.run("document.querySelectorAll('.ways').length")


def test_nothing_is_said_where_it_was_not_asked_for(show: Show) -> None:
    assert "four ways" not in show(samples.xyz()).text("#ae-panel").lower()


def test_the_verdict_is_in_sight_in_the_panel(show: Show) -> None:
    tab = show(replace(samples.xyz(), quotients=Quotients(ROWS)), size=(850, 640))
    right = "document.querySelector('.ways .differs').getBoundingClientRect().right"
    assert tab.run(right) < tab.run("document.querySelector('#ae-panel').getBoundingClientRect().right")


def test_of_many_rows_those_that_differ_are_listed(show: Show) -> None:
    rows = [Row(f"x[{place}]", None, 1.0, 1.0, 1.0) for place in range(500)]
    rows[400] = Row("x[400]", None, 1.0, 1.5, 1.0)
    tab = show(replace(samples.xyz(), quotients=Quotients(tuple(rows))))
    assert [row[0] for row in tab.run(CELLS)][-2:] == ["x[59]", "x[400]"]
    said = tab.text("[aria-label='Gradients four ways']")
    assert "and 439 more, none of which differ" in said
    assert "499 of 500 agree" in said
