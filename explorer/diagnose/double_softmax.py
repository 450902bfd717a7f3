"""`double-softmax`: a loss that takes logits was given probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.diagnose.softmaxes import dimension, input_of, line
from explorer.evidence import Evidence
from explorer.graph import Graph, Node
from explorer.report import Finding, Report

LOSSES = {
    "NllLossBackward0": "cross_entropy",
    "NllLoss2DBackward0": "cross_entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary_cross_entropy_with_logits",
}
"""The losses that apply a softmax or sigmoid of their own, by their last node."""
_VIEWS = frozenset(
    {"ViewBackward0", "UnsafeViewBackward0", "SqueezeBackward0", "SqueezeBackward1", "UnsqueezeBackward0"}
    | {"CloneBackward0", "ToCopyBackward0", "AliasBackward0"}
)


@diagnosis("double-softmax")
def double_softmax(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """cross_entropy over a softmax along the same dimension, or BCE-with-logits over a sigmoid.

    Only reshapes may lie between. A log_softmax given to cross_entropy is left alone: done twice it changes
    nothing. The derivative through both is right, and at most a quarter of what it should be for each.
    """
    graph = report.graph
    told: set[tuple[str, int]] = set()
    for node in graph.nodes:
        loss = LOSSES.get(node.name)
        if loss is None:
            continue
        if loss == "cross_entropy":
            inner = input_of(graph, node)
            first = None if inner is None or inner.name != "LogSoftmaxBackward0" else _behind(graph, inner)
            twice = (
                inner is not None
                and first is not None
                and first.name == "SoftmaxBackward0"
                and _same_dimension(inner, first)
            )
            squashed = "softmax"
        else:
            first = _behind(graph, node)
            twice = first is not None and first.name == "SigmoidBackward0"
            squashed = "sigmoid"
        if first is None or not twice or (place := (loss, line(first))) in told:
            continue
        told.add(place)
        at = f" (line {first.source.line})" if first.source else ""
        yield Finding(
            code="double-softmax",
            severity="warning",
            message=f"`{loss}` applies a {squashed} itself, and was given the result of a {squashed}{at}: "
            "it is applied twice.",
            advice=f"Give the loss the logits; apply the {squashed} only where you need probabilities.",
            node=first.id,
            where=node.source,
            nodes=(node.id, first.id),
        )


def _behind(graph: Graph, node: Node) -> Node | None:
    """The node behind the first input of `node`, past any reshape."""
    found = input_of(graph, node)
    while found is not None and found.name in _VIEWS:
        found = input_of(graph, found)
    return found


def _same_dimension(outer: Node, inner: Node) -> bool:
    """Both along the same dimension: by its number where the shapes agree, else both along the last."""
    after, before = dimension(outer), dimension(inner)
    if after is None or before is None:
        return False
    if after[1] == before[1]:
        return after[0] == before[0]
    last = after[0] == len(after[1]) - 1 and before[0] == len(before[1]) - 1
    return last and after[1][-1] == before[1][-1]
