"""Stepping through the backward in a real browser, against the order and numbers that were recorded."""

from __future__ import annotations

import re

import pytest

from explorer.derivatives import local_derivatives
from explorer.narrative import captions
from tests.browser.chromium import Page
from tests.browser.conftest import Show
from tests.render import samples

pytestmark = pytest.mark.browser


def number(text: str) -> float:
    """A number as the page spells it."""
    return float(text.replace("−", "-"))


def test_steps_go_in_recorded_order(show: Show) -> None:
    report = samples.sigmoid()
    locals_ = local_derivatives(report)
    tab = show(report)
    ran = {node: done.index for node, done in enumerate(report.gradients) if done is not None}
    order = sorted(ran, key=lambda node: ran[node])
    tab.prefer(prefers_reduced_motion="reduce")
    told = captions(report)

    def said(tab: Page) -> str:
        leaf = tab.run("!document.querySelector('#ae-caption .said')")
        return tab.text("#ae-caption" if leaf else "#ae-caption .said")

    for step, node in enumerate(order, 1):
        tab.press("n")
        assert tab.text("#ae-count") == f"{step}/{len(order)}"
        numbers = [number(found) for found in re.findall(r"−?\d+\.\d+", said(tab))]
        record = report.gradient(node)
        assert record is not None
        assert record.values is not None
        assert numbers[0] == pytest.approx(record.values[0], abs=0.0051)
        edges = report.graph.outgoing[node]
        assert len(numbers) == 1 + 3 * len(edges)
        for place, edge in enumerate(edges):
            up, local, down = numbers[1 + 3 * place : 4 + 3 * place]
            sent = report.edge_gradients[edge]
            assert sent is not None
            assert sent.values is not None
            assert up == numbers[0]
            assert local == pytest.approx(locals_[edge, 0].value, abs=0.0051)
            assert down == pytest.approx(sent.values[0], abs=0.0051)
        lines = tab.run("[...document.querySelectorAll('#ae-caption .told')].map((line) => line.innerText)")
        assert lines == [line for line in told[node] if line.startswith("to ")]
        assert bool(lines) == bool(edges)
    done = tab.run("document.querySelectorAll('.drawing .n.done').length")
    assert done == len(order)
    tab.press("p")
    assert tab.text("#ae-count") == f"{len(order) - 1}/{len(order)}"
    tab.press("Escape")
    assert not tab.run("document.querySelector('.stepping')")


def test_the_gradient_travels_against_the_arrow(show: Show) -> None:
    tab = show(samples.xyz())
    tab.run("setTimeout(() => document.querySelector('#ae-next').click()), 1")
    tab.wait("document.querySelector('.travelling[transform]')")
    place = "Number(document.querySelector('.travelling').getAttribute('transform').match(/-?[\\d.]+/)[0])"
    first = tab.run(place)
    tab.frames()
    tab.frames()
    second = tab.run(f"document.querySelector('.travelling') ? {place} : -1e9")
    assert second < first
    tab.wait("!document.querySelector('.travelling')")


def test_play_runs_to_the_end(show: Show) -> None:
    tab = show(samples.xyz())
    tab.click("#ae-play")
    assert tab.text("#ae-play") == "Pause"
    tab.wait("document.querySelector('#ae-count').textContent === '5/5'", 15)
    tab.wait("document.querySelector('#ae-play').innerText === 'Play backward'")


def test_stepping_through_a_focused_page(show: Show) -> None:
    report = samples.block()
    tab = show(report, focus="block.ln_1")
    for _ in range(len(report.graph.nodes)):
        tab.click("#ae-next")
    assert tab.text("#ae-count").startswith(str(len(report.graph.nodes)))
