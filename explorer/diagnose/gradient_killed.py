"""`gradient-killed`: an operation whose derivative is 0 everywhere, or where its input lies."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report

ALWAYS = {
    "RoundBackward0": "round",
    "RoundBackward1": "round",
    "SignBackward0": "sign",
    "SgnBackward0": "sgn",
    "FloorBackward0": "floor",
    "CeilBackward0": "ceil",
    "TruncBackward0": "trunc",
}
"""Derivative 0 at every point."""
SATURATED = {
    "ClampBackward0": "clamp",
    "ClampBackward1": "clamp",
    "ClampMinBackward0": "clamp",
    "ClampMaxBackward0": "clamp",
    "HardtanhBackward0": "hardtanh",
    "HardsigmoidBackward0": "hardsigmoid",
}
"""Derivative 0 outside the limits."""


@diagnosis("gradient-killed")
def gradient_killed(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """Non-zero in, all zero out, and a leaf above that therefore receives exactly 0."""
    graph = report.graph
    for node in graph.nodes:
        name = ALWAYS.get(node.name) or SATURATED.get(node.name)
        received = report.gradient(node.id)
        if name is None or received is None or received.zero or not received.finite or not received.numel:
            continue
        sent = [report.edge_gradients[edge] for edge in graph.outgoing[node.id]]
        if not sent or not all(record is not None and record.zero for record in sent):
            continue
        starved = _starved(report, node.id)
        if not starved:
            continue
        names = ", ".join(f"`{leaf}`" for leaf in starved[:3]) + (
            f" and {len(starved) - 3} more" if len(starved) > 3 else ""
        )
        verb = "gets" if len(starved) == 1 else "get"
        always = node.name in ALWAYS
        yield Finding(
            code="gradient-killed",
            severity="error" if always else "warning",
            message=f"`{name}` has derivative 0 everywhere: {names} above it {verb} exactly 0, not None."
            if always
            else f"Every element of `{name}` that a gradient reaches lies outside the limits: {names} above "
            f"it {verb} exactly 0.",
            advice="Use a straight-through estimator: `x + (x.round() - x).detach()`."
            if always
            else "Widen the limits, or use a smooth bound such as tanh or sigmoid.",
            node=node.id,
            where=node.source,
        )


def _starved(report: Report, start: int) -> list[str]:
    """The leaves behind `start` whose whole gradient is exactly 0."""
    graph = report.graph
    waiting, seen = [start], {start}
    found: list[str] = []
    while waiting:
        for edge in graph.outgoing[waiting.pop()]:
            target = graph.edges[edge].target
            if target in seen:
                continue
            seen.add(target)
            waiting.append(target)
            leaf = graph.nodes[target]
            record = report.gradient(target) if leaf.kind == "leaf" else None
            if record is not None and record.zero:
                found.append(leaf.label)
    return found
