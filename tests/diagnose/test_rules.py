"""Each rule at its threshold: a planted case, and the healthy neighbour just beside it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from explorer.diagnose import CODES, diagnose
from explorer.diagnose.gradient_flow import exploding_gradient
from explorer.evidence import (
    Broadcast,
    Cut,
    Damage,
    Evidence,
    Growth,
    Looked,
    ParameterFact,
    Reused,
    Units,
    Unlisted,
)
from explorer.graph import Edge, Graph, Node, Saved, Source, TensorSpec
from explorer.report import Finding, GradientRecord, NodeGradients, Report, Verdict

LINE = Source("train.py", 7, "y = f(x)")
RUN = Evidence(calls=1)


def vector(norm: float, dtype: str = "float32") -> GradientRecord:
    return GradientRecord((4,), dtype, norm, zero=norm == 0, numel=4)


def layered(*norms: float, op: str = "AddmmBackward0", shape: tuple[int, ...] = (4, 4)) -> Report:
    """A chain of layers with a weight each; layer i receives a gradient of norm ``norms[i]``."""
    nodes: list[Node] = []
    edges: list[Edge] = []
    count = len(norms)
    for i in range(count):
        nodes.append(Node(i, op, module=f"layer{i}", source=LINE))
        if i + 1 < count:
            edges.append(Edge(i, 0, i + 1, 0))
    for i in range(count):
        spec = (TensorSpec(shape, "float32"),)
        nodes.append(Node(count + i, "AccumulateGrad", kind="leaf", label=f"w{i}", outputs=spec))
        edges.append(Edge(i, 1, count + i, 0))
    gradients = tuple(NodeGradients((vector(norm),), index=i) for i, norm in enumerate((*norms, *norms)))
    sent = tuple(vector(norms[min(edge.target, count - 1)]) for edge in edges)
    return Report(Graph(tuple(nodes), tuple(edges), ((0, 0),), ()), gradients, sent)


def found(report: Report, evidence: Evidence = RUN) -> list[Finding]:
    findings, problems = diagnose(report, evidence)
    assert not problems
    return list(findings)


def codes(report: Report, evidence: Evidence = RUN) -> list[str]:
    return [finding.code for finding in found(report, evidence)]


def test_all_are_looked_for() -> None:
    # sixteen rows of the table, two of them with two codes, and what was added since
    assert len(CODES) == len(set(CODES)) > 18


@pytest.mark.parametrize(
    ("factor", "layers", "code"),
    [
        (0.13, 20, ["vanishing-gradient"]),
        (0.40, 20, ["vanishing-gradient"]),
        (0.65, 40, []),
        (0.85, 20, []),
        (0.13, 3, []),
        (2.87, 20, ["exploding-gradient"]),
        (1.4, 40, []),
        (0.91, 20, []),
    ],
)
def test_gradient_flow(factor: float, layers: int, code: list[str]) -> None:
    assert codes(layered(*(factor**i for i in range(layers)))) == code


def test_one_pooling_step_is_not_vanishing() -> None:
    assert codes(layered(1.0, *(1e-5 for _ in range(6)))) == []


def beside(bypassed: float) -> Report:
    """Ten layers, each taking a tenth of the gradient, and a way around them that brings `bypassed`."""
    report = layered(*(0.1**i for i in range(10)))
    graph, total = report.graph, 0.1**9 + bypassed
    around = Edge(0, 2, 9, 0)
    gradients = list(report.gradients)
    gradients[9] = NodeGradients((vector(total),), index=9)
    return Report(
        Graph(graph.nodes, (*graph.edges, around), graph.roots, ()),
        tuple(gradients),
        (*report.edge_gradients, vector(bypassed)),
    )


def test_a_gradient_that_arrives_by_another_way_has_not_vanished() -> None:
    assert codes(beside(1e-12)) == ["vanishing-gradient"]
    assert codes(beside(0.5)) == []


@pytest.mark.parametrize(
    ("norms", "code"),
    [((), ["vanishing-gradient"]), ((3, 6), []), ((2,), ["vanishing-gradient"])],
    ids=["none", "every third layer", "near the loss"],
)
def test_sizes_are_not_compared_across_a_normalisation(norms: tuple[int, ...], code: list[str]) -> None:
    report = layered(*(0.13**i for i in range(9)))
    graph = report.graph
    nodes = tuple(
        replace(node, name="NativeLayerNormBackward0") if node.id in norms else node for node in graph.nodes
    )
    assert codes(replace(report, graph=Graph(nodes, graph.edges, graph.roots, ()))) == code


def test_recurrent_weights_and_vectors_are_no_layers() -> None:
    assert codes(layered(*(0.1**i for i in range(10)), shape=(4,))) == []


def recurrent(factor: float, steps: int, chained: bool = True) -> Report:
    """One matrix, used `steps` times one after another, or beside each other."""
    report = layered(*(factor**i for i in range(steps)))
    graph = report.graph
    edges = [Edge(edge.source, 1, steps, 0) if edge.source_slot else edge for edge in graph.edges]
    if not chained:
        edges = [edge if edge.source_slot else Edge(0, 2 + edge.target, edge.target, 0) for edge in edges]
    nodes = graph.nodes[: steps + 1]
    return Report(
        Graph(nodes, tuple(edges), ((0, 0),), ()), report.gradients[: steps + 1], report.edge_gradients
    )


@pytest.mark.parametrize(
    ("factor", "steps", "chained", "code"),
    [
        (1.6, 20, True, ["exploding-gradient"]),
        (1.4, 60, True, []),
        (10.0, 3, True, []),
        (1.6, 20, False, []),
        (0.3, 20, True, []),  # what was long ago matters less
    ],
    ids=["explodes", "grows slowly", "short", "beside each other", "forgets"],
)
def test_a_matrix_used_again_and_again(factor: float, steps: int, chained: bool, code: list[str]) -> None:
    findings = list(exploding_gradient(recurrent(factor, steps, chained), RUN))
    assert [finding.code for finding in findings] == code
    if code:
        assert "x1.6 a step" in findings[0].message
        assert "20 uses of `w0`" in findings[0].message


def killer(name: str, sent: float, total: float) -> Report:
    nodes = (
        Node(0, "SumBackward0"),
        Node(1, name, source=LINE),
        Node(2, "AccumulateGrad", kind="leaf", label="x"),
    )
    edges = (Edge(0, 0, 1, 0), Edge(1, 0, 2, 0), Edge(0, 1, 2, 0))
    gradients = tuple(NodeGradients((vector(n),), index=i) for i, n in enumerate((1.0, 1.0, total)))
    return Report(
        Graph(nodes, edges, ((0, 0),), (2, 1, 0)), gradients, (vector(1.0), vector(sent), vector(total))
    )


def test_gradient_killed() -> None:
    (finding,) = found(killer("RoundBackward0", 0.0, 0.0))
    assert (finding.code, finding.severity, finding.node, finding.where) == (
        "gradient-killed",
        "error",
        1,
        LINE,
    )
    assert found(killer("ClampBackward1", 0.0, 0.0))[0].severity == "warning"
    assert codes(killer("RoundBackward0", 0.0, 1.0)) == []  # straight through: x gets it another way
    assert codes(killer("MulBackward0", 0.0, 0.0)) == []
    assert codes(killer("ClampBackward1", 0.5, 0.5)) == []


def test_fan_in_cancellation() -> None:
    def junction(total: float) -> Report:
        nodes = (
            Node(0, "AddBackward0"),
            Node(1, "MulBackward0"),
            Node(2, "MulBackward0"),
            Node(3, "AccumulateGrad", kind="leaf", label="x"),
        )
        edges = (Edge(0, 0, 1, 0), Edge(0, 1, 2, 0), Edge(1, 0, 3, 0), Edge(2, 0, 3, 0))
        gradients = tuple(NodeGradients((vector(n),)) for n in (1.0, 1.0, 1.0, total))
        return Report(
            Graph(nodes, edges, ((0, 0),), (2, 1, 1, 0)), gradients, tuple(map(vector, (1, 1, 1.73, 1.73)))
        )

    assert codes(junction(0.0017)) == ["fan-in-cancellation"]
    assert codes(junction(0.0018)) == []
    assert codes(junction(0.0)) == []


@pytest.mark.parametrize(
    ("function", "affected", "units", "code"),
    [
        ("relu", 5, 6, ["dead-units"]),
        ("relu", 3, 6, []),
        ("relu", 3, 3, []),
        ("tanh", 6, 6, ["saturated-units"]),
        ("sigmoid", 4, 6, []),
    ],
)
def test_stuck_units(function: str, affected: int, units: int, code: list[str]) -> None:
    evidence = replace(RUN, looked=Looked(units=(Units(0, function, affected, units, 16),)))
    report = layered(1.0)
    activation = replace(report.graph.nodes[0], name="ReluBackward0")
    head = Node(2, "AddmmBackward0")
    weight = Node(3, "AccumulateGrad", kind="leaf", label="v")
    nodes = (activation, report.graph.nodes[1], head, weight)
    edges = (Edge(0, 1, 1, 0), Edge(2, 0, 0, 0), Edge(2, 1, 3, 0))
    graph = Graph(nodes, edges, ((2, 0),), ())
    assert codes(Report(graph, (None,) * 4, (None,) * 3), evidence) == code


def test_an_output_sigmoid_may_be_sure_of_itself() -> None:
    evidence = replace(RUN, looked=Looked(units=(Units(0, "sigmoid", 6, 6, 16),)))
    assert codes(layered(1.0), evidence) == []


def test_cut_graph_needs_an_unreached_leaf_that_somebody_wants() -> None:
    cut = Cut(LINE, "detach", (1,), ("w",), 0)
    lost = ParameterFact("w", reached=False, optimized=True, identity=1)
    held = ParameterFact("v", reached=True, optimized=True, identity=2)

    def seen(*facts: ParameterFact, how: str = "detach", complete: bool = True) -> list[str]:
        looked = Looked(cuts=(replace(cut, how=how),))
        return codes(layered(1.0), Evidence(calls=1, parameters=facts, looked=looked, complete=complete))

    assert seen(lost) == ["cut-graph"]
    assert seen(replace(lost, reached=True)) == []
    assert seen(replace(lost, optimized=False), held) == []  # a teacher
    assert seen(replace(lost, optimized=False)) == ["cut-graph"]  # no optimizer at all
    assert seen(replace(lost, optimized=False), how="no_grad") == []
    assert seen(lost, complete=False) == []


def test_inplace_damage_names_the_culprit_only_where_it_is_known() -> None:
    culprit = Source("train.py", 9, "b += 1")
    damage = Damage(0, "result", 1, 0, "b", culprit)
    report = replace(layered(1.0), gradients=(None, None), error="RuntimeError: inplace", failed=0)

    def said(one: Damage) -> Finding:
        (finding,) = found(report, replace(RUN, looked=Looked(damage=(one,))))
        return finding

    assert "needs `b` as it was, but line 9 `b += 1` overwrote it" in said(damage).message
    assert said(damage).where == culprit
    assert "overwritten once since" in said(replace(damage, culprit=None, variable="")).message
    assert said(replace(damage, culprit=None)).where == LINE
    assert codes(layered(1.0), replace(RUN, looked=Looked(damage=(damage,)))) == []  # it did not fail


def test_graph_freed_leaves_out_what_the_failing_call_freed_itself() -> None:
    gone = (Saved("self", problem="Trying to backward through the graph a second time"),)
    nodes = (
        Node(0, "MulBackward0", saved=gone, sequence_nr=20),
        Node(1, "TanhBackward0", saved=gone, sequence_nr=5, names=("h",), source=LINE),
        Node(2, "ExpBackward0", sequence_nr=30, saved=(Saved("result", TensorSpec((2,), "float32", "cpu")),)),
    )
    graph = Graph(nodes, (Edge(2, 0, 0, 0), Edge(0, 0, 1, 0)), ((2, 0),), (1, 0, 1))
    report = Report(graph, (None,) * 3, (None,) * 2, error="RuntimeError: ... a second time ...")
    (finding,) = found(report, replace(RUN, looked=Looked(earlier=10)))
    assert (finding.code, finding.node) == ("graph-freed", 1)
    assert finding.message.startswith("`h` (line 7) was built before an earlier backward()")
    assert codes(replace(report, error=""), RUN) == []
    two = replace(graph, nodes=(replace(nodes[0], sequence_nr=6), *nodes[1:]))
    (finding,) = found(replace(report, graph=two), replace(RUN, looked=Looked(earlier=10)))
    assert finding.message.endswith("which freed it and 1 more node of this graph.")


def test_one_parameter_of_a_layer_that_nobody_lists() -> None:
    evidence = replace(RUN, unlisted=(Unlisted("net.0", "Scale", "Net", 1),))
    (finding,) = found(layered(1.0), evidence)
    assert "with a parameter that gets gradients, is not among its modules" in finding.message


def test_what_is_said_once_for_the_run() -> None:
    evidence = replace(
        RUN,
        reused=Reused(LINE, "w", 1.0, 3.0),
        growth=Growth(LINE, (4, 7, 10, 13)),
        reads=((LINE, "h"),),
    )
    messages = {finding.code: finding.message for finding in found(layered(1.0), evidence)}
    assert "3 = 1 + 2" in messages["stale-accumulation"]
    assert "4, 7, 10, 13" in messages["growing-graph"]
    assert messages["non-leaf-grad"].startswith("`h` is not a leaf")
    assert codes(layered(1.0), replace(evidence, last=False)) == []


def test_a_wrong_custom_backward_is_told_once_from_the_verdicts() -> None:
    said = "local, input 0, finite differences: 1.5x the numeric derivative at every element"
    node = Node(0, "ScaleBackward", kind="custom")
    graph = Graph((node, replace(node, id=1)), (), ((0, 0), (1, 0)), (0, 0))
    verdicts = (Verdict(0, "mismatch", said), Verdict(1, "mismatch", said))
    looked = Looked(backwards={0: LINE})
    report = Report(graph, (None,) * 2, (), verdicts=verdicts)
    (finding,) = found(report, replace(RUN, looked=looked))
    assert finding.code == "wrong-custom-backward"
    assert finding.where == LINE
    assert finding.message == (
        "`Scale.backward` is wrong for input 0: 1.5x the numeric derivative at every element."
    )
    plain = Verdict(0, "mismatch", "local, input 0: at [1]: torch 1, engine 2")
    assert codes(replace(report, verdicts=(plain, Verdict(1, "match"))), RUN) == []


def test_broadcasts_and_underflows_are_told_with_their_numbers() -> None:
    looked = Looked(broadcasts=(Broadcast(0, (4, 1), (4,), (4, 4)),), underflows=(0,))
    messages = {f.code: f.message for f in found(layered(1.0), replace(RUN, looked=looked))}
    assert (
        messages["broadcast-loss"] == "Prediction (4, 1) against target (4,) became (4, 4): 16 pairs, not 4."
    )
    assert "underflows float16" in messages["half-underflow"]
