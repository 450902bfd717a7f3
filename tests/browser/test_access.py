"""The page for those who press keys, see little colour, want no motion, or were sent a page by a stranger."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from explorer.graph import Graph
from explorer.report import Report
from tests.browser.chromium import Page
from tests.browser.conftest import Show
from tests.browser.test_nest import LABELS, press_sign, sign
from tests.browser.test_page import luminance
from tests.render import samples
from tests.render.test_html import HOSTILE

pytestmark = pytest.mark.browser

INKS = """(() => {
  const found = [];
  const rgb = (colour) => colour.match(/rgba?\\(([^)]+)\\)/)[1].split(',').map(Number);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const back = getComputedStyle(at).backgroundColor;
      if (rgb(back)[3] !== 0) return back;
    }
    return 'rgb(255, 255, 255)';
  };
  for (const element of document.querySelectorAll('header *, #ae-panel *, #ae-steps *, #ae-legend *')) {
    const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!own || !element.getClientRects().length || element.closest('svg, option')) continue;
    const style = getComputedStyle(element);
    found.push([element.textContent.trim().slice(0, 30), style.color, ground(element)]);
  }
  for (const element of document.querySelectorAll('.drawing .n text, .drawing .m > text')) {
    const box = element.closest('.n, .m');
    const face = box.querySelector(':scope > rect, :scope > path, :scope > polygon');
    found.push([element.textContent, getComputedStyle(element).fill, getComputedStyle(face).fill]);
  }
  return found;
})()"""


def contrast(one: str, other: str) -> float:
    """The contrast of two colours, by WCAG 2."""
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def tabbed(tab: Page, amount: int) -> list[str]:
    """What has the focus after each press of the Tab key: its id, or its class."""
    found = []
    for _ in range(amount):
        for kind in ("keyDown", "keyUp"):
            tab.call("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        found.append(
            tab.run("document.activeElement.id || document.activeElement.getAttribute('class') || ''")
        )
    return found


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sample", [samples.kinds, samples.block, samples.resnet])
def test_every_text_has_contrast(show: Show, sample: object, scheme: str) -> None:
    report: Report = sample()  # type: ignore[operator]  # a sample maker
    tab = show(report, prefers_color_scheme=scheme)
    for number in (None, 0):
        if number is not None:
            tab.run(f"location.hash = '#n{number}'")
            tab.frames()
        inks = tab.run(INKS)
        assert len(inks) > 30
        faint = [(said, ink, back) for said, ink, back in inks if contrast(ink, back) < 4.5]
        assert faint == []


def test_the_check_of_contrast_sees_pale_text(show: Show) -> None:
    tab = show(samples.block())
    tab.run("document.querySelector('#ae-panel h2').style.color = '#cccccc'")
    assert any(contrast(ink, back) < 4.5 for _, ink, back in tab.run(INKS))


def test_the_tab_key_goes_through_the_page_in_reading_order(show: Show) -> None:
    tab = show(samples.resnet())
    order = tabbed(tab, 16)
    wanted = ["ae-search", "ae-view", "ae-out", "ae-fit", "ae-in", "ae-home", "ae-theme", "ae-stage"]
    assert order[: len(wanted)] == wanted
    assert order[8].split()[0] == "n"  # one box; arrow keys and the panel's links lead to the others
    assert order[9:14] == ["ae-start", "ae-previous", "ae-play", "ae-next", "ae-slider"]
    names = tab.run(
        "[...document.querySelectorAll('button, select, input, [role=button], [role=slider], svg.drawing')]"
        ".filter((e) => !(e.getAttribute('aria-label') || e.innerText || e.closest('label')))"
        ".map((e) => e.outerHTML)"
    )
    assert names == []


def test_what_opens_says_so(show: Show) -> None:
    tab = show(samples.resnet())
    press_sign(tab, sign("layer4.0"))
    assert tab.text("#ae-status").startswith("layer4.0 unfolded: ")
    frames = tab.run("[...document.querySelectorAll('.m')].map((m) => m.getAttribute('aria-expanded'))")
    assert frames
    assert set(frames) == {"true"}
    folded = tab.run(
        "[...document.querySelectorAll('.n[aria-expanded]')].map((n) => n.getAttribute('aria-expanded'))"
    )
    assert folded
    assert set(folded) == {"false"}


def test_nothing_moves_by_itself_when_motion_is_not_wanted(show: Show) -> None:
    tab = show(samples.resnet(), prefers_reduced_motion="reduce")
    where = "document.querySelector('.moved').getAttribute('transform')"
    for key in ("", "n", "0"):
        if key:
            tab.press(key)
        else:
            press_sign(tab, sign("layer1.0"))
        stood = tab.run(where)
        tab.run("new Promise((done) => setTimeout(done, 250))")
        assert tab.run(where) == stood
        assert tab.run("document.querySelectorAll('.travelling').length") == 0


def test_modules_with_hostile_names_open_and_are_shown_as_text(show: Show) -> None:
    report = samples.block()
    names = {
        name: HOSTILE[place % len(HOSTILE)].replace(".", "·")
        for place, name in enumerate(
            sorted({part for node in report.graph.nodes for part in node.module.split(".") if part})
        )
    }
    nodes = tuple(
        replace(node, module=".".join(names.get(part, part) for part in node.module.split(".")))
        for node in report.graph.nodes
    )
    graph = Graph(nodes, report.graph.edges, report.graph.roots, report.graph.arity)
    tab = show(replace(report, graph=graph))
    tab.run("window.alert = () => { window.struck = true }")
    frames = tab.run("[...document.querySelectorAll('.drawing .m > text')].map((text) => text.textContent)")
    assert len(frames) > 3
    assert not any(re.search("[\x00-\x1f\u202a-\u202e\u2028]", said) for said in frames)
    before = tab.run(LABELS)
    for _ in frames:
        tab.run(
            "document.querySelector('.drawing .m .sign')"
            "?.dispatchEvent(new MouseEvent('click', {bubbles: true}))"
        )
        tab.frames()
    assert len(tab.run(LABELS)) < len(before)
    assert not tab.run("Boolean(window.struck)")
    assert tab.run("document.querySelectorAll('.drawing script, .drawing img, #ae-panel img').length") == 0
