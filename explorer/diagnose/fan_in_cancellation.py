"""`fan-in-cancellation`: the contributions at a junction cancel."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.hook_changed_gradient import HOOK
from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report

SHARE = 1e-3
"""The total must be smaller than this share of the largest contribution."""


@diagnosis("fan-in-cancellation")
def fan_in_cancellation(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """Two or more contributions whose sum is below `SHARE` of their size, but not exactly 0.

    A tensor hook of the script's may have made it small: with one, the sum itself is not known.
    """
    graph = report.graph
    for node in graph.nodes:
        if len(graph.incoming[node.id]) < 2:
            continue
        total = report.gradient(node.id)
        if (
            total is None
            or any(name.startswith(HOOK) for name in node.hooks)
            or not total.finite
            or total.norm == 0
            or (len(total.shape) > 0 and total.numel == 0)
        ):
            continue
        parts = [
            record
            for edge in graph.incoming[node.id]
            if graph.edges[edge].target_slot == 0 and (record := report.edge_gradients[edge]) is not None
        ]
        largest = max((part.norm for part in parts), default=0.0)
        if len(parts) < 2 or not all(part.finite for part in parts) or total.norm >= SHARE * largest:
            continue
        numbers = [
            f"{part.values[0]:+.5g}" if part.values and len(part.values) == 1 else f"norm {part.norm:.3g}"
            for part in parts[:4]
        ]
        yield Finding(
            code="fan-in-cancellation",
            severity="info",
            message=f"The {len(parts)} branches into `{node.label or node.name}` "
            f"({', '.join(numbers)}) cancel to {total.norm:.2g}.",
            advice="If this is not meant, look at the sign of one branch; the remainder is mostly rounding.",
            node=node.id,
            where=node.source,
        )
