"""`hook-changed-gradient`: a tensor hook of the script's own changed a gradient on its way."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, GradientRecord, Number, Report

HOOK = "tensor hook "
"""How a hook that can change a gradient is listed in `Node.hooks`."""
LOOKING = "register_multi_grad_hook."
"""How torch names its hooks that only look: what a multi-grad hook returns is dropped."""


@diagnosis("hook-changed-gradient")
def hook_changed_gradient(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A node with a known tensor hook, one consumer, and another gradient received than was sent.

    With several consumers the sum before the hook is not recorded, and nothing is said.
    """
    graph = report.graph
    for node in graph.nodes:
        hooks = [name.removeprefix(HOOK) for name in node.hooks if name.startswith(HOOK)]
        hooks = [name for name in hooks if not name.startswith(LOOKING)]
        incoming = graph.incoming[node.id]
        if not hooks or len(incoming) != 1:
            continue
        edge = graph.edges[incoming[0]]
        before = report.edge_gradients[incoming[0]] if report.edge_gradients else None
        after = report.gradient(node.id, edge.target_slot)
        if before is None or after is None or not _differ(before, after):
            continue
        names = f"hook{'s' * (len(hooks) > 1)} " + ", ".join(f"`{name}`" for name in hooks)
        yield Finding(
            code="hook-changed-gradient",
            severity="info",
            message=f"The {names} on `{node.label}` changed its gradient: "
            f"norm {before.norm:.4g} before, {after.norm:.4g} after.",
            advice="Fine if it is meant (clipping, scaling); remove the hook to see the gradient as it was.",
            node=node.id,
            where=node.source,
        )


def _differ(before: GradientRecord, after: GradientRecord) -> bool:
    """Whether they differ, by their elements where those are known; a NaN is no change of a NaN."""
    if before.values is not None and after.values is not None:
        pairs: list[tuple[Number, Number]] = list(zip(before.values, after.values, strict=False))
    else:
        pairs = [(before.norm, after.norm), (before.nans, after.nans), (before.infs, after.infs)]
    return any(old != new and not (old != old and new != new) for old, new in pairs)
