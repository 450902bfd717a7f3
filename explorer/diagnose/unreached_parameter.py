"""`unreached-parameter`: a parameter that no backward seen has in its graph."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence, ParameterFact
from explorer.graph import Source
from explorer.report import Finding, Report, Severity

TWICE = "BackwardBackward"
"""What the node of a derivative's derivative is called."""
NAMED = 2
"""How many lines the message names where a value left the graph."""


@diagnosis("unreached-parameter")
def unreached_parameter(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """requires_grad parameters minus the leaves of all backward calls seen, one finding per module.

    Error where an optimizer holds the parameter; warning where its module ran with gradients enabled or
    never ran while its siblings did (beside an optimizer only if some parameter of its model is used: one
    that was only asked for its output is left alone); info where it ran under no_grad alone (a target
    network), and where its module is reached by another parameter and losses are made of derivatives: a bias
    drops out. Where everything computed from it left the graph at one line, that line is named: what else
    became of it there cannot be seen.
    """
    if not evidence.last or not evidence.calls or not evidence.complete:
        return
    explained = {one for cut in evidence.looked.cuts for one in cut.upstream if one}
    unreached = [fact for fact in evidence.parameters if not fact.reached and fact.identity not in explained]
    derived = evidence.derived or any(TWICE in node.name for node in report.graph.nodes)
    for module, group in groupby(unreached, key=lambda fact: fact.module):
        facts = list(group)
        drops_out = derived and all(fact.beside_reached for fact in facts)
        severity = "info" if drops_out else _severity(facts, evidence.optimizing)
        if severity is not None:
            yield _finding(module, facts, severity, report.root_name, drops_out)


def _severity(facts: list[ParameterFact], optimizing: bool) -> Severity | None:
    if facts[0].ran == "without gradients":
        return "info"
    if any(fact.optimized for fact in facts):
        return "error"
    if optimizing and not any(fact.model_used for fact in facts):
        return None
    if facts[0].ran == "with gradients" or (facts[0].ran == "never" and facts[0].siblings_ran):
        return "warning"
    return None


def _finding(
    module: str, facts: list[ParameterFact], severity: Severity, root: str, drops_out: bool
) -> Finding:
    names = ", ".join(f"`{fact.name}`" for fact in facts)
    verb = "is" if len(facts) == 1 else "are"
    above = facts[0].name.rpartition(".")[0]
    owner = (
        f"`{above or module}`"
        if above or module
        else "the module that owns " + ("it" if verb == "is" else "them")
    )
    ran = {
        "never": f": {owner} never ran",
        "without gradients": f": {owner} ran under no_grad only",
        "with gradients": f", though {owner} ran",
        "unknown": "",
    }[facts[0].ran]
    exits = tuple(dict.fromkeys(one for fact in facts for one in fact.exits))
    left = "" if facts[0].ran == "without gradients" else _left(exits)
    advice = (
        "Fine where the loss is made of derivatives, in which it drops out; else use it in the loss."
        if drops_out
        else "Fine for a target network; else run it with gradients enabled."
        if facts[0].ran == "without gradients"
        else "Use it in the loss, or freeze it with requires_grad_(False). "
        "Under DDP this raises 'did not receive grad'."
    )
    return Finding(
        code="unreached-parameter",
        severity=severity,
        message=f"{names} {verb} not in the graph of `{root}`{ran}.{left}",
        advice=advice,
        where=exits[0][0] if len({where for where, _ in exits}) == 1 else facts[0].where,
    )


def _left(exits: tuple[tuple[Source, str], ...]) -> str:
    """Where what was computed from it left the graph: a fact, though not yet the reason."""
    if not exits or len(exits) > NAMED:
        return ""
    lines = " and ".join(
        f"line {where.line}{f' `{where.code}`' if where.code else ''} ({how})" for where, how in exits
    )
    return f" What was computed from it left the graph at {lines}."
