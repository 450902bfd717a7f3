"""The page in a real browser without a network: what it says is held against the report."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from explorer.derivatives import local_derivatives
from explorer.graph import Source
from explorer.render import fold
from explorer.render.html import page
from explorer.report import Session
from tests.browser.chromium import Page, PageError
from tests.browser.conftest import Show
from tests.render import samples
from tests.render.test_html import hostile, layers

pytestmark = pytest.mark.browser


def box(node: int) -> str:
    """Selector of the box of a node in a drawing of every node, whose boxes are in the order of the nodes."""
    return f'.drawing .n[data-s="{node}"]'


def lit_wires(tab: Page, kind: str) -> int:
    """How many wires are lit as a whole; the piece through a frame may belong to several."""
    return int(
        tab.run(
            "(() => { const all = new Map();"
            " for (const piece of document.querySelectorAll('.drawing .e'))"
            " for (const wire of piece.dataset.wires.split(' '))"
            " all.set(wire, [...(all.get(wire) || []), piece]);"
            f" return [...all.values()].filter((pieces) => pieces.every((piece) => piece.matches('.{kind}')))"
            ".length })()"
        )
    )


def transform(tab: Page) -> list[float]:
    """Place and scale of the drawing."""
    said = tab.run("document.querySelector('.moved').getAttribute('transform')")
    return [float(number) for number in re.findall(r"-?[\d.]+", said)]


def test_the_overview_says_what_the_report_says(show: Show) -> None:
    report = samples.kinds()
    tab = show(report)
    said = tab.text("#ae-panel")
    assert "9 nodes, 3 leaves" in said
    assert "1 of 8 nodes disagree with the check" in said
    for finding in report.findings:
        assert finding.message in said
        assert finding.advice in said
    assert said.index("became NaN") < said.index("received no gradient")
    assert report.problems[0] in said


def test_a_click_shows_a_node(show: Show) -> None:
    report = samples.block()
    tab = show(report, full=True)
    tab.click("#ae-fit")
    for node in (2, 5, 30):
        tab.click(box(node))
        said, spec = tab.text("#ae-panel"), report.graph.nodes[node].outputs[0]
        assert report.graph.nodes[node].name in said
        record = report.gradient(node)
        assert spec is not None
        assert record is not None
        assert " × ".join(map(str, spec.shape)) in said
        rms = float(tab.run("document.querySelector('[data-rms]').dataset.rms"))
        assert rms == pytest.approx(record.rms, rel=1e-6)
        inputs = {report.graph.edges[edge].target for edge in report.graph.outgoing[node]}
        consumers = {report.graph.edges[edge].source for edge in report.graph.incoming[node]}
        links = "[...document.querySelectorAll('.jump.{}')].map((link) => Number(link.dataset.node))"
        assert set(tab.run(links.replace("{}", "into"))) == inputs
        assert set(tab.run(links.replace("{}", "out"))) == consumers
        assert lit_wires(tab, "into") == len(inputs)
        assert lit_wires(tab, "out") == len(consumers)
        assert tab.run("location.hash") == f"#n{node}"


def test_jump_links_lead_to_the_leaves(show: Show) -> None:
    report = samples.xyz()
    tab = show(report, "#n0")
    for expected in (1, 2):
        tab.click(".jump.into")
        assert tab.run("location.hash") == f"#n{expected}"
    assert tab.text("#ae-panel h2") == "x"
    assert "−12" in tab.text("#ae-panel")


def test_a_link_opens_its_node(show: Show) -> None:
    assert show(samples.block(), "#n12").text("#ae-panel .under").endswith("node 12")
    session = Session((samples.xyz(), samples.kinds()), "train.py")
    tab = show(session, "#r2n4")
    assert tab.text("#ae-panel h2") == "h"
    assert tab.run("document.querySelector('#ae-call').value") == "1"
    assert show(samples.xyz(), "#n99").text("#ae-panel h2").startswith("f = ")


def test_a_link_can_be_copied(show: Show) -> None:
    tab = show(samples.block(), "#n12")
    tab.click('[data-act="copy"]')
    tab.wait("document.querySelector('[data-act=copy]').textContent === 'Link copied'")
    link = tab.run(
        "document.querySelector('#ae-panel input')?.value || document.querySelector('#ae-status').textContent"
    )
    assert link.endswith("page.html#n12")


def test_the_formula_and_the_mathematics(show: Show) -> None:
    report = samples.sigmoid()
    nodes = [replace(node, formula={"self": "grad * result"}) for node in report.graph.nodes]
    tab = show(replace(report, graph=replace(report.graph, nodes=tuple(nodes))), "#n2")
    said = tab.text("#ae-panel")
    (edge,) = report.graph.outgoing[2]
    assert "grad * result" in said
    assert local_derivatives(report)[edge, 0].formula in said


def test_findings_lead_to_their_nodes(show: Show) -> None:
    tab = show(samples.kinds())
    tab.click(".finding.error")
    assert tab.text("#ae-panel h2") == "Log"
    assert "NaN × 3 of 16" in tab.text("#ae-panel")
    tab.press("Escape")
    tab.click(".finding.warning")
    assert tab.text("#ae-panel h2") == "fc.bias"
    assert "not reached" in tab.text("#ae-panel")


def test_the_verdict_comes_with_its_numbers(show: Show) -> None:
    report = samples.kinds()
    said = show(report, "#n4").text("#ae-panel")
    verdict = report.verdict(4)
    assert verdict is not None
    assert f"≠ {verdict.status}" in said
    assert verdict.reason in said
    assert "4100 of its bound" in said
    assert "16 of 16 elements" in said


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("softmax", {"SoftmaxBackward0"}),
        ("c_attn weight", {"AccumulateGrad"}),
        ("MULBACKWARD0 mlp.act", {"MulBackward0"}),
    ],
)
def test_search(show: Show, query: str, expected: set[str]) -> None:
    report = samples.block()
    tab = show(report)
    tab.press("/")
    tab.type(query)
    hits = tab.run("[...document.querySelectorAll('#ae-found [role=option]')].map((hit) => hit.dataset.node)")
    words = query.lower().split()
    known = {
        node.id
        for node in report.graph.nodes
        if all(any(word in text.lower() for text in (node.name, node.label, node.module)) for word in words)
    }
    assert {int(hit) for hit in hits} == known
    assert {report.graph.nodes[int(hit)].name for hit in hits} == expected
    tab.press("Enter")
    assert tab.run("location.hash") == f"#n{hits[0]}"


def test_search_by_source_line(show: Show) -> None:
    report = samples.block()
    nodes = list(report.graph.nodes)
    nodes[7] = replace(nodes[7], source=Source("model.py", 41, "y = torch.tanh(x)"))
    tab = show(replace(report, graph=replace(report.graph, nodes=tuple(nodes))))
    for query in ("model.py:41", "torch.tanh(x)"):
        tab.press("/")
        tab.type(query)
        assert tab.run("document.querySelectorAll('#ae-found [role=option]').length") == 1
        tab.press("Enter")
        assert "model.py:41" in tab.text("#ae-panel")
        assert tab.text(".code .here").endswith("y = torch.tanh(x)")
        tab.press("Escape")


def test_paths(show: Show) -> None:
    report = samples.block()
    tab = show(report, "#n20", full=True)
    for towards, edges, end in (
        ("loss", report.graph.incoming, "source"),
        ("leaves", report.graph.outgoing, "target"),
    ):
        tab.click(f'[data-path="{towards}"]')
        reached, waiting = {20}, [20]
        while waiting:
            new = {getattr(report.graph.edges[edge], end) for edge in edges[waiting.pop()]} - reached
            reached |= new
            waiting += new
        assert tab.run("document.querySelectorAll('.dim .n.on').length") == len(reached)
    assert tab.run("document.querySelector('[data-path=leaves]').getAttribute('aria-pressed')") == "true"


def test_pan_zoom_and_fit(show: Show) -> None:
    tab = show(samples.block())
    tab.click("#ae-fit")
    fitted = transform(tab)
    tab.mouse("mouseMoved", 100, 300)
    tab.mouse("mousePressed", 100, 300, button="left", buttons=1, clickCount=1)
    for place in range(1, 6):
        tab.mouse("mouseMoved", 100 + 10 * place, 300 + 8 * place, button="left", buttons=1)
    tab.mouse("mouseReleased", 150, 340, button="left", clickCount=1)
    moved = transform(tab)
    assert moved[0] - fitted[0] == pytest.approx(50, abs=1)
    assert moved[1] - fitted[1] == pytest.approx(40, abs=1)
    tab.mouse("mouseWheel", 400, 400, deltaX=0, deltaY=-300)
    tab.frames()
    assert transform(tab)[2] > moved[2]
    tab.press("0")
    assert transform(tab) == fitted
    tab.press("+")
    assert transform(tab)[2] == pytest.approx(fitted[2] * 1.25, rel=1e-3)
    tab.press("-")
    tab.press("ArrowLeft")
    assert transform(tab)[0] == pytest.approx(fitted[0] + 60, abs=1)


def test_pinch(show: Show) -> None:
    tab = show(samples.block())
    before = transform(tab)[2]
    for kind, apart in (("touchStart", 40), ("touchMove", 60), ("touchMove", 90), ("touchMove", 120)):
        points = [{"x": 400 - apart, "y": 300, "id": 1}, {"x": 400 + apart, "y": 300, "id": 2}]
        tab.call("Input.dispatchTouchEvent", type=kind, touchPoints=points)
    tab.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])
    tab.frames()
    assert transform(tab)[2] > before * 1.5


def test_the_keyboard_alone_is_enough(show: Show) -> None:
    tab = show(samples.xyz())
    order = []
    for _ in range(14):
        tab.call("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        tab.call("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        order.append(tab.run("document.activeElement.id || document.activeElement.getAttribute('class')"))
    assert order.index("ae-search") < order.index("ae-fit") < order.index("ae-stage") < order.index("n")
    assert order.index("n") < order.index("ae-play") < order.index("ae-slider")
    tab.run("document.querySelector('#ae-stage').focus()")
    tab.press("ArrowUp", shift=True)
    assert tab.run("location.hash") == "#n0"
    tab.press("ArrowUp", shift=True)
    assert tab.run("location.hash") == "#n1"
    tab.press("ArrowDown", shift=True)
    assert tab.run("location.hash") == "#n0"
    nameless = tab.run(
        "[...document.querySelectorAll('button, select, input, [role=button], svg.drawing')].filter((e) =>"
        " !(e.getAttribute('aria-label') || e.innerText || e.closest('label'))).map((e) => e.outerHTML)"
    )
    assert nameless == []


def luminance(colour: str) -> float:
    """Relative luminance of ``rgb(…)``, by WCAG 2."""
    channels = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_has_contrast(show: Show, scheme: str) -> None:
    tab = show(samples.kinds())
    tab.prefer(prefers_color_scheme=scheme)
    tab.frames()
    assert tab.run("document.documentElement.dataset.theme") == scheme
    pairs = tab.run(
        "['h2', '.under', '.finding.error b', '.finding.warning b', 'h3'].map((name) => {"
        " const e = document.querySelector('#ae-panel ' + name); let back = e;"
        " while (getComputedStyle(back).backgroundColor === 'rgba(0, 0, 0, 0)') back = back.parentElement;"
        " return [getComputedStyle(e).color, getComputedStyle(back).backgroundColor] })"
    )
    for ink, back in pairs:
        low, high = sorted((luminance(ink), luminance(back)))
        assert (high + 0.05) / (low + 0.05) >= 4.5, (ink, back)


def test_the_dark_recolours_what_stands_on_the_page(show: Show) -> None:
    tab = show(samples.block())
    colour = "getComputedStyle(document.querySelector('.m > text')).fill"
    fill = "getComputedStyle(document.querySelector('.n > rect')).fill"
    frame_, box_ = tab.run(colour), tab.run(fill)
    tab.click("#ae-theme")
    assert tab.run("document.documentElement.dataset.theme") == "dark"
    assert luminance(tab.run(colour)) > luminance(frame_)
    assert tab.run(fill) == box_


def test_hostile_text_is_shown_as_text(show: Show) -> None:
    tab = show(hostile())
    tab.run("window.alert = () => { window.struck = true }")
    for node in range(9):
        tab.run(f"location.hash = '#n{node}'")
        tab.frames()
    assert not tab.run("Boolean(window.struck)")
    assert tab.run("document.querySelectorAll('#ae-panel img, #ae-panel script').length") == 0
    tab.run("location.hash = '#n9'")
    tab.frames()
    assert tab.text("#ae-panel h2") == "</script><script>alert(1)</script>"
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")


def test_a_narrow_window(show: Show) -> None:
    tab = show(samples.block(), "#n5", size=(400, 800))
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert tab.run("document.querySelector('#ae-stage').clientHeight") > 200
    assert tab.run("document.querySelector('#ae-panel').getBoundingClientRect().width") == 400


def test_several_calls(show: Show) -> None:
    tab = show(Session((samples.xyz(), replace(samples.kinds(), call=2)), "train.py"))
    assert tab.text("#ae-panel h2").startswith("f = ")
    tab.run(
        "(() => { const call = document.querySelector('#ae-call'); call.value = '1';"
        " call.dispatchEvent(new Event('change')) })()"
    )
    assert "9 nodes" in tab.text("#ae-panel")


def test_the_layers_are_plotted(show: Show) -> None:
    report = samples.block()
    tab = show(report)
    rows = tab.run(
        "[...document.querySelectorAll('.flow .row')].map((row) => row.getAttribute('aria-label'))"
    )
    parameters = [node for node in report.graph.nodes if node.role == "parameter"]
    assert len(rows) == len({node.label.rpartition(".")[0] for node in parameters})
    said = " ".join(rows)
    assert all(node.label in said for node in parameters)
    tab.click(".flow .row")
    assert "parameter" in tab.text("#ae-panel")


@pytest.mark.parametrize("nodes", [1498])
def test_a_large_page_keeps_up(show: Show, nodes: int) -> None:
    tab = show(layers(299))
    tab.run(
        "(() => { const choice = document.querySelector('#ae-view');"
        " choice.selectedIndex = choice.options.length - 1;"
        " choice.dispatchEvent(new Event('change')) })()"
    )
    assert tab.run("document.querySelectorAll('.drawing .n').length") >= nodes
    tab.click("#ae-fit")
    assert tab.run("document.querySelector('#ae-stage').classList.contains('far')")
    worst = tab.run(
        "(async () => { const stage = document.querySelector('#ae-stage'), times = [];"
        " for (let n = 0; n < 20; n += 1) { const start = performance.now();"
        " const key = n % 2 ? 'ArrowUp' : 'ArrowDown';"
        " stage.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));"
        " stage.getBoundingClientRect(); times.push(performance.now() - start) }"
        " return times.sort((a, b) => a - b)[10] })()"
    )
    assert worst < 16


def test_a_broken_script_is_noticed(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "broken.html"
    file.write_text(
        page(samples.xyz()).replace('"use strict";', '"use strict"; nothing();'), encoding="utf-8"
    )
    tab.open(file.as_uri())
    assert tab.complaints()
    file.write_text("<script>throw new Error('planted')</script>")
    tab.open(file.as_uri())
    assert "planted" in "".join(tab.complaints())
    with pytest.raises(PageError):
        tab.run("nothing()")


def test_a_page_opens_at_what_it_was_focused_on(show: Show) -> None:
    report = samples.block()
    tab = show(report, focus="block.ln_1")
    shapes = "document.querySelectorAll('.drawing .n').length"
    drawn = tab.run(shapes)
    assert 0 < drawn < 10
    assert "only block.ln_1 and its neighbours" in tab.text("#ae-panel")
    far = next(node.id for node in report.graph.nodes if node.module == "block.mlp.c_proj")
    tab.click("#ae-search")
    tab.type(f"n{far}")
    tab.press("Enter")  # a node that the first drawing leaves out: a drawing that has it is shown
    tab.wait(f"{shapes} > {drawn}")
    assert report.graph.nodes[far].name in tab.text("#ae-panel")
    assert tab.run("document.querySelectorAll('.ring').length") == 1


def test_a_large_graph_tells_all_nodes_but_details_only_of_those_drawn(show: Show) -> None:
    report = samples.lstm()
    tab = show(report)
    assert "details of" in tab.text("#ae-panel")
    boxes = [shape.members for shape in fold.draw(report).shapes if len(shape.members) > 2]
    briefly = {}
    for node in (boxes[0][0], boxes[0][1]):
        tab.run("document.querySelector('#ae-search').value = ''")
        tab.click("#ae-search")
        tab.type(f"n{node}")
        tab.press("Enter")
        said = tab.text("#ae-panel")
        assert f"node {node}" in said
        assert report.graph.nodes[node].name in said
        briefly[node] = f"--focus {node}" in said
        assert ("verdict" in said.lower() or "match" in said.lower()) != briefly[node]
    assert list(briefly.values()) == [False, True]
