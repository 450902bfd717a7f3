"""`wrong-custom-backward`: a Function whose backward is not its forward's derivative."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.graph import Node
from explorer.report import Finding, Report, Verdict

REFUSED = "returned an invalid gradient"
"""What torch says of a backward whose result has the wrong shape or number."""
COMPARED = "finite differences: "
"""How the reason of a verdict begins that compared a Function with its own forward."""


@diagnosis("wrong-custom-backward")
def wrong_custom_backward(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """The check's finite differences of the Function alone, in float64; and results that torch refuses.

    One finding per Function, however many nodes it made.
    """
    if REFUSED in report.error and report.failed is not None:
        node = report.graph.nodes[report.failed]
        if node.kind == "custom":
            yield _refused(report, node)
    told: set[str] = set()
    for verdict in report.verdicts:
        node = report.graph.nodes[verdict.node]
        if verdict.status != "mismatch" or COMPARED not in verdict.reason or node.name in told:
            continue
        told.add(node.name)
        yield _wrong(node, verdict, evidence)


def _refused(report: Report, node: Node) -> Finding:
    return Finding(
        code="wrong-custom-backward",
        severity="error",
        message=f"{report.error.partition(': ')[2]}.",
        advice="Return one gradient per input of forward, each in the shape of that input.",
        node=node.id,
        where=node.source,
    )


def _wrong(node: Node, verdict: Verdict, evidence: Evidence) -> Finding:
    which, _, said = verdict.reason.partition(COMPARED)
    which = which.removeprefix("local, ").rstrip(", ")
    return Finding(
        code="wrong-custom-backward",
        severity="error",
        message=f"`{node.name.removesuffix('Backward')}.backward` is wrong for {which}: {said}.",
        advice="Derive it again; torch.autograd.gradcheck in float64 tells when it is right.",
        node=node.id,
        where=evidence.looked.backwards.get(node.id, node.source),
    )
