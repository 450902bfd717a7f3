"""`unlisted-module`: layers kept in a plain list or dict, which the optimizer therefore never sees."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence, Unlisted
from explorer.report import Finding, Report


@diagnosis("unlisted-module")
def unlisted_module(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A module that ran inside one that does not list it, reached by a backward, held by no optimizer.

    Only where an optimizer holds parameters of the module around it. A teacher hidden in a list on purpose
    runs under no_grad or is cut off, so no backward reaches it.
    """
    if not evidence.last or not evidence.calls or not evidence.complete:
        return
    for (path, kind, owner), group in groupby(evidence.unlisted, key=_place):
        members = list(group)
        parameters = sum(one.parameters for one in members)
        node = next(
            (one for one in report.graph.nodes if one.module == path and one.source is not None), None
        )
        modules = f"A `{kind}`" if len(members) == 1 else f"{len(members)} `{kind}` modules"
        own = "a parameter that gets" if parameters == 1 else f"{parameters} parameters that get"
        yield Finding(
            code="unlisted-module",
            severity="warning",
            message=f"{modules} inside `{owner}`, with {own} gradients, "
            f"{'is' if len(members) == 1 else 'are'} not among its modules: no optimizer holds them.",
            advice="Keep layers in nn.ModuleList or nn.ModuleDict, not in a list or dict; or freeze them.",
            node=node.id if node is not None else None,
            where=node.source if node is not None else None,
        )


def _place(unlisted: Unlisted) -> tuple[str, str, str]:
    return unlisted.path, unlisted.kind, unlisted.owner
