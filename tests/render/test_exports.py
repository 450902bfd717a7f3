"""Each export read by a parser of its format that is not ours, and compared with the report."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from math import isclose, log10
from pathlib import Path

import pytest

from explorer import render
from explorer.errors import UsageError
from explorer.render import dot, fold
from explorer.render.layout import layout
from explorer.render.marks import node_rms
from explorer.report import Report, Session
from tests.render import samples
from tests.render.test_save import HOSTILE, hostile

networkx = pytest.importorskip("networkx")
pygraphviz = pytest.importorskip("pygraphviz")

SAMPLES = [samples.xyz, samples.kinds, samples.block, samples.resnet]

NODE_KEYS = {
    "id", "label", "namespace", "subgraphIds", "attrs", "incomingEdges", "outputsMetadata", "inputsMetadata",
    "style", "config",
}  # fmt: skip
"""Fields of ``GraphNode`` in ai-edge-model-explorer 0.1.34, ``graph_builder.py``."""
EDGE_KEYS = {"sourceNodeId", "sourceNodeOutputId", "targetNodeInputId"}
GRAPH_KEYS = {
    "id", "nodes", "groupNodeAttributes", "groupNodeConfigs", "nodeLabelsToHide", "tasksData",
    "layoutConfigs",
}  # fmt: skip


@pytest.mark.parametrize("make", SAMPLES)
def test_networkx_reads_graphml_with_every_node_edge_and_number(make: object, tmp_path: Path) -> None:
    report: Report = make()  # type: ignore[operator]  # a sample maker
    render.save(report, tmp_path / "a.graphml")
    read = networkx.read_graphml(tmp_path / "a.graphml", force_multigraph=True)
    assert read.number_of_nodes() == len(report.graph.nodes)
    edges = {(f"n{edge.source}", f"n{edge.target}", edge.source_slot) for edge in report.graph.edges}
    assert {(source, target, data["source_slot"]) for source, target, data in read.edges(data=True)} == edges
    for node in report.graph.nodes:
        expected, found = node_rms(report, node.id), read.nodes[f"n{node.id}"].get("gradient_rms")
        assert (found is None) == (expected is None)
        if expected is not None:
            assert expected != expected or isclose(found, expected)


@pytest.mark.parametrize("make", SAMPLES)
def test_pygraphviz_reads_dot(make: object) -> None:
    report: Report = make()  # type: ignore[operator]  # a sample maker
    source, drawing = dot.source(report), fold.draw(report)
    keys = {shape.key for shape in drawing.shapes}
    read = pygraphviz.AGraph(string=source)
    assert keys <= set(read.nodes())
    if not drawing.circuit:
        wires = {(drawing.shapes[wire.source].key, drawing.shapes[wire.target].key) for wire in drawing.wires}
        assert wires == set(read.edges())


@pytest.mark.parametrize("make", SAMPLES)
def test_expat_reads_svg_with_a_group_for_every_shape(make: object, tmp_path: Path) -> None:
    report: Report = make()  # type: ignore[operator]  # a sample maker
    render.save(report, tmp_path / "a.svg")
    root = ElementTree.parse(tmp_path / "a.svg").getroot()
    groups = {group.get("id") for group in root.iter("{http://www.w3.org/2000/svg}g")}
    assert {shape.key for shape in fold.draw(report).shapes} <= groups


@pytest.mark.parametrize("make", SAMPLES)
def test_model_explorer_files_have_the_published_keys(make: object, tmp_path: Path) -> None:
    report: Report = make()  # type: ignore[operator]  # a sample maker
    written = render.save(Session((report, report)), tmp_path / "a.modelexplorer.json")
    assert [path.name for path in written] == ["a.modelexplorer.json", "a.nodedata.json"]
    read, data = (json.loads(path.read_text("utf-8"), parse_constant=pytest.fail) for path in written)
    assert set(read) == {"label", "graphs"}
    assert set(data) == {graph["id"] for graph in read["graphs"]}
    assert len(data) == 2
    for graph in read["graphs"]:
        assert set(graph) <= GRAPH_KEYS
        nodes = {node["id"]: node for node in graph["nodes"]}
        assert len(nodes) == len(report.graph.nodes)
        edges = set()
        for node in nodes.values():
            assert set(node) <= NODE_KEYS
            assert all(set(attribute) == {"key", "value"} for attribute in node["attrs"])
            assert all(isinstance(attribute["value"], str) for attribute in node["attrs"])
            for edge in node["incomingEdges"]:
                assert set(edge) == EDGE_KEYS
                assert edge["sourceNodeId"] in nodes
                edges.add((node["id"], int(edge["targetNodeInputId"]), edge["sourceNodeId"]))
        assert edges == {
            (f"n{edge.source}", edge.source_slot, f"n{edge.target}") for edge in report.graph.edges
        }
        results = data[graph["id"]]["results"]
        for number in range(len(nodes)):
            rms = node_rms(report, number)
            told = results.get(f"n{number}")
            assert (told is not None) == bool(rms and rms == rms)
            if told is not None and rms:
                assert isclose(told["value"], log10(rms), abs_tol=1e-3)
                assert re.fullmatch("#[0-9A-F]{6}", told["bgColor"])


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_strangers_text_breaks_no_parser(name: str, tmp_path: Path) -> None:
    report = hostile(samples.kinds(), name)
    for suffix in (".svg", ".dot", ".graphml", ".mmd", ".modelexplorer.json", ".html"):
        render.save(report, tmp_path / f"a{suffix}")
    source = (tmp_path / "a.dot").read_text("utf-8")
    assert len(pygraphviz.AGraph(string=source).nodes()) == len(report.graph.nodes)
    assert networkx.read_graphml(tmp_path / "a.graphml").number_of_nodes() == len(report.graph.nodes)
    ElementTree.parse(tmp_path / "a.svg")
    graph = json.loads((tmp_path / "a.modelexplorer.json").read_text("utf-8"))["graphs"][0]
    assert len(graph["nodes"]) == len(report.graph.nodes)
    flow = (tmp_path / "a.mmd").read_text("utf-8")
    for line in flow.splitlines():
        assert not set(line) & set("\x1b\x00\x07\u202e")
        assert re.fullmatch(
            r'flowchart (TB|LR)|  %% .*|  \w+[\[(]+"[^"<>]*(<br/>[^"<>]*)*"[\])]+:::\w+|  \w+ -\.?->? \w+'
            r"|  \w+ (-->|-\.->) \w+|  classDef \w+ \S+"
            r'|  subgraph \w+\["[^"<>]*"\]|  end',
            line,
        ), line
    page = (tmp_path / "a.html").read_text("utf-8", errors="strict")
    assert page.lower().count("<script") == 2
    assert page.lower().count("</script") == 2


def test_the_same_report_gives_the_same_bytes(tmp_path: Path) -> None:
    for suffix in (".svg", ".dot", ".graphml", ".mmd", ".modelexplorer.json", ".html", ".json", ".txt"):
        first, second = tmp_path / f"a{suffix}", tmp_path / f"b{suffix}"
        render.save(samples.kinds(), first)
        render.save(samples.kinds(), second)
        assert first.read_bytes() == second.read_bytes(), suffix


def test_mermaid_honours_what_is_asked() -> None:
    whole = render.mermaid.source(samples.block(), full=True)
    part = render.mermaid.source(samples.block(), focus="block.ln_1")
    assert whole.count(":::") == len(samples.block().graph.nodes)
    assert 0 < part.count(":::") < 10
    assert "%% only block.ln_1 and its neighbours" in part


def test_mermaid_tells_modules_and_marks_as_the_pictures_do() -> None:
    lines = render.mermaid.source(samples.block(), full=True).splitlines()
    begins = [line for line in lines if line.startswith("  subgraph")]
    assert len(begins) == lines.count("  end") > 3
    assert '  subgraph c1["block"]' in begins
    marks = render.mermaid.source(samples.kinds())
    assert re.search(r'"h<br/>.*≠ mismatch.*":*[\])]+:::wrong', marks)
    for kind in ("zero", "none", "hazard"):
        assert f":::{kind}\n" in marks


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip("this system has no /dev/full")
    link = tmp_path / "a.graphml"
    link.symlink_to(full)
    with pytest.raises(UsageError, match="No space left"):
        render.save(samples.block(), link)
    assert [one.name for one in tmp_path.iterdir()] == ["a.graphml"]


def test_the_engine_draws_what_the_parsers_read() -> None:
    read = json.loads(layout(dot.source(samples.block()), "json"))
    names = {item["name"] for item in read["objects"]}
    assert {shape.key for shape in fold.draw(samples.block()).shapes} <= names
