"""The page as a file: what is in it, how large it is, and that no text of a stranger can leave its place."""

from __future__ import annotations

import base64
import hashlib
import html as entities
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from explorer.errors import UsageError
from explorer.graph import Graph, Node, Source
from explorer.render.html import frame, page
from explorer.report import Finding, Report, Session
from tests.render import samples

HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "{{DATA}} {{SCRIPT}}",
    "\u202egnp.exe \u2028\u2029",
    "שלום עולם",
    "🦊👩‍👩‍👧",
    "a\nb\x00c\x1b[31m",
    "<!--<script>",
    "long " * 2000,
)


class Reader(HTMLParser):
    """Collects elements, and what stands inside each script, as a browser would."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self._open = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag == "script":
            self._open = True
            self.scripts.append((dict(attrs), ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "script":
            self._open = False

    def handle_data(self, data: str) -> None:
        if self._open:
            attributes, said = self.scripts[-1]
            self.scripts[-1] = attributes, said + data


def data(text: str) -> dict[str, Any]:
    """The report inside a page."""
    (found,) = [said for attributes, said in Reader(text).scripts if attributes.get("type")]
    parsed: dict[str, Any] = json.loads(found)
    return parsed


def hostile() -> Report:
    """A small graph in which every text is one of a stranger's."""
    report = samples.block()
    nodes = [
        replace(
            node,
            label=HOSTILE[node.id % len(HOSTILE)],
            names=(HOSTILE[(node.id + 1) % len(HOSTILE)],),
            module=HOSTILE[node.id % 3] if node.id % 2 else node.module,
            note=HOSTILE[node.id % len(HOSTILE)],
            hooks=(HOSTILE[0],),
            formula={"self": HOSTILE[0]},
            source=Source(HOSTILE[node.id % len(HOSTILE)], 3, HOSTILE[0], HOSTILE[1]),
        )
        for node in report.graph.nodes
    ]
    graph = Graph(tuple(nodes), report.graph.edges, report.graph.roots, report.graph.arity)
    finding = Finding(HOSTILE[0], "error", HOSTILE[1], HOSTILE[0], 3, Source(HOSTILE[0], 1, HOSTILE[0]))
    return replace(report, graph=graph, findings=(finding,), root_name=HOSTILE[0], script=HOSTILE[1])


def layers(amount: int) -> Report:
    """A multilayer perceptron of five nodes a layer and three more."""
    build = samples.Builder()
    after = build.op("Mul", build.op("Mean"), shape=(8, 16))
    for layer in range(amount):
        module = f"layers.{layer}"
        relu = build.op("Relu", after, shape=(8, 16), module=module)
        after = build.op("Addmm", relu, shape=(8, 16), module=module)
        build.leaf(f"{module}.bias", after, shape=(16,), module=module)
        turned = build.op("T", after, shape=(16, 16), module=module)
        build.leaf(f"{module}.weight", turned, shape=(16, 16), module=module)
    build.leaf("x", after, shape=(8, 16), role="input")
    return samples.filled(build.graph(), samples.wave)


@pytest.mark.parametrize(("amount", "nodes", "most"), [(8, 43, 150_000), (299, 1498, 2_500_000)])
def test_size(amount: int, nodes: int, most: int) -> None:
    report = layers(amount)
    assert len(report.graph.nodes) == nodes
    text = page(report)
    assert len(text.encode()) < most
    whole = max(data(text)["reports"][0]["views"], key=lambda view: len(view["shapes"]))
    assert len(whole["shapes"]) >= nodes


def test_the_policy_lets_this_script_run_and_nothing_else() -> None:
    text = page(samples.block())
    read = Reader(text)
    (policy,) = [a["content"] for tag, a in read.elements if tag == "meta" and "http-equiv" in a]
    (script,) = [said for attributes, said in read.scripts if not attributes]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy is not None
    assert "default-src 'none'" in policy
    assert f"script-src 'sha256-{digest}'" in policy
    assert "http" not in policy
    addresses = set(re.findall(r"https?://[^\s\"'<>)]+", text))
    assert addresses == {"http://www.w3.org/2000/svg"}
    assert not [a for _, a in read.elements if {"src", "href", "srcset"} & set(a)]


def test_the_same_report_gives_the_same_bytes() -> None:
    assert page(samples.kinds()) == page(samples.kinds())


def test_hostile_text_stays_text() -> None:
    plain, text = Reader(page(samples.block())), page(hostile())
    read = Reader(text)
    assert len(read.scripts) == len(plain.scripts) == 2
    assert {tag for tag, _ in read.elements} <= {tag for tag, _ in plain.elements}
    assert not [name for _, a in read.elements for name in a if name.startswith("on")]
    found = data(text)
    assert "</script><script>alert(1)</script>" in found["strings"]
    assert max(map(len, found["strings"])) <= 2000
    assert not {"\u202e", "\u2028", "\x00", "\x1b", "\n"} & set("".join(found["strings"]))
    (raw,) = re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)
    assert "<" not in raw


def test_the_data_is_the_report() -> None:
    report = samples.kinds()
    (found,) = data(page(report))["reports"]
    strings = data(page(report))["strings"]
    assert [strings[node["n"]] for node in found["nodes"]] == [node.name for node in report.graph.nodes]
    assert [tuple(edge) for edge in found["edges"]] == [
        (edge.source, edge.source_slot, edge.target, edge.target_slot) for edge in report.graph.edges
    ]
    assert found["nodes"][1]["g"][0]["x"] == [3, 0]
    assert found["nodes"][1]["g"][0]["n"] == "nan"
    assert found["nodes"][2]["g"][0]["z"] == 1
    assert "g" not in found["nodes"][6]
    assert strings[found["nodes"][4]["d"][0]] == "mismatch"
    assert [finding["code"] for finding in found["findings"]] == [f.code for f in report.findings]


