"""`dead-units` and `saturated-units`: activations that answer every row of the batch alike."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence, Units
from explorer.graph import Node
from explorer.report import Finding, Report

SHARE = 0.8
"""The share of a layer's units that must be stuck: healthy deep ReLU layers have up to half dead."""
LEAST = 4
"""Layers of fewer units are not judged."""


@diagnosis("dead-units")
def dead_units(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """ReLU units that are 0 for the whole batch (at least 16 rows), `SHARE` of a layer or more."""
    for units in _stuck(evidence):
        if units.function == "relu":
            yield _finding(
                report,
                units,
                "dead-units",
                "are dead: 0 for every row of this batch, so they get no gradient",
                "Lower the learning rate, check the biases and the scale of the input, or use LeakyReLU.",
            )


@diagnosis("saturated-units")
def saturated_units(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """tanh above 0.99 or a sigmoid with y(1 - y) < 0.01 for the whole batch, in a hidden layer."""
    for units in _stuck(evidence):
        if units.function != "relu" and _hidden(report, units.node):
            yield _finding(
                report,
                units,
                "saturated-units",
                "are saturated: their derivative is nearly 0 for every row of this batch",
                "Scale the input or the initial weights down, or normalise before the activation.",
            )


def _stuck(evidence: Evidence) -> list[Units]:
    return [
        units
        for units in evidence.looked.units
        if units.units >= LEAST and units.affected >= SHARE * units.units
    ]


def _finding(report: Report, units: Units, code: str, what: str, advice: str) -> Finding:
    node = report.graph.nodes[units.node]
    layer = _layer(report, node)
    return Finding(
        code=code,
        severity="warning",
        message=f"{units.affected} of {units.units} units of {layer} {what} ({units.rows} rows).",
        advice=advice,
        node=node.id,
        where=node.source,
    )


def _layer(report: Report, node: Node) -> str:
    """The module that made the activation's input, else the activation's own place."""
    for edge in report.graph.outgoing[node.id]:
        maker = report.graph.nodes[report.graph.edges[edge].target]
        if maker.module:
            return f"`{maker.module}`"
    return f"`{node.module or node.label}`"


def _hidden(report: Report, start: int) -> bool:
    """Whether a layer with parameters consumes the activation, at most three nodes away."""
    graph = report.graph
    level = {start}
    for _ in range(3):
        level = {graph.edges[edge].source for node in level for edge in graph.incoming[node]}
        for node in level:
            targets = [graph.nodes[graph.edges[edge].target] for edge in graph.outgoing[node]]
            if any(target.kind == "leaf" or target.name.startswith("TBackward") for target in targets):
                return True
    return False
