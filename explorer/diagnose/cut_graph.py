"""`cut-graph`: a value was cut off from the graph on its way to the loss."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Cut, Evidence, ParameterFact
from explorer.graph import Source
from explorer.report import Finding, Report

NAMED = 3
"""How many parameters the message names."""


@diagnosis("cut-graph")
def cut_graph(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A cut that provably feeds the loss, upstream of leaves that no backward seen reaches.

    With an optimizer in the run, only leaves it holds count: an optimizer that leaves them out (a
    teacher, a generator during the discriminator's step) did so on purpose. Without one, values under
    ``no_grad`` are left alone.
    """
    if not evidence.complete or not evidence.calls:
        return
    facts = {fact.identity: fact for fact in evidence.parameters}
    optimizing = evidence.optimizing or any(fact.optimized for fact in evidence.parameters)
    by_line: dict[Source, tuple[Cut, dict[int, str]]] = {}
    for cut in evidence.looked.cuts:
        if cut.how == "no_grad" and not optimizing:
            continue
        lost = {
            one: name
            for one, name in zip(cut.upstream, cut.names, strict=True)
            if (fact := facts.get(one)) is not None and _lost(fact, optimizing)
        }
        if lost:
            known = by_line.setdefault(cut.where, (cut, {}))
            known[1].update(lost)
    for cut, lost in by_line.values():
        yield _finding(cut, tuple(lost.values()))


def _lost(fact: ParameterFact, optimizing: bool) -> bool:
    return not fact.reached and (fact.optimized or not optimizing)


def _finding(cut: Cut, names: tuple[str, ...]) -> Finding:
    some = ", ".join(f"`{name}`" for name in names[:NAMED])
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    verb = "gets" if len(names) == 1 else "get"
    code = f" `{cut.where.code}`" if cut.where.code else ""
    return Finding(
        code="cut-graph",
        severity="error",
        message=f"The gradient stops at line {cut.where.line}{code} ({cut.how}): {some}{more} upstream "
        f"{verb} None.",
        advice="Run it with gradients enabled."
        if cut.how == "no_grad"
        else f"Use the tensor itself in the loss, without `{cut.how}`.",
        node=cut.node,
        where=cut.where,
    )
