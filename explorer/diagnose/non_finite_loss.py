"""`non-finite-loss`: the loss is NaN or Inf, and its gradients do not show it."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, GradientRecord, Report


@diagnosis("non-finite-loss")
def non_finite_loss(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A loss of one element that is not finite, although every gradient is.

    Where a gradient is not finite either, `non-finite-gradient` says where that began. The usual cause is a
    mean over nothing: every target ignored, an empty mask.
    """
    value = evidence.looked.loss
    if value is None or isfinite(value) or report.error or not report.graph.roots:
        return
    if not any(report.gradients) or any(not record.finite for record in _records(report)):
        return
    root = report.graph.nodes[report.graph.roots[0][0]]
    nothing = all(record.zero for record in _leaf_records(report))
    yield Finding(
        code="non-finite-loss",
        severity="error",
        message=f"`{report.root_name}` is {value}, though "
        + ("every gradient is exactly 0." if nothing else "its gradients are finite."),
        advice="Look for a mean over nothing (an empty mask, every target ignored) or a logarithm of 0, "
        "and leave such a batch out.",
        node=root.id,
        where=root.source or report.where,
    )


def _records(report: Report) -> Iterator[GradientRecord]:
    """Every gradient but the one the backward was given."""
    yield from (record for record in report.edge_gradients if record is not None)


def _leaf_records(report: Report) -> list[GradientRecord]:
    leaves = (report.gradient(leaf.id) for leaf in report.graph.leaves())
    return [record for record in leaves if record is not None]
