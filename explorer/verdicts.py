"""What is known of each node so far, and the verdict that follows from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import isfinite

from explorer.engine.compare import GRAVITY, Comparison
from explorer.engine.sampling import wrong_share_of_all
from explorer.graph import Graph
from explorer.report import CheckSummary, EndToEnd, Status, Verdict


@dataclass(slots=True)
class Outcome:
    """What is known of one node so far.

    `found` holds the comparisons, each with the name of its check; `problems` why something could not be
    compared; `notes` what the reader should know beside the verdict.
    """

    ran: bool = False
    found: list[tuple[str, Comparison]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verdict_of(graph: Graph, index: int, outcome: Outcome) -> Verdict:
    """The verdict on node `index`: the gravest comparison, or why it is unchecked."""
    if not outcome.ran:
        return Verdict(index, "unchecked", "did not run")
    leaf = graph.nodes[index].kind == "leaf"
    found = outcome.found
    if len(found) == 1 and found[0][1].status == "match" and not (outcome.problems or outcome.notes):
        one = found[0][1]  # as with most nodes
        if leaf or found[0][0].startswith("local"):
            ratio = one.ratio if isfinite(one.ratio) else None
            return Verdict(index, "match", "", ratio, one.elements, one.of)
    compared = [(what, one) for what, one in found if one.status != "unchecked"]
    problems = outcome.problems + [one.reason for _, one in found if one.status == "unchecked" and one.reason]
    what, worst = max(
        compared,
        key=lambda pair: (GRAVITY[pair[1].status], pair[1].ratio),
        default=("", Comparison("unchecked", reason="nothing to compare")),
    )
    local = [one for kind, one in compared if leaf or kind.startswith("local")]
    if leaf:  # several checks look at the one gradient of a leaf: the one that saw most counts
        local = sorted(local, key=lambda one: one.elements)[-1:]
    elements, of = sum(one.elements for one in local), sum(one.of for one in local)
    bad = GRAVITY[worst.status] > GRAVITY["unchecked"]
    if problems and not bad:
        return Verdict(index, "unchecked", "; ".join(dict.fromkeys(problems)), None, elements, of)
    if not compared or (not leaf and not local and not bad):
        return Verdict(index, "unchecked", _nothing_compared(graph, index, outcome))
    reason = f"{what}: {worst.words()}" if worst.status != "match" else ""
    reason = "; ".join(dict.fromkeys(one for one in (reason, *outcome.notes) if one))
    return Verdict(index, worst.status, reason, worst.ratio if isfinite(worst.ratio) else None, elements, of)


def _nothing_compared(graph: Graph, index: int, outcome: Outcome) -> str:
    """Why a node that ran had nothing to hold its gradient against."""
    if any(place[0] == index for place in graph.roots) and graph.nodes[index].kind == "leaf":
        return "its gradient is the one backward was given"
    if outcome.notes:
        return "; ".join(dict.fromkeys(outcome.notes))
    if any(spec is not None and spec.device == "meta" for spec in graph.nodes[index].outputs):
        return "its gradient cannot be read: a meta tensor has no memory"
    return "no gradient reached or left it"


def summary_of(
    verdicts: Sequence[Verdict], *, junctions: int, end_to_end: bool, seconds: float
) -> CheckSummary:
    """The totals. `end_to_end`: whether all of it was followed from the root."""
    statuses: dict[Status, int] = {}
    for verdict in verdicts:
        statuses[verdict.status] = statuses.get(verdict.status, 0) + 1
    elements = sum(verdict.elements for verdict in verdicts)
    checked = len(verdicts) - statuses.get("unchecked", 0)
    induction: EndToEnd = "induction" if checked else "off"
    return CheckSummary(
        nodes=len(verdicts),
        checked=checked,
        junctions=junctions,
        statuses=statuses,
        end_to_end="full" if end_to_end else induction,
        elements=elements,
        of=sum(verdict.of for verdict in verdicts),
        wrong_share=wrong_share_of_all((one.elements, one.of) for one in verdicts) if elements else None,
        seconds=seconds,
    )
