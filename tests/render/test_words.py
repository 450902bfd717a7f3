"""Numbers and names as people read them."""

from __future__ import annotations

import doctest
from dataclasses import replace

import pytest

from explorer.graph import Graph
from explorer.render import dot, words
from explorer.render.text import text
from tests.render import samples


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(words)
    assert results.attempted >= 9
    assert results.failed == 0


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202egnp", "\\u202egnp"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
        ("emoji 😀 and עברית", "emoji 😀 and עברית"),
    ],
)
def test_strangers_text_is_spelled_out(given: str, shown: str) -> None:
    assert words.clean(given) == shown


def test_several_roots_are_all_told() -> None:
    report = samples.adversarial()
    assert words.roots(report) == "loss_g and loss_d"
    graph = report.graph
    more = Graph(graph.nodes, graph.edges, (*graph.roots, (2, 0)), graph.arity)
    assert words.roots(replace(report, graph=more)) == "loss_g and 2 more"
    alike = Graph(graph.nodes, graph.edges, ((0, 0), (2, 0)), graph.arity)
    assert words.roots(replace(report, graph=alike)) == "loss_g and 1 more"
    assert words.roots(samples.xyz()) == "f"
    assert "loss_g and loss_d" in text(report).splitlines()[0]
    assert "<b>loss_g and loss_d</b>" in dot.source(report)


def test_long_text_is_cut() -> None:
    assert len(words.clean("x" * 10_000)) == words.LONGEST
