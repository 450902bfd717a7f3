"""The first three findings, each with a planted case and a healthy neighbour, on hand-made reports."""

from __future__ import annotations

from dataclasses import replace
from math import inf, nan

import pytest

from explorer.diagnose import diagnose
from explorer.diagnose.registry import DIAGNOSES, diagnosis
from explorer.errors import ExplorerError
from explorer.evidence import Evidence, ParameterFact, Ran
from explorer.graph import Edge, Graph, Node, Source, TensorSpec
from explorer.report import Finding, GradientRecord, NodeGradients, Report

SCALAR = (TensorSpec((), "float32"),)


def number(value: float) -> GradientRecord:
    finite = value - value == 0
    return GradientRecord(
        (),
        "float32",
        abs(value),
        finite,
        value == 0,
        int(value != value),
        int(abs(value) == inf),
        1,
        (value,),
    )


def chain(*sent: float) -> Report:
    """loss <- Log <- ... <- x, where node i receives sent[i]: every edge carries one number."""
    nodes = [
        Node(i, "LogBackward0", outputs=SCALAR, source=Source("train.py", 10 + i))
        for i in range(len(sent) - 1)
    ]
    nodes.append(Node(len(nodes), "AccumulateGrad", kind="leaf", label="x", outputs=SCALAR))
    edges = tuple(Edge(i, 0, i + 1, 0) for i in range(len(nodes) - 1))
    graph = Graph(tuple(nodes), edges, ((0, 0),), tuple(int(n.kind != "leaf") for n in nodes))
    return Report(
        graph,
        tuple(NodeGradients((number(value),), index=i) for i, value in enumerate(sent)),
        tuple(number(value) for value in sent[1:]),
    )


def codes(report: Report, evidence: Evidence) -> list[tuple[str, str]]:
    findings, problems = diagnose(report, evidence)
    assert not problems
    return [(finding.code, finding.severity) for finding in findings]


def only(report: Report, evidence: Evidence) -> Finding:
    (finding,) = diagnose(report, evidence)[0]
    return finding


def test_backward_never_called() -> None:
    report = replace(chain(1.0, 2.0), call=0, root_name="f")
    finding = only(report, Evidence(calls=0, scripted=True))
    assert finding.code == "backward-never-called"
    assert finding.message == "`x.grad` is None: nothing called `f.backward()`."
    assert codes(report, Evidence(calls=0)) == []  # explore(loss) in a notebook
    assert codes(chain(1.0, 2.0), Evidence(calls=1, scripted=True)) == []


@pytest.mark.parametrize(
    ("fact", "severity"),
    [
        (ParameterFact("w", reached=False, optimized=True), "error"),
        (ParameterFact("w", reached=False, ran="with gradients"), "warning"),
        (ParameterFact("w", reached=False, ran="never", siblings_ran=True), "warning"),
        (ParameterFact("w", reached=False, ran="without gradients", optimized=True), "info"),
        (ParameterFact("w", reached=False, ran="never"), None),
        (ParameterFact("w", reached=False), None),
        (ParameterFact("w", reached=True, optimized=True), None),
    ],
)
def test_unreached_parameter(fact: ParameterFact, severity: str | None) -> None:
    evidence = Evidence(calls=1, parameters=(fact,))
    assert codes(chain(1.0, 2.0), evidence) == [("unreached-parameter", severity)] * (severity is not None)
    assert codes(chain(1.0, 2.0), replace(evidence, last=False)) == []


def test_an_unreached_parameter_says_where_it_left_the_graph() -> None:
    left = (Source("train.py", 9, "h = f(h.detach())"), "detach")
    logged = (Source("train.py", 12, "print(h.norm().item())"), "item")
    fact = ParameterFact("enc.w", False, optimized=True, module="enc", ran="with gradients")

    def said(*exits: tuple[Source, str], ran: Ran = "with gradients") -> Finding:
        return only(chain(1.0, 2.0), Evidence(calls=1, parameters=(replace(fact, exits=exits, ran=ran),)))

    assert said().message == "`enc.w` is not in the graph of `loss`, though `enc` ran."
    assert said(left).where == left[0]
    assert said(left).message.endswith(
        "What was computed from it left the graph at line 9 `h = f(h.detach())` (detach)."
    )
    assert said(left, logged).where is None  # which of them fed the loss cannot be seen
    assert "line 12" in said(left, logged).message
    assert "left the graph" not in said(left, logged, (Source("train.py", 14), "item")).message
    assert "left the graph" not in said(left, ran="without gradients").message


def test_a_model_that_only_answers_is_innocent_beside_an_optimizer() -> None:
    fact = ParameterFact("m.w", False, ran="with gradients", model_used=False)
    evidence = Evidence(calls=1, parameters=(fact,), optimizing=True)
    assert codes(chain(1.0, 2.0), evidence) == []
    assert codes(chain(1.0, 2.0), replace(evidence, optimizing=False)) == [("unreached-parameter", "warning")]
    used = replace(evidence, parameters=(replace(fact, model_used=True),))
    assert codes(chain(1.0, 2.0), used) == [("unreached-parameter", "warning")]
    held = replace(evidence, parameters=(replace(fact, optimized=True),))
    assert codes(chain(1.0, 2.0), held) == [("unreached-parameter", "error")]


def test_a_bias_that_drops_out_of_a_derivative_is_innocent() -> None:
    fact = ParameterFact("f.bias", False, optimized=True, ran="with gradients", beside_reached=True)
    evidence = Evidence(calls=1, parameters=(fact,), derived=True)
    assert codes(chain(1.0, 2.0), evidence) == [("unreached-parameter", "info")]
    assert codes(chain(1.0, 2.0), replace(evidence, derived=False)) == [("unreached-parameter", "error")]
    alone = replace(evidence, parameters=(replace(fact, beside_reached=False),))
    assert codes(chain(1.0, 2.0), alone) == [("unreached-parameter", "error")]


def test_unreached_parameters_of_one_module_make_one_finding() -> None:
    facts = tuple(
        ParameterFact(f"{module}.{name}", False, optimized=True, module=module, ran="never")
        for module in ("a", "b")
        for name in ("weight", "bias")
    )
    first, second = diagnose(chain(1.0, 2.0), Evidence(calls=1, parameters=facts))[0]
    assert first.message == "`a.weight`, `a.bias` are not in the graph of `loss`: `a` never ran."
    assert "`b.weight`" in second.message


def test_non_finite_gradient_names_where_it_began() -> None:
    finding = only(chain(1.0, 2.0, inf, inf, nan), Evidence(calls=1))
    assert (finding.code, finding.severity, finding.node) == ("non-finite-gradient", "error", 1)
    assert finding.where == Source("train.py", 11)
    assert "sends 1 Inf of 1" in finding.message
    assert "0·inf" in only(chain(1.0, 0.0, nan), Evidence(calls=1)).message
    assert "before any node ran" in only(chain(nan, nan), Evidence(calls=1)).message
    assert codes(chain(1.0, 0.0, 1e30), Evidence(calls=1)) == []


def test_a_failing_diagnosis_is_told_and_the_others_go_on() -> None:
    def broken(report: Report, evidence: Evidence) -> list[Finding]:
        raise KeyError("planted")

    diagnosis("planted")(broken)
    try:
        findings, problems = diagnose(chain(1.0, inf), Evidence(calls=1))
        assert [finding.code for finding in findings] == ["non-finite-gradient"]
        assert problems == ("the diagnosis planted failed: KeyError: 'planted'",)
        with pytest.raises(ExplorerError, match="registered twice"):
            diagnosis("planted")(broken)
    finally:
        del DIAGNOSES["planted"]
