"""`step-never-called`: gradients are computed and cleared, and the optimizer never steps."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("step-never-called")
def step_never_called(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """``zero_grad`` of an optimizer cleared finite gradients three times or more, and it never took a step.

    Only in a run that went to its end, where its first parameter stayed as it was. Error where a statement
    names the step without calling it. Else a warning, and only where no optimizer of the run stepped,
    backward reached nothing but its parameters (no input, as for a saliency map), and the script reads
    no ``.grad``.
    """
    for one in evidence.unstepped if evidence.last and evidence.calls and evidence.complete else ():
        bare = one.bare
        named = f"; line {bare.line} `{bare.code}` names the step without calling it" if bare else ""
        yield Finding(
            code="step-never-called",
            severity="error" if bare else "warning",
            message=f"The optimizer of `{one.name}` never took a step: zero_grad() at line {one.where.line} "
            f"threw its gradients away {one.cleared} times{named}.",
            advice="Call `optimizer.step()`, with parentheses, after backward()."
            if bare
            else "Call `optimizer.step()` after backward(); fine where only the time is measured.",
            where=bare or one.where,
        )
