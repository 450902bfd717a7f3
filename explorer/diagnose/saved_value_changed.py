"""`saved-value-changed`: a tensor kept for backward was changed where no version counter saw it."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Altered, Evidence
from explorer.graph import Node
from explorer.report import Finding, Report

MOST = 3
"""So many places are listed: one edited weight shows in every operation that reads it."""

ADVICE = (
    "Change a tensor after backward, or change a copy of it (clone()). Changes through .data "
    "or NumPy are not counted; under torch.no_grad() torch would have told."
)
RUNNING = (
    "The layer normalised by its running statistics (eval mode), and they were updated before backward, as "
    "by a forward in train mode: call backward first."
)


@diagnosis("saved-value-changed")
def saved_value_changed(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """The forward, computed again from the saved values, gives something else than it gave.

    An error; a warning where the output itself may have been replaced on purpose before it was used.
    """
    for found in evidence.looked.altered[:MOST]:
        node = report.graph.nodes[found.node]
        yield Finding(
            code="saved-value-changed",
            severity="warning" if found.perhaps_meant else "error",
            message=f"{_what(found, node)}; {_so(found)}.",
            advice=RUNNING if all(map(_is_running, found.names or ("",))) else ADVICE,
            node=node.id,
            where=found.by or node.source,
        )


def _is_running(name: str) -> bool:
    """Whether the name is that of a running statistic: torch updates them uncounted."""
    return name.startswith("running_") and " of " in name


def _so(found: Altered) -> str:
    by = ""
    if found.by is not None:
        code = f" `{found.by.code}`" if found.by.code else ""
        by = f"line {found.by.line}{code} took its .data after it was used; "
    so = "backward differentiates at values that the forward never saw"
    if found.perhaps_meant:
        so = f"unless a value was replaced on purpose before it was used, {so}"
    return by + so


def _what(found: Altered, node: Node) -> str:
    place = f"element {list(found.place)}" if found.place else "the value"
    if not found.names:
        return (
            f"The saved result of {node.name} was changed after the forward: {place} was {found.was:.6g}, "
            f"it is {found.now:.6g}"
        )
    names = [f"`{name}`" for name in found.names]
    changed = names[0] if len(names) == 1 else f"one of {', '.join(names[:-1])} and {names[-1]}"
    of = "the loss" if found.loss else f"the result of {node.name}"
    return (
        f"Behind autograd's back {changed} was changed after the forward: {place} of {of} was "
        f"{found.was:.6g}, with what is saved now it would be {found.now:.6g}"
    )
