"""`backward-never-called`: there is something to differentiate, and nobody called backward()."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report

NAMED = 3
"""How many leaves the message names."""


@diagnosis("backward-never-called")
def backward_never_called(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A leaf that requires a gradient, and no backward in the whole script."""
    leaves = list(report.graph.leaves())
    if evidence.calls or not evidence.scripted or not leaves:
        return
    some = ", ".join(f"`{leaf.label}.grad`" for leaf in leaves[:NAMED])
    more = f" and {len(leaves) - NAMED} more" if len(leaves) > NAMED else ""
    verb = "is" if len(leaves) == 1 else "are"
    yield Finding(
        code="backward-never-called",
        severity="error",
        message=f"{some}{more} {verb} None: nothing called `{report.root_name}.backward()`.",
        advice=f"Call `{report.root_name}.backward()`; the gradients shown are those it would give.",
        node=report.graph.roots[0][0] if report.graph.roots else None,
        nodes=tuple(leaf.id for leaf in leaves),
    )
