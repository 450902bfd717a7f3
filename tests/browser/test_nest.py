"""Modules that open and fold in place, in a real browser: what is in sight, and what the address says."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from math import hypot
from typing import Any

import pytest

from explorer.render.html import page
from explorer.report import Report
from tests.browser.chromium import Page
from tests.browser.conftest import Show
from tests.render import samples
from tests.render.test_html import data

pytestmark = pytest.mark.browser

LABELS = "[...document.querySelectorAll('.drawing .n')].map((n) => n.getAttribute('aria-label'))"
FRAMES = "[...document.querySelectorAll('.drawing .m')].map((m) => Number(m.dataset.module))"
GEOMETRY = """(() => {
  const moved = document.querySelector('.moved'), was = moved.getAttribute('transform');
  moved.removeAttribute('transform');
  const origin = moved.ownerSVGElement.getBoundingClientRect();
  const all = (what) => [...document.querySelectorAll('.drawing ' + what)];
  const rect = (element) => {
    const {x, y, right, bottom} = element.getBoundingClientRect();
    return [x - origin.x, y - origin.y, right - origin.x, bottom - origin.y];
  };
  const kinds = ['rect', 'ellipse', 'path', 'polygon'].map((kind) => ':scope > ' + kind).join();
  const whole = (box) => [...box.querySelectorAll(kinds)].map(rect).reduce(([a, b, c, d], [e, f, g, h]) =>
    [Math.min(a, e), Math.min(b, f), Math.max(c, g), Math.max(d, h)]);
  const way = (group) => {
    const path = group.querySelector('path:not(.h)'), length = path.getTotalLength();
    const steps = Math.max(2, Math.ceil(length / 5));
    return Array.from({length: steps + 1}, (_, step) => path.getPointAtLength((length * step) / steps))
      .map(({x, y}) => [x, y]);
  };
  const found = {
    boxes: all('.n[data-s]').map(whole),
    frames: all('.m').map((frame) => [Number(frame.dataset.module), rect(frame.querySelector('.frame'))]),
    pieces: all('.e').map((piece) => ({
      way: way(piece),
      dashed: getComputedStyle(piece.querySelector("path")).strokeDasharray !== "none",
      tip: Boolean(piece.querySelector(".h")),
      wires: piece.dataset.wires.split(" ").map(Number),
    })),
  };
  moved.setAttribute('transform', was);
  return JSON.stringify(found);
})()"""
TIP = 12.0
"""Points from the end of a wire to the box its arrowhead touches, at most: heads grow with the width."""


def expected(view: dict[str, Any], opened: set[int]) -> tuple[list[int], set[tuple[int, int]]]:
    """The things in sight when `opened` are open, and the pairs of them that wires join, by the data."""
    first = len(view["shapes"])
    around = {thing: number for number, room in enumerate(view["rooms"]) for thing, *_ in room["t"]}

    def home(shape: int) -> int:
        seen, module = shape, around[shape]
        while module:
            if module not in opened:
                seen = first + module
            module = view["rooms"][module]["u"]
        return seen

    pairs = {(home(tail), home(head)) for tail, head, *_ in view["wires"]}
    return sorted({home(shape) for shape in range(first)}), {pair for pair in pairs if pair[0] != pair[1]}


def sign(label: str) -> str:
    """Selector of the sign that opens the module whose box says `label`."""
    return f'.drawing .n[aria-label^="{label},"] .sign'


def press_sign(tab: Page, selector: str) -> None:
    """A real click on a sign, which is brought into sight first."""
    tab.run(
        f"document.querySelector({json.dumps(selector)})"
        ".dispatchEvent(new MouseEvent('click', {bubbles: true}))"
    )
    tab.frames()


def problems(found: dict[str, Any], view: dict[str, Any]) -> list[str]:
    """What is wrong with a drawing: boxes that overlap, boxes outside their frame, wires with loose ends."""
    said = []
    boxes = found["boxes"]
    for one, (left, top, right, bottom) in enumerate(boxes):
        for other, (x, y, x2, y2) in enumerate(boxes[:one]):
            if left < x2 - 0.5 and x < right - 0.5 and top < y2 - 0.5 and y < bottom - 0.5:
                said.append(f"boxes {one} and {other} overlap")
    frames = dict(found["frames"])
    for module, (left, top, right, bottom) in frames.items():
        outer = frames.get(view["rooms"][module]["u"])
        if outer and not (outer[0] <= left and outer[1] <= top and right <= outer[2] and bottom <= outer[3]):
            said.append(f"module {module} leaves its frame")
    for piece in found["pieces"]:
        heights = [across for _, across in piece["way"]]
        up = any(before > after + 1 for before, after in itertools.pairwise(heights))
        if up and not piece["dashed"]:  # those to the next of several drawn once go up
            said.append(f"a wire of {piece['wires']} turns back")
        (x0, y0), (x, y) = piece["way"][0], piece["way"][-1]
        near = (a - TIP <= x <= c + TIP and b - TIP <= y <= d + TIP for a, b, c, d in boxes)
        if piece["tip"] and not any(near):
            said.append(f"a wire of {piece['wires']} ends nowhere")
        for at, across in piece["way"]:
            if min(hypot(at - x0, across - y0), hypot(at - x, across - y)) < TIP:
                continue  # a wire may begin and end inside the border of its box
            for number, (a, b, c, d) in enumerate(boxes):
                if a + 3 < at < c - 3 and b + 3 < across < d - 3:
                    said.append(f"a wire of {piece['wires']} crosses box {number}")
    return said


@pytest.mark.parametrize(
    "sample", [samples.block, samples.resnet, samples.adversarial, lambda: samples.gpt(4)]
)
def test_whatever_is_open_nothing_overlaps_and_every_wire_is_there(
    show: Show, sample: Callable[[], Report]
) -> None:
    report = sample()
    tab, choice = show(report), random.Random(7)
    views = data(page(report))["reports"][0]["views"]
    for number, view in enumerate(views):
        modules = range(1, len(view["rooms"]))
        for share in (0.0, 0.4, 0.8, 1.0):
            opened = {module for module in modules if choice.random() < share}
            tab.run(f"location.hash = '#v{number}o{'.'.join(map(str, sorted(opened))) or 0}'")
            tab.frames()
            things, pairs = expected(view, opened)
            found = json.loads(tab.run(GEOMETRY))
            assert len(found["boxes"]) == len(things)
            assert len({wire for piece in found["pieces"] for wire in piece["wires"]}) == len(pairs)
            assert problems(found, view) == []


def test_the_check_of_the_drawing_sees_what_is_wrong(show: Show) -> None:
    tab = show(samples.block())
    (view, *_) = data(page(samples.block()))["reports"][0]["views"]
    assert problems(json.loads(tab.run(GEOMETRY)), view) == []
    tab.run(
        "(() => { const [one, other] = document.querySelectorAll('.drawing .n');"
        " other.setAttribute('transform', one.getAttribute('transform'));"
        " other.replaceChildren(...[...one.children].map((part) => part.cloneNode(true))) })()"
    )
    assert any("overlap" in line for line in problems(json.loads(tab.run(GEOMETRY)), view))
    tab.run("document.querySelector('.drawing .frame').setAttribute('width', '3')")
    assert any("leaves its frame" in line for line in problems(json.loads(tab.run(GEOMETRY)), view))
    left, top, right, bottom = json.loads(tab.run(GEOMETRY))["boxes"][3]
    tab.run(
        "document.querySelector('.drawing .e .h').previousSibling.setAttribute('d',"
        f" 'M{left - 300} {(top + bottom) / 2}L{right + 5000} {(top + bottom) / 2}')"
    )
    assert any("crosses box" in line for line in problems(json.loads(tab.run(GEOMETRY)), view))
    assert any("ends nowhere" in line for line in problems(json.loads(tab.run(GEOMETRY)), view))


def test_one_module_opens_and_folds_and_all_others_stay(show: Show) -> None:
    tab = show(samples.resnet())
    before, frames = tab.run(LABELS), tab.run(FRAMES)
    press_sign(tab, sign("layer4.0"))
    during = tab.run(LABELS)
    assert "layer4.0, 25 nodes" in before
    assert "layer4.0, 25 nodes" not in during
    assert set(before) - set(during) == {"layer4.0, 25 nodes"}
    assert len(during) > len(before)
    (opened,) = set(tab.run(FRAMES)) - set(frames)
    frame = f'.m[data-module="{opened}"]'
    assert tab.text("#ae-panel h2") == "layer4.0"
    tab.wait(f"document.querySelector('{frame} .frame').getBoundingClientRect().y > 40")
    link = tab.run("location.href")
    assert "#o" in link
    press_sign(tab, sign("layer2.0"))
    both = tab.run(LABELS)
    assert "layer2.0, 25 nodes" not in both
    assert "layer4.0, 25 nodes" not in both
    tab.open(link)  # the address says what is open
    assert sorted(tab.run(LABELS)) == sorted(during)
    press_sign(tab, f"{frame} .sign")
    assert sorted(tab.run(LABELS)) == sorted(before)
    assert tab.run("location.hash") == ""


def test_modules_open_and_fold_by_keyboard(show: Show) -> None:
    tab = show(samples.resnet())
    before = tab.run(LABELS)
    box = '.drawing .n[aria-label^="layer3.0,"]'
    assert tab.run(f"document.querySelector('{box}').getAttribute('aria-expanded')") == "false"
    tab.run(f"document.querySelector('{box}').focus()")
    tab.press("Enter")
    assert tab.text("#ae-panel h2") == "layer3.0"
    assert tab.run(LABELS) == before
    tab.press("Enter")
    assert len(tab.run(LABELS)) > len(before)
    assert tab.run("document.activeElement.getAttribute('aria-expanded')") == "true"
    tab.press("f")
    assert tab.run(LABELS) == before
    assert tab.run("document.activeElement.getAttribute('aria-label')").startswith("layer3.0")
    tab.press("u")
    assert len(tab.run(LABELS)) > len(before)
    tab.click('[data-act="fold"]')
    assert tab.run(LABELS) == before


def test_a_node_in_a_folded_module_is_revealed_by_search(show: Show) -> None:
    report = samples.resnet()
    tab = show(report)
    before = set(tab.run(LABELS))
    node = next(
        node.id for node in report.graph.nodes if node.module == "layer2.0.conv2" and node.kind == "op"
    )
    tab.click("#ae-search")
    tab.type(f"n{node}")
    tab.press("Enter")
    after = set(tab.run(LABELS))
    assert before - after == {"layer2.0, 25 nodes"}
    assert tab.run("document.querySelectorAll('.ring').length") == 1
    assert tab.run("location.hash").startswith(f"#n{node}o")


def test_the_step_that_was_reached_is_kept(show: Show) -> None:
    tab = show(samples.resnet())
    for _ in range(4):
        tab.press("n")
    caption = tab.text("#ae-caption")
    press_sign(tab, sign("layer1.0"))
    assert tab.text("#ae-caption") == caption
    assert tab.text("#ae-count").startswith("4/")


def test_depths_can_be_chosen_and_one_s_own_choice_is_named(show: Show) -> None:
    tab = show(samples.resnet())
    options = "[...document.querySelectorAll('#ae-view option')].map((option) => option.textContent)"
    said = tab.run(options)
    assert any(option.startswith("modules, depth 1 ") for option in said)
    amounts = [int(option.rpartition("(")[2].rstrip(")").replace(",", "")) for option in said]
    assert amounts == sorted(amounts)
    for place, amount in enumerate(amounts):
        tab.run(
            "(() => { const choice = document.querySelector('#ae-view');"
            f" choice.selectedIndex = {place}; choice.dispatchEvent(new Event('change')) }})()"
        )
        assert len(tab.run(LABELS)) == amount
    tab.run("location.hash = '#o1'")
    tab.frames()
    assert tab.run("document.querySelector('#ae-view').selectedOptions[0].textContent").startswith(
        "as unfolded ("
    )


@pytest.mark.parametrize(
    "hash_", ["#o999999", "#v99", "#r9n1", "#n999999999", "#o-", "#o1-99999999", "#x<script>"]
)
def test_a_hostile_address_does_nothing(show: Show, hash_: str) -> None:
    tab = show(samples.block(), hash_)
    assert tab.run("document.querySelectorAll('.drawing .n').length") > 0


def test_a_parameter_inside_its_operation_unfolds_with_the_same_modules_open(show: Show) -> None:
    report = samples.resnet()
    tab = show(report)
    frames = "[...document.querySelectorAll('.drawing .m')].map((m) => m.dataset.m)"
    tab.run("location.hash = '#o0'")  # every module folded
    tab.frames()
    press_sign(tab, sign("layer4"))
    tab.click("#ae-search")
    tab.type("conv1.weight")
    tab.press("Enter")
    assert tab.text("#ae-panel h2") == "conv1.weight"
    assert tab.run("document.querySelectorAll('.ring').length") == 1
    before = [label.split(",")[0] for label in tab.run(LABELS)]
    assert "conv1.weight" not in before
    tab.press("u")
    after = [label.split(",")[0] for label in tab.run(LABELS)]
    assert "conv1.weight" in after
    assert tab.text("#ae-panel h2") == "conv1.weight"
    assert {"layer1", "layer2", "layer3"} <= set(after)  # still folded
    assert "layer4" not in after
    assert "layer4.0" in after
    assert set(tab.run(frames)) == {"conv1", "layer4"}
    tab.press("f")
    folded = [label.split(",")[0] for label in tab.run(LABELS)]
    assert "conv1" in folded
    assert "conv1.weight" not in folded
