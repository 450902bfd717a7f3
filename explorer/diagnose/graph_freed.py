"""`graph-freed`: an earlier backward consumed a part of this graph."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.graph import Node
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
        if any(FREED in saved.problem for saved in node.saved) and _older(node, evidence.looked.earlier)
    ]
    if not freed:
        return
    first = freed[0]
    named = f"`{first.names[0]}`" if first.names else first.name
    line = f" (line {first.source.line})" if first.source else ""
    kept = sum(1 for node in report.graph.nodes if any(one.spec or one.problem for one in node.saved))
    if len(freed) == kept:
        root = report.graph.nodes[report.graph.roots[0][0]]
        first, named = root, f"`{report.root_name}`"
        message = f"{named} was already differentiated: its graph is gone."
        advice = "Compute the loss again before each backward(); call backward() once per forward."
    else:
        more = len(freed) - 1
        others = f" and {more} more {'node' if more == 1 else 'nodes'} of this graph" if more else ""
        message = f"{named}{line} was built before an earlier backward(), which freed it{others}."
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


def _older(node: Node, earlier: int | None) -> bool:
    """Whether the node was made before the backward call before this one ended.

    A call that failed has freed nodes of its own, which are younger.
    """
    return earlier is None or node.sequence_nr is None or node.sequence_nr < earlier
