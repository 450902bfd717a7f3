"""`wrong-custom-backward`: a Function whose backward is not its forward's derivative."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence, WrongFunction
from explorer.report import Finding, Report

REFUSED = "returned an invalid gradient"
"""What torch says of a backward whose result has the wrong shape or number."""


@diagnosis("wrong-custom-backward")
def wrong_custom_backward(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """Finite differences of the Function alone, in float64; and results that torch refuses."""
    if REFUSED in report.error:
        node = report.graph.nodes[report.failed] if report.failed is not None else None
        if node is not None and node.kind == "custom":
            yield Finding(
                code="wrong-custom-backward",
                severity="error",
                message=f"{report.error.partition(': ')[2]}.",
                advice="Return one gradient per input of forward, each in the shape of that input.",
                node=node.id,
                where=node.source,
            )
    for wrong in evidence.functions if evidence.last else ():
        yield _finding(report, wrong)


def _finding(report: Report, wrong: WrongFunction) -> Finding:
    node = next((n.id for n in report.graph.nodes if n.name == f"{wrong.name}Backward"), None)
    if wrong.missing:
        said = f"gives None for input {wrong.argument}, whose derivative is {wrong.derivative:.4g}"
    elif wrong.factor is not None:
        said = f"is {wrong.factor:.4g}x the numeric derivative at every element compared ({wrong.compared})"
    else:
        said = (
            f"differs from the numeric derivative, most at element {wrong.element} of input "
            f"{wrong.argument}: {wrong.backward:.6g} instead of {wrong.derivative:.6g}"
        )
    return Finding(
        code="wrong-custom-backward",
        severity="error",
        message=f"`{wrong.name}.backward` {said}.",
        advice="Derive it again; torch.autograd.gradcheck in float64 tells when it is right.",
        node=node,
        where=wrong.where,
    )
