"""`non-finite-gradient`: the node where NaN or Inf entered the gradients."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import isfinite

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.graph import Node
from explorer.report import Finding, GradientRecord, Number, Report

NAN_RETURNED = re.compile(r"Function '(\w+)' returned nan values")
"""What anomaly mode says."""


@diagnosis("non-finite-gradient")
def non_finite_gradient(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """The first node, in execution order, with finite grad_outputs and non-finite grad_inputs.

    Where the incoming gradient of a root is itself not finite, the root is named: the loss was bad.
    """
    if report.failed is not None and NAN_RETURNED.search(report.error):
        stopped = report.graph.nodes[report.failed]
        yield Finding(
            code="non-finite-gradient",
            severity="error",
            message=f"{stopped.name} sends NaN (anomaly mode stopped backward there).",
            advice="Keep its input away from the singular point; under a mask, mask the *input*.",
            node=stopped.id,
            where=stopped.source,
        )
        return
    if _all_finite(report):
        return
    ran = sorted(
        (gradients.index, node) for node, gradients in enumerate(report.gradients) if gradients is not None
    )
    for _, node in ran:
        received = [record for record in report.gradients[node].received if record is not None]  # type: ignore[union-attr]  # ran holds executed nodes only
        sent = [report.edge_gradients[edge] for edge in report.graph.outgoing[node]]
        bad = next((record for record in sent if record is not None and not record.finite), None)
        if bad is not None and all(record.finite for record in received):
            yield _finding(report, report.graph.nodes[node], bad, received)
            return
        if any(not record.finite for record in received):
            yield _root(report, report.graph.nodes[node])
            return


def _all_finite(report: Report) -> bool:
    """Whether nothing is to be looked for: so it is nearly always, and a graph may have a million nodes."""
    return all(record is None or record.finite for record in report.edge_gradients) and all(
        record is None or record.finite
        for node in report.gradients
        if node is not None
        for record in node.received
    )


def _count(record: GradientRecord) -> str:
    parts = [f"{record.nans} NaN"] * bool(record.nans) + [f"{record.infs} Inf"] * bool(record.infs)
    return f"{' and '.join(parts)} of {record.numel}" if parts else f"non-finite values among {record.numel}"


def _finding(report: Report, node: Node, bad: GradientRecord, received: list[GradientRecord]) -> Finding:
    first = _first_bad(report, node)
    if any(record.zero or _masks(record, bad) for record in received):
        why, advice = (
            "its incoming gradient is exactly 0 there and the local derivative infinite: 0·inf",
            "A `where` or mask hid the value, not the derivative: mask the *input* of this operation.",
        )
    elif first is not None:
        since = (
            ""
            if first is node
            else f", the first value known that is not finite is that of {first.label or first.name}"
        )
        line = f" (line {first.source.line})" if since and first.source else ""
        why = f"its forward value is already NaN{since}{line}"
        advice = "Look at what goes into that line: the forward went wrong, not the backward."
    else:
        why, advice = (
            "its local derivative is not finite at the values it saved",
            "Keep its input away from the singular point, for example by adding a small eps.",
        )
    return Finding(
        code="non-finite-gradient",
        severity="error",
        message=f"{node.name} sends {_count(bad)} although it received finite gradients: {why}.",
        advice=advice,
        node=node.id,
        where=(first.source if first is not None else None) or node.source,
    )


def _masks(received: GradientRecord, bad: GradientRecord) -> bool:
    """Whether what came in is exactly 0 wherever what went out, in the same shape, is not finite."""
    if received.values is None or bad.values is None or received.shape != bad.shape:
        return False
    pairs = zip(received.values, bad.values, strict=True)
    return all(came == 0 for came, went in pairs if not isfinite(abs(went)))


def _first_bad(report: Report, start: Node) -> Node | None:
    """Where NaN or Inf entered the forward of `start`, as far as small values are known.

    From node to node behind it while one with a value that is not finite can be found; None where the value
    of `start` is not NaN.
    """
    values = _values(report, start)
    if values is None or not any(value != value for value in values):
        return None
    at = start
    while True:
        behind = (report.graph.edges[edge].target for edge in report.graph.outgoing[at.id])
        bad = next((number for number in behind if _is_bad(report, report.graph.nodes[number])), None)
        if bad is None:
            return at
        at = report.graph.nodes[bad]


def _values(report: Report, node: Node) -> tuple[Number, ...] | None:
    forward = report.forward.get(node.id)
    return forward[0] if forward else None


def _is_bad(report: Report, node: Node) -> bool:
    return any(not isfinite(abs(value)) for value in _values(report, node) or ())


def _root(report: Report, node: Node) -> Finding:
    return Finding(
        code="non-finite-gradient",
        severity="error",
        message=f"The gradient given to `{report.root_name}` is itself not finite, before any node ran.",
        advice="Look at the loss and at the gradient passed to backward().",
        node=node.id,
        where=node.source,
    )
