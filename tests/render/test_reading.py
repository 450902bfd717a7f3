"""Reports read back from JSON that was changed at random: refused in our words, or drawn by all renderers."""

from __future__ import annotations

import json as standard
from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from explorer.errors import ExplorerError, UsageError
from explorer.graph import Edge, Graph
from explorer.render import dot, fields, fold, graphml, json, mermaid, modelexplorer, reading, text
from explorer.render.page.compact import Compact
from explorer.render.page.data import document
from explorer.render.page.views import View
from explorer.report import Report, Session
from tests.render import samples

WRITTEN = {make.__name__: json.dumps(make()) for make in (samples.xyz, samples.kinds, samples.reused)}
HOSTILE = (
    "</script><script>alert(1)</script>",
    "\x00\x1b[2J",
    "\u202e\ud800",
    "__import__('os')",
    "a" * 10_000,
)
ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.sampled_from([10**400, -(10**400), 2**63, -(2**63), 10**18, 1e308, -0.0, 5e-324]),
    st.sampled_from(["nan", "inf", "-inf", "NaN", "", "0", *HOSTILE]),
    st.lists(st.integers(-1, 4), max_size=3),
    st.sampled_from([[], {}, [[]], [None], {"": None}, [{}], [[[[[[[[]]]]]]]], [10**30, 10**30]]),
)


def views(report: Report) -> tuple[View, ...]:
    """The drawing of a page, not laid out."""
    return (View("overview", fold.draw(report), Compact("", (0, 0, 1, 1), {})),)


def drawn(session: Session) -> None:
    """Everything that can be made of a session without a layout engine."""
    json.dumps(session)
    text.text(session)
    modelexplorer.collection(session)
    modelexplorer.node_data(session)
    document(session, [views(report) for report in session.reports], [{} for _ in session.reports])
    for report in session.reports:
        dot.source(report)
        dot.source(report, full=True)
        mermaid.source(report)
        graphml.source(report)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a JSON document."""
    found, waiting = [], [value]
    while waiting:
        inner = waiting.pop()
        keys = (
            list(inner) if isinstance(inner, dict) else range(len(inner)) if isinstance(inner, list) else ()
        )
        found += [(inner, key) for key in keys]
        waiting += [inner[key] for key in keys]
    return found


@settings(max_examples=800, deadline=None)
@given(st.data(), st.sampled_from(sorted(WRITTEN)))
def test_changed_values_are_refused_or_drawn(data: st.DataObject, name: str) -> None:
    changed = standard.loads(WRITTEN[name])
    for _ in range(data.draw(st.integers(1, 3))):
        container, key = data.draw(st.sampled_from(places(changed)))
        value = deepcopy(data.draw(ODD))  # never put into itself: hypothesis hands out one object twice
        if value == {} and isinstance(container, dict):
            del container[key]
        else:
            container[key] = value
    _refused_or_drawn(standard.dumps(changed))


def _refused_or_drawn(written: str) -> None:
    """Read and draw; only an exception of ours, that says something short, may come of it."""
    said = ""
    try:
        drawn(json.loads(written))
    except ExplorerError as error:
        said = str(error) or "nothing"
    assert said != "nothing"
    assert len(said) < 500


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_changed_bytes_are_refused_or_read(data: st.DataObject) -> None:
    written = bytearray(WRITTEN["xyz"].encode())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(written) - 1))
        if data.draw(st.booleans()):
            del written[at : at + data.draw(st.integers(1, 40))]
        else:
            written[at] = data.draw(st.integers(0, 255))
    _refused_or_drawn(written.decode("utf-8", "replace"))


def cyclic() -> Report:
    report = samples.xyz()
    edges = (*report.graph.edges, Edge(1, 7, 0, 0))
    graph = Graph(report.graph.nodes, edges, report.graph.roots, report.graph.arity)
    return replace(report, graph=graph, edge_gradients=(*report.edge_gradients, None))


def test_a_graph_that_goes_in_circles_is_refused() -> None:
    with pytest.raises(UsageError, match="circle"):
        json.loads(json.dumps(cyclic()))


@pytest.mark.parametrize("depth", [1_000, 100_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    for opening, closing in (("[", "]"), ('{"a":', "}")):
        deep = opening * depth + "1" + closing * depth
        with pytest.raises(UsageError):
            json.loads(deep)
        with pytest.raises(UsageError):
            json.loads('{"version": 1, "reports": [' + deep + "]}")


def test_the_fuzz_would_notice_a_reader_that_lets_everything_in(monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setattr(fields, "place", lambda item, nodes: item)
    monkeypatch.setattr(reading, "_check_graph", lambda graph: None)
    changed = standard.loads(WRITTEN["xyz"])
    changed["reports"][0]["edges"][0]["target"] = 99
    with pytest.raises((IndexError, KeyError)):
        _refused_or_drawn(standard.dumps(changed))
