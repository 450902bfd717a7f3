"""`stale-accumulation`: an optimizer step used a gradient that an earlier step had already used."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("stale-accumulation")
def stale_accumulation(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """The same ``.grad`` went through step, backward, step without being cleared or changed in between."""
    reused = evidence.reused
    if reused is None or not evidence.last:
        return
    name = f"`{reused.name}.grad`" if reused.name else "`.grad`"
    added = reused.total - reused.before
    yield Finding(
        code="stale-accumulation",
        severity="error",
        message=f"{name} still holds the gradient of the step before: one element is {reused.total:.4g} = "
        f"{reused.before:.4g} + {added:.4g}.",
        advice="Call optimizer.zero_grad() before each backward(), or after each step().",
        where=reused.where,
    )
