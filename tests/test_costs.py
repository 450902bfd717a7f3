"""Memory and time by module, on a report made by hand."""

from __future__ import annotations

import pytest

from explorer.costs import costs
from explorer.graph import Edge, Graph, Node, Saved, TensorSpec
from explorer.report import GradientRecord, NodeGradients, Report

SPEC = TensorSpec((4,), "float32")


def test_a_shared_storage_counts_once_and_parameters_apart() -> None:
    nodes = (
        Node(0, "MulBackward0", module="b", saved=(Saved("self", SPEC, 16, storage=0),)),
        Node(
            1,
            "MulBackward0",
            module="a",
            saved=(
                Saved("self", SPEC, 16, storage=0),
                Saved("other", SPEC, 16, storage=1, leaf=2, owner=2),
                Saved("result", SPEC, 400, storage=2),
            ),
        ),
        Node(2, "AccumulateGrad", kind="leaf"),
    )
    graph = Graph(nodes, (Edge(0, 0, 1, 0), Edge(1, 0, 2, 0)), ((0, 0),), (1, 1, 0))
    record = GradientRecord((4,), "float32", 3.0, numel=4)
    ran = (NodeGradients((record,), 0.5), NodeGradients((record, record), 0.25), None)
    report = Report(graph, ran, (None, None))
    first, second = costs(report)
    assert (first.module, first.saved, first.parameters, first.nodes) == ("a", 400, 16, 1)
    assert (second.module, second.saved, second.parameters) == ("b", 16, 0)
    assert [cost.module for cost in costs(report, "time")] == ["b", "a"]
    assert costs(report, "gradient")[0].gradient == pytest.approx(18**0.5)
