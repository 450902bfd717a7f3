"""`growing-graph`: every step's graph is kept and grows."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("growing-graph")
def growing_graph(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """The loss of one line grew over four calls by older nodes, or a variable keeps their graphs."""
    growth = evidence.growth
    if growth is None or not evidence.last:
        return
    if growth.variable:
        message = (
            f"`{growth.variable}` keeps the graphs of {growth.kept} earlier backward calls "
            f"({growth.counts[0]} nodes), and grows with each."
        )
        advice = f"Add plain numbers: `{growth.variable} += loss.item()`."
    else:
        counts = ", ".join(map(str, growth.counts))
        message = (
            f"`{report.root_name}` grows with every backward ({counts} nodes): it keeps the steps before."
        )
        advice = "detach() what is carried over from step to step; add losses up with loss.item()."
    yield Finding(
        code="growing-graph", severity="warning", message=message, advice=advice, where=growth.where
    )
