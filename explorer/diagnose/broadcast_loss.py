"""`broadcast-loss`: prediction and target met in different shapes and made every pair."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("broadcast-loss")
def broadcast_loss(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A loss over two tensors that expanded each other, as their strides (or their difference) show."""
    for seen in evidence.looked.broadcasts:
        node = report.graph.nodes[seen.node]
        pairs = 1
        for size in seen.shape:
            pairs *= size
        elements = 1
        for size in seen.prediction:
            elements *= size
        yield Finding(
            code="broadcast-loss",
            severity="error",
            message=f"Prediction {seen.prediction} against target {seen.target} became {seen.shape}: "
            f"{pairs} pairs, not {elements}.",
            advice="Give both the same shape: `squeeze(1)` the prediction, or `unsqueeze(1)` the target.",
            node=node.id,
            where=node.source,
        )
