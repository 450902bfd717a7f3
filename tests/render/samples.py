"""Reports that renderers are tried on: circuits, every kind of node, and the networks of `networks.py`."""

from __future__ import annotations

import math

from explorer.graph import Graph, Saved, Source, TensorSpec
from explorer.report import (
    CheckSummary,
    Finding,
    NodeGradients,
    Report,
    Verdict,
)
from tests.render.building import Builder, checked, filled, record, wave
from tests.render.networks import adversarial, block, gpt, loop, lstm, resnet, tangle, transformer_block

__all__ = [
    "SCALAR",
    "Builder",
    "adversarial",
    "block",
    "checked",
    "filled",
    "gpt",
    "kinds",
    "loop",
    "lstm",
    "record",
    "resnet",
    "reused",
    "scalar_report",
    "sigmoid",
    "tangle",
    "transformer_block",
    "wave",
    "xyz",
]


SCALAR = TensorSpec((), "float32")


def scalar_report(
    graph: Graph,
    forward: dict[int, float],
    gradients: dict[int, float],
    edges: dict[int, float],
    **more: object,
) -> Report:
    """A report of a scalar graph from numbers worked by hand."""
    verdicts, check = checked(graph)
    fields: dict[str, object] = {
        "graph": graph,
        "forward": {node: ((value,),) for node, value in forward.items()},
        "gradients": tuple(
            NodeGradients((record(gradients[node.id]),), 4e-6, node.id) if node.id in gradients else None
            for node in graph.nodes
        ),
        "edge_gradients": tuple(
            record(edges.get(index, gradients[edge.target])) for index, edge in enumerate(graph.edges)
        ),
        "verdicts": verdicts,
        "check": check,
        "torch": "2.13.0",
        **more,
    }
    return Report(**fields)  # type: ignore[arg-type]  # fields of Report


def xyz() -> Report:
    """f = x·y·z at (2, −3, 4): gradients −12, 8, −6."""
    build = Builder()
    outer = build.op("Mul")
    inner = build.op("Mul", outer)
    x = build.leaf("x", inner, role="input")
    y = build.leaf("y", inner, role="input")
    z = build.leaf("z", outer, role="input")
    return scalar_report(
        build.graph(),
        {outer: -24.0, inner: -6.0, x: 2.0, y: -3.0, z: 4.0},
        {outer: 1.0, inner: 4.0, x: -12.0, y: 8.0, z: -6.0},
        {},
        root_name="f",
        script="xyz.py",
        where=Source("xyz.py", 7, "f.backward()"),
        looked_for=("backward-never-called", "unreached-parameter", "non-finite-gradient"),
    )


def sigmoid() -> Report:
    """CS231n's circuit: 1 / (1 + exp(−(w0·x0 + w1·x1 + w2)))."""
    build = Builder()
    r = build.op("Reciprocal")
    i = build.op("Add", r)
    ex = build.op("Exp", i)
    n = build.op("Mul", ex)
    p1 = build.op("Add", n)
    p0 = build.op("Add", p1)
    m0 = build.op("Mul", p0)
    w0 = build.leaf("w0", m0)
    x0 = build.leaf("x0", m0, role="input")
    m1 = build.op("Mul", p0)
    w1 = build.leaf("w1", m1)
    x1 = build.leaf("x1", m1, role="input")
    w2 = build.leaf("w2", p1)
    e = math.exp(-1.0)
    s = 1 / (1 + e)
    d = s * (1 - s)
    return scalar_report(
        build.graph(),
        {r: s, i: 1 + e, ex: e, n: -1.0, p1: 1.0, p0: 4.0, m0: -2.0, m1: 6.0, w0: 2.0, x0: -1.0, w1: -3.0}
        | {x1: -2.0, w2: -3.0},
        {
            r: 1.0,
            i: -s * s,
            ex: -s * s,
            n: -s * s * e,
            p1: d,
            p0: d,
            m0: d,
            m1: d,
            w0: -d,
            x0: 2 * d,
            w1: -2 * d,
        }
        | {x1: -3 * d, w2: d},
        {},
        root_name="σ",
        script="sigmoid.py",
        where=Source("sigmoid.py", 12, "out.backward()"),
    )


def reused() -> Report:
    """f = x·x + x at 3, forward values unknown: the contributions 3, 3 and 1 sum to 7."""
    build = Builder()
    add = build.op("Add")
    square = build.op("Mul", add)
    x = build.leaf("x", square, square, add, role="input")
    return scalar_report(
        build.graph(), {}, {add: 1.0, square: 1.0, x: 7.0}, {1: 3.0, 2: 3.0, 3: 1.0}, root_name="f"
    )


def kinds() -> Report:
    """Every mark at once: NaN, zero, None, custom, not reached, a mismatch and a finding."""
    build = Builder()
    loss = build.op("Mean", label="loss")
    log = build.op("Log", loss, shape=(2, 8))
    relu = build.op("Relu", log, shape=(2, 8))
    swish = build.add("MySwishBackward", [relu], shape=(2, 8), kind="custom")
    bad = build.op("Sin", swish, shape=(2, 8), label="h")
    saved = (
        Saved("mat1", TensorSpec((2, 16), "float32"), 128),
        Saved("mat2", TensorSpec((16, 8), "float32"), 512),
    )
    addmm = build.op("Addmm", bad, shape=(2, 8), saved=saved)
    build.leaf("fc.bias", addmm, shape=(8,))
    x = build.leaf("x", addmm, shape=(2, 16), role="input")
    weight = build.leaf("fc.weight", addmm, shape=(8, 16))
    graph = build.graph()
    levels = {loss: 1.0, relu: 0.0, swish: 4.1e-5, bad: 1e-3, addmm: 2.8e-3, weight: 1.3e-2}
    gradients: list[NodeGradients | None] = []
    for node in graph.nodes:
        shape = node.outputs[0].shape if node.outputs and node.outputs[0] else ()
        if node.id in levels:
            gradients.append(NodeGradients((record(levels[node.id], shape),), 1e-5, node.id))
        elif node.id == log:
            gradients.append(NodeGradients((record(math.nan, shape, nans=3),), 1e-5, node.id))
        elif node.id == x:
            gradients.append(NodeGradients((None,), 1e-5, node.id))
        else:
            gradients.append(None)
    verdicts, _ = checked(graph)
    wrong = list(verdicts)
    wrong[bad] = Verdict(bad, "mismatch", "local, at [1, 3]: torch 0.31, engine 0.62", 4.1e3, 16, 16)
    wrong[swish] = Verdict(swish, "unchecked", "no rule")
    finding = Finding(
        "non-finite-gradient",
        "error",
        "3 of 16 gradient elements became NaN at LogBackward0",
        "log of 0 has no gradient: clamp its argument",
        log,
        Source("train.py", 24, "h = torch.log(h)"),
    )
    unreached = Finding(
        "unreached-parameter", "warning", "fc.bias received no gradient", "use it in the loss", node=6
    )
    return Report(
        graph,
        tuple(gradients),
        tuple(
            given.received[0] if (given := gradients[edge.target]) is not None else None
            for edge in graph.edges
        ),
        verdicts=tuple(wrong),
        check=CheckSummary(9, 8, 7, {"match": 7, "mismatch": 1, "unchecked": 1}, "off", 300, 316, 0.01, 0.02),
        findings=(unreached, finding),
        where=Source("train.py", 40, "loss.backward()"),
        problems=("forward values were not recorded: the graph was built before watching began",),
        script="train.py",
        torch="2.13.0",
    )
