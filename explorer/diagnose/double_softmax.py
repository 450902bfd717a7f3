"""`double-softmax`: a loss that takes logits was given probabilities."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
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
            inner = _input(graph, node)
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
        if first is None or not twice or (place := (loss, _line(first))) in told:
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


def _line(node: Node) -> int:
    return node.source.line if node.source is not None else -node.id - 1


def _input(graph: Graph, node: Node) -> Node | None:
    """The node behind the first input of `node`."""
    edges = [graph.edges[index] for index in graph.outgoing[node.id]]
    return next((graph.nodes[edge.target] for edge in edges if edge.source_slot == 0), None)


def _behind(graph: Graph, node: Node) -> Node | None:
    """The same, past any reshape."""
    found = _input(graph, node)
    while found is not None and found.name in _VIEWS:
        found = _input(graph, found)
    return found


def _same_dimension(outer: Node, inner: Node) -> bool:
    """Both along the same dimension: by its number where the shapes agree, else both along the last."""
    after, before = _dimension(outer), _dimension(inner)
    if after is None or before is None:
        return False
    if after[1] == before[1]:
        return after[0] == before[0]
    last = after[0] == len(after[1]) - 1 and before[0] == len(before[1]) - 1
    return last and after[1][-1] == before[1][-1]


def _dimension(node: Node) -> tuple[int, tuple[int, ...]] | None:
    """The dimension a softmax ran along, counted from the front, and the shape of its result."""
    spec = node.outputs[0] if node.outputs else None
    text = next((saved.text for saved in node.saved if saved.name == "dim"), "")
    if spec is None or not text.lstrip("-").isdigit():
        return None
    return int(text) % max(1, len(spec.shape)), spec.shape
