"""`half-underflow`: a gradient too small for float16 became 0."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("half-underflow")
def half_underflow(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """All zero out in float16 from non-zero in, and not zero when the same formula runs in float32."""
    for number in evidence.looked.underflows:
        node = report.graph.nodes[number]
        received = report.gradient(number)
        size = f" {received.rms:.1e} (rms) came in and" if received is not None else ""
        yield Finding(
            code="half-underflow",
            severity="error",
            message=f"{node.name}'s gradient underflows float16:{size} only zeros went out.",
            advice="Scale the loss with torch.amp.GradScaler, or use bfloat16.",
            node=node.id,
            where=node.source,
        )
