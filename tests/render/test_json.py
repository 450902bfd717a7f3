"""JSON by the contract, and back; hostile input is refused with a clear message."""

from __future__ import annotations

import json as standard
import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import UsageError
from explorer.graph import Source
from explorer.render import json
from explorer.report import GradientRecord, NodeGradients, Report, Session
from tests.render import samples


@pytest.mark.parametrize("make", [samples.xyz, samples.sigmoid, samples.block])
def test_a_report_comes_back_as_it_was(make: object) -> None:
    report = make()  # type: ignore[operator]  # a sample maker
    assert json.loads(json.dumps(report)).reports == (report,)


def test_a_session_comes_back_as_it_was() -> None:
    session = Session((samples.xyz(), samples.sigmoid()), "a.py", "2.13.0", 5)
    assert json.loads(json.dumps(session)) == session
    assert json.loads(json.dumps(Session((), "a.py", "2.13.0"))) == Session((), "a.py", "2.13.0")


def test_the_contract_is_kept() -> None:
    document = standard.loads(json.dumps(samples.kinds()))
    assert {"version", "torch", "script", "reports"} <= set(document)
    report = document["reports"][0]
    assert report["where"] == {"file": "train.py", "line": 40, "code": "loss.backward()", "function": ""}
    node = report["nodes"][5]
    assert node["outputs"] == [{"shape": [2, 8], "dtype": "float32", "device": "cpu", "layout": "strided"}]
    assert {"id", "name", "kind", "label", "module", "source", "formula", "seconds"} <= set(node)
    assert {"name": "mat1", "shape": [2, 16], "dtype": "float32", "bytes": 128}.items() <= node["saved"][
        0
    ].items()
    assert {"status", "reason", "ratio", "elements", "of"} == set(node["verdict"])
    assert node["gradient"]["norm"] == pytest.approx(2.8e-3 * 4)
    assert report["nodes"][1]["gradient"]["norm"] == "nan"
    assert report["nodes"][6]["gradient"] is None
    assert {"source": 0, "source_slot": 0, "target": 1, "target_slot": 0}.items() <= report["edges"][
        0
    ].items()
    assert report["check"]["end_to_end"] == "off"
    assert {"code", "severity", "message", "advice", "node", "where"} <= set(report["findings"][0])


def test_edges_between_numbers_have_their_local_derivative() -> None:
    edges = standard.loads(json.dumps(samples.sigmoid()))["reports"][0]["edges"]
    known = [edge["local"] for edge in edges if edge["local"] is not None]
    assert known
    assert all({"value", "formula", "basis", "note"} == set(one) for one in known)
    nodes = standard.loads(json.dumps(samples.sigmoid()))["reports"][0]["nodes"]
    for edge in edges:
        if edge["local"] is not None and edge["gradient"] is not None:
            (upstream,) = nodes[edge["source"]]["gradient"]["values"]
            (downstream,) = edge["gradient"]["values"]
            # the sample's numbers are CS231n's, printed with two digits
            assert upstream * edge["local"]["value"] == pytest.approx(downstream, abs=6e-3)
    tensors = standard.loads(json.dumps(samples.block()))["reports"][0]["edges"]
    assert {edge["local"] is None for edge in tensors} == {True}


def test_the_total_gradient_is_over_all_outputs() -> None:
    report = samples.xyz()
    two = NodeGradients((samples.record(3.0), None, samples.record(4.0)))
    document = standard.loads(json.dumps(replace(report, gradients=(two, *report.gradients[1:]))))
    node = document["reports"][0]["nodes"][0]
    assert node["gradient"]["norm"] == 5.0
    assert node["gradient"]["values"] is None
    assert [None if one is None else one["values"] for one in node["gradients"]] == [[3.0], None, [4.0]]


def test_numbers_that_json_lacks_come_back() -> None:
    report = samples.xyz()
    values = (math.inf, -math.inf, 1 + 2j, complex(0.0, math.inf))
    odd = GradientRecord((4,), "complex64", math.inf, finite=False, infs=3, numel=4, values=values)
    report = replace(report, edge_gradients=(odd, *report.edge_gradients[1:]))
    written = json.dumps(report)
    assert json.loads(written).reports[0].edge_gradients[0] == odd
    assert '"values":["inf","-inf",[1.0,2.0],[0.0,"inf"]]' in written


@settings(max_examples=60, deadline=None)
@given(st.text(), st.floats(), st.integers(0, 10**6))
def test_any_text_and_number_comes_back(name: str, norm: float, line: int) -> None:
    report = samples.xyz()
    node = replace(report.graph.nodes[2], label=name, names=(name,))
    graph = replace(report.graph, nodes=(*report.graph.nodes[:2], node, *report.graph.nodes[3:]))
    report = replace(report, graph=graph, seconds=norm, where=Source(name, line, name))
    back = json.loads(json.dumps(report)).reports[0]
    assert back.graph == graph
    assert back.where == report.where
    assert back.seconds == norm or math.isnan(norm)


def test_every_truncation_is_refused() -> None:
    written = json.dumps(samples.xyz())
    for end in range(0, len(written) - 2, 97):
        with pytest.raises(UsageError):
            json.loads(written[:end])


def changed(path: tuple[str | int, ...], value: object) -> str:
    """The JSON of a report with one value replaced."""
    document = standard.loads(json.dumps(samples.xyz()))
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return standard.dumps(document)


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (("version",), 2, "version 2"),
        (("reports",), 7, '"reports" is no list'),
        (("reports", 0, "nodes", 1, "id"), 5, "node 1 has the id 5"),
        (("reports", 0, "nodes", 1, "kind"), "virus", "virus"),
        (("reports", 0, "nodes", 1, "label"), ["x"], '"label" is no text'),
        (("reports", 0, "edges", 0, "target"), 99, "no node 99"),
        (("reports", 0, "edges", 0, "target"), -1, "no node -1"),
        (("reports", 0, "findings"), [{}], "missing"),
        (("reports", 0, "check", "statuses"), {"perfect": 1}, "perfect"),
        (("reports", 0, "nodes", 0, "gradient"), None, None),
        (("reports", 0, "nodes", 0, "gradients"), {"a": 1}, '"gradients" is no list'),
        (("reports", 0, "nodes", 0, "outputs"), [{"shape": "xx"}], "no shape"),
        (("reports", 0, "recorded"), None, "not a report"),
    ],
)
def test_hostile_values_are_refused_by_name(
    path: tuple[str | int, ...], value: object, said: str | None
) -> None:
    if said is None:
        assert isinstance(json.loads(changed(path, value)), Session)
        return
    with pytest.raises(UsageError, match=said):
        json.loads(changed(path, value))


@pytest.mark.parametrize(
    "content", ["", "null", "[]", "{}", "NaN", '{"version":1}', "[" * 100_000, "\x00", "1" * 5000]
)
def test_other_files_are_refused(content: str) -> None:
    with pytest.raises(UsageError):
        json.loads(content)


def test_a_report_without_anything_recorded_comes_back() -> None:
    report = Report(samples.xyz().graph, call=0)
    assert json.loads(json.dumps(report)).reports == (report,)
