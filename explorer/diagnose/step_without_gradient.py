"""`step-without-gradient`: an optimizer steps, and each time the gradients are gone."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("step-without-gradient")
def step_without_gradient(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """Every step of an optimizer (two at least) met parameters whose ``.grad`` was None, all of them.

    Only where some backward reached them and nobody else changed them. Steps that are given a closure
    compute their gradients themselves, and are left out.
    """
    for starved in evidence.starved if evidence.last and evidence.calls else ():
        line = f" at line {starved.where.line}" if starved.where is not None else ""
        yield Finding(
            code="step-without-gradient",
            severity="error",
            message=f"The optimizer step{line} was taken {starved.steps} times and never met a gradient: "
            f"`{starved.name}.grad` was None each time, though backward reaches `{starved.name}`.",
            advice="Call zero_grad() before backward() or after step(), not between the two; gradients from "
            "autograd.grad() must be put into `.grad`.",
            where=starved.where,
        )
