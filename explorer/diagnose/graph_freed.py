"""`graph-freed`: an earlier backward consumed a part of this graph."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report

FREED = "second time"
"""What torch says of a value that an earlier backward freed."""


@diagnosis("graph-freed")
def graph_freed(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A failed backward whose graph holds freed nodes; the one nearest to the root is named."""
    if FREED not in report.error:
        return
    freed = [
        node
        for number in report.graph.order
        for node in (report.graph.nodes[number],)
        if any(FREED in saved.problem for saved in node.saved)
    ]
    if not freed:
        return
    first = freed[0]
    named = f"`{first.names[0]}`" if first.names else first.name
    line = f" (line {first.source.line})" if first.source else ""
    if first.role == "root":
        message = f"{named} was already differentiated: its graph of {len(freed)} nodes is gone."
        advice = "Compute the loss again before each backward(); call backward() once per forward."
    else:
        message = (
            f"{named}{line} was built before an earlier backward(), which freed it and "
            f"{len(freed) - 1} more nodes of this graph."
        )
        advice = "Compute it again in each step, or detach() what is carried over from the step before."
    yield Finding(
        code="graph-freed",
        severity="error",
        message=message,
        advice=advice + " retain_graph=True only hides this.",
        node=first.id,
        where=first.source,
        nodes=tuple(node.id for node in freed),
    )
