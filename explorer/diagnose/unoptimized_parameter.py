"""`unoptimized-parameter`: a parameter that gets gradients and that no optimizer holds."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence, LeftOut
from explorer.graph import Node
from explorer.report import Finding, Report

NAMED = 3
"""How many parameters the message names."""


@diagnosis("unoptimized-parameter")
def unoptimized_parameter(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A parameter with gradients from three backward calls or more that never changed and is in no optimizer.

    Only in a run that went to its end and in which some optimizer stepped. Error where optimizers hold as
    many tensors, of the same numbers of dimensions, that belong to no module and that no backward reached:
    the layer was replaced after the optimizer was made. Else nobody may ever have cleared or changed its
    ``.grad`` (who wants a gradient for another purpose clears it): warning where its module is in training
    mode, info in eval mode (a network that only judges, left unfrozen).
    """
    if not evidence.last or not evidence.calls or not evidence.complete:
        return
    for (replaced, training), group in groupby(evidence.left_out, key=_sort):
        yield _finding(report, list(group), replaced, training)


def _sort(fact: LeftOut) -> tuple[bool, bool]:
    return fact.replaced, fact.training


def _finding(report: Report, facts: list[LeftOut], replaced: bool, training: bool) -> Finding:
    some = ", ".join(f"`{fact.name}`" for fact in facts[:NAMED])
    more = f" and {len(facts) - NAMED} more" if len(facts) > NAMED else ""
    one = len(facts) == 1
    what = (
        "gets a gradient, but no optimizer holds it" if one else "get gradients, but no optimizer holds them"
    )
    if replaced:
        others = "a tensor that belongs" if one else f"{len(facts)} tensors that belong"
        why = f"instead it holds {others} to no module"
        advice = "Make the optimizer after the last layer is put in its place."
    else:
        why = "it never changes, and its gradient" if one else "they never change, and their gradients"
        why += f" only {'adds' if one else 'add'} up"
        advice = (
            f"Give {'it' if one else 'them'} to the optimizer; or freeze with requires_grad_(False) what is "
        )
        advice += "not to learn, which saves time and memory."
    user = next((node for fact in facts for node in _takers(report, fact.name)), None)
    return Finding(
        code="unoptimized-parameter",
        severity="error" if replaced else "warning" if training else "info",
        message=f"{some}{more} {what}: {why}.",
        advice=advice,
        node=user.id if user is not None else None,
        where=user.source if user is not None else None,
    )


def _takers(report: Report, name: str) -> Iterator[Node]:
    """The nodes that use the leaf of this name, with their lines."""
    graph = report.graph
    for leaf in graph.leaves():
        if name in (leaf.label, *leaf.names):
            takers = (graph.nodes[graph.edges[edge].source] for edge in graph.incoming[leaf.id])
            yield from (node for node in takers if node.source is not None)
