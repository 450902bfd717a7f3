"""`half-underflow`: a gradient too small for float16 became 0."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report

SMALLEST_NORMAL = 6.104e-05
"""The smallest normal float16; below it precision goes, and below 6e-8 everything."""
SCALING = (
    "Mul",
    "Div",
    "Pow",
    "Mean",
    "Sigmoid",
    "Tanh",
    "Exp",
    "Mm",
    "Addmm",
    "Bmm",
    "Softmax",
    "LogSoftmax",
)
"""Operations that scale a gradient rather than select from it."""


@diagnosis("half-underflow")
def half_underflow(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """All zero out in float16, from a non-zero gradient already below the normal range (or a mean)."""
    for node in report.graph.nodes:
        operation = node.name.partition("Backward")[0]
        received = report.gradient(node.id)
        if operation not in SCALING or received is None or received.zero or not received.finite:
            continue
        if operation != "Mean" and received.rms >= SMALLEST_NORMAL:
            continue
        sent = [report.edge_gradients[edge] for edge in report.graph.outgoing[node.id]]
        lost = [record for record in sent if record is not None and record.dtype == "float16" and record.zero]
        if lost and len(lost) == len(sent):
            yield Finding(
                code="half-underflow",
                severity="error",
                message=f"{node.name}'s gradient underflows float16: {received.rms:.1e} (rms) came in, "
                f"{lost[0].numel} zeros went out.",
                advice="Scale the loss with torch.amp.GradScaler, or use bfloat16.",
                node=node.id,
                where=node.source,
            )
            return
