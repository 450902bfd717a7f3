"""`non-leaf-grad`: the script read the ``.grad`` of a tensor that is no leaf."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("non-leaf-grad")
def non_leaf_grad(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """torch's own warning was heard; the line tells which tensor, where it reads a single ``.grad``."""
    for where, name in evidence.reads if evidence.last else ():
        spelled = f"`{name}`" if name else "This tensor"
        yield Finding(
            code="non-leaf-grad",
            severity="warning",
            message=f"{spelled} is not a leaf, so its `.grad` is None at line {where.line}.",
            advice=f"Call `{name or 'it'}.retain_grad()` before backward(), or read it in this report.",
            where=where,
        )