def test_lines_are_read_only_where_they_still_say_the_same(tmp_path: Path) -> None:
    program = tmp_path / "train.py"
    program.write_text("".join(f"line_{number} = {number}\n" for number in range(1, 21)))
    secret = tmp_path / "secret.py"
    secret.write_text("one\ntwo\nthree\n")

    def known(file: Path, line: int, code: str) -> dict[str, str]:
        node = Node(0, "MulBackward0", label="y", source=Source(str(file), line, code))
        report = Report(Graph((node,), (), ((0, 0),), (0,)))
        lines: dict[str, str] = data(page(report))["lines"].get(str(file), {})
        return lines

    around = known(program, 10, "line_10 = 10")
    assert around == {str(number): f"line_{number} = {number}" for number in range(7, 14)}
    assert known(program, 2, "line_2 = 2")["1"] == "line_1 = 1"
    assert known(program, 10, "changed = 1") == {"10": "changed = 1"}
    assert known(secret, 2, "") == {}
    assert known(tmp_path / "none.py", 2, "x = 1") == {"2": "x = 1"}


def test_every_box_and_wire_of_a_circuit_is_drawn() -> None:
    for report in (samples.xyz(), samples.sigmoid()):
        text = page(report)
        view = data(text)["reports"][0]["views"][0]
        drawing = text[text.index('<svg class="drawing"') : text.index("</svg>")]
        boxes = {int(place) for place in re.findall(r'data-s="(\d+)"', drawing)}
        wires = {int(place) for place in re.findall(r'data-w="(\d+)"', drawing)}
        assert boxes == set(range(len(view["shapes"])))
        assert wires == set(range(len(view["wires"])))


@pytest.mark.parametrize("sample", [samples.block, samples.kinds, samples.resnet])
def test_every_module_is_drawn_with_what_is_in_it(sample: Callable[[], Report]) -> None:
    text = page(sample())
    for number, view in enumerate(data(text)["reports"][0]["views"]):
        drawing = text[text.index(f'data-view="0-{number}"') :]
        parts = drawing[: drawing.index("</svg>")].split('<g data-room="')[1:]
        assert len(parts) == len(view["rooms"])
        boxes = sum(len(re.findall(r'data-t="\d+"', part)) for part in parts)
        assert (
            boxes == len(view["shapes"]) + len(view["rooms"]) - 1
        )  # each shape once, each module as a box once
        for room, part in zip(view["rooms"], parts, strict=True):
            assert {thing for thing, *_ in room["t"]} == set(map(int, re.findall(r'data-t="(\d+)"', part)))
            ends = {
                int(end) for pair in re.findall(r'data-e="(-?\d+,-?\d+)~?"', part) for end in pair.split(",")
            }
            assert ends <= {thing for thing, *_ in room["t"]} | {-1 - door for door in range(len(room["d"]))}
            assert {end for end in ends if end < 0} == {-1 - door for door in range(len(room["d"]))}


def test_a_session_holds_every_report() -> None:
    first, second = samples.xyz(), replace(samples.kinds(), call=2)
    text = page(Session((first, second), "train.py", "2.13.0", 2))
    assert [report["call"] for report in data(text)["reports"]] == [1, 2]
    assert text.count('data-view="1-0"') == 1


def test_a_session_without_reports() -> None:
    assert data(page(Session((), "train.py", "2.13.0", 0)))["reports"] == []


def levels(view: dict[str, Any]) -> list[int]:
    """How many modules each module of a view is in."""
    found: list[int] = []
    for room in view["rooms"]:
        found.append(0 if room["u"] < 0 else found[room["u"]] + 1)
    return found


def test_depth_opens_that_depth() -> None:
    view = data(page(samples.block(), depth=1))["reports"][0]["views"][0]
    assert view["label"] == "modules, depth 1"
    assert view["opened"] == [0]
    view = data(page(samples.block(), depth=2))["reports"][0]["views"][0]
    assert view["opened"] == [number for number, level in enumerate(levels(view)) if level < 2]
    assert len(view["opened"]) == 2


def test_beyond_the_limit_not_every_node_is_drawn() -> None:
    views = data(page(samples.gpt(4), limit=100))["reports"][0]["views"]
    assert all(len(view["shapes"]) <= 150 for view in views)


def test_the_frame_holds_the_page() -> None:
    text = frame(samples.xyz(), height=300)
    ((tag, attributes),) = Reader(text).elements
    assert (tag, attributes["sandbox"]) == ("iframe", "allow-scripts")
    assert attributes["srcdoc"] == page(samples.xyz())
    assert entities.escape(page(samples.xyz())) in text


def test_a_huge_graph_gives_a_small_page() -> None:
    assert len(page(samples.lstm()).encode("utf-8")) < 5_000_000
    assert len(page(samples.tangle()).encode("utf-8")) < 5_000_000


def test_what_is_asked_is_drawn_first() -> None:
    report = samples.block()
    drawn = {
        "every node": page(report, full=True),
        "focus: block.ln_1": page(report, focus="block.ln_1"),
        "modules, depth 2": page(report, depth=2),
    }
    for label, whole in drawn.items():
        first, *others = data(whole)["reports"][0]["views"]
        assert first["label"] == label
        assert others
    with pytest.raises(UsageError, match="nothing in the graph"):
        page(report, focus="absent")
