"""The page's table of gradients known in several ways, against the report it shows."""

from __future__ import annotations

from dataclasses import replace

import pytest

from explorer.report import Quotients, Row
from tests.browser.conftest import Show
from tests.render import samples

pytestmark = pytest.mark.browser

CELLS = (
    "[...document.querySelectorAll('.ways tr')].map((row) => [...row.cells].map((one) => one.innerText))"
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
        ["element", "PyTorch", "engine", "numeric", "verdict"],
        ["x", "−4", "−4", "−4", "agree"],
        ["y", "3", "–", "2", "DIFFER"],
        ["<b>z</b>[0, 1]", "NaN", "–", "–", ""],
    ]
    said = tab.text("[aria-label='Gradients four ways']")
    assert "1 of 2 agree" in said
    assert "1 of the quotients did not settle" in said

    tab.click(".ways button")
    assert tab.text("#ae-panel h2") == "x"
    assert tab.run(CELLS)[1:] == [["x", "−4", "−4", "−4", "agree"]]


def test_a_column_by_hand_is_there_when_it_was_given(show: Show) -> None:
    tab = show(replace(samples.xyz(), quotients=Quotients((Row("x", -4.0, -4.0, None, None),))))
    assert tab.run(CELLS) == [["element", "by hand", "PyTorch", "verdict"], ["x", "−4", "−4", "agree"]]


def test_why_there_are_none(show: Show) -> None:
    tab = show(replace(samples.xyz(), quotients=Quotients(problem="the forward cannot be computed again")))
    assert "no numeric gradients: the forward cannot be computed again" in tab.text("#ae-panel")
    assert not tab.run("document.querySelectorAll('.ways').length")


def test_nothing_is_said_where_it_was_not_asked_for(show: Show) -> None:
    assert "four ways" not in show(samples.xyz()).text("#ae-panel").lower()
