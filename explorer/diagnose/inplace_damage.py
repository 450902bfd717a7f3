"""`inplace-damage`: a value that backward needs was overwritten."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.report import Finding, Report


@diagnosis("inplace-damage")
def inplace_damage(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """A saved tensor's version had moved on before a backward that failed; the first in execution order.

    The culprit is named only where the tensor's own ``grad_fn`` or an optimizer's step proves it.
    """
    if not report.error:
        return
    order = {node: place for place, node in enumerate(report.graph.order)}
    hurt = [
        damage
        for damage in evidence.looked.damage
        if damage.node >= len(report.gradients) or report.gradients[damage.node] is None
    ]
    if not hurt:
        return
    damage = min(hurt, key=lambda one: (one.node != report.failed, order.get(one.node, 0)))
    node = report.graph.nodes[damage.node]
    line = f" (line {node.source.line})" if node.source else ""
    what = f"`{damage.variable}`" if damage.variable else f"its saved `{damage.saved}`"
    times = damage.version - damage.expected
    if damage.culprit is not None:
        by = "the optimizer step at line" if damage.step else "line"
        code = f" `{damage.culprit.code}`" if damage.culprit.code else ""
        done = f"but {by} {damage.culprit.line}{code} overwrote it"
    else:
        done = f"but it was overwritten {'once' if times == 1 else f'{times} times'} since"
    advice = (
        "Call backward() before the step, or run the forward again after it."
        if damage.step
        else "Make a new tensor instead: `b = b + 1` for `b += 1`, relu() for relu_(), or change a clone()."
    )
    yield Finding(
        code="inplace-damage",
        severity="error",
        message=f"{node.name}{line} needs {what} as it was, {done}.",
        advice=advice,
        node=node.id,
        where=damage.culprit or node.source,
    )
