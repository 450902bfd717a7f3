"""Where a softmax stands in a graph: the node behind an input, and the dimension it runs along."""

from __future__ import annotations

from explorer.graph import Graph, Node


def line(node: Node) -> int:
    """The line of a node; for one without, a number that no other node has."""
    return node.source.line if node.source is not None else -node.id - 1


def input_of(graph: Graph, node: Node) -> Node | None:
    """The node behind the first input of `node`."""
    edges = [graph.edges[index] for index in graph.outgoing[node.id]]
    return next((graph.nodes[edge.target] for edge in edges if edge.source_slot == 0), None)


def dimension(node: Node) -> tuple[int, tuple[int, ...]] | None:
    """The dimension a softmax ran along, counted from the front, and the shape of its result."""
    spec = node.outputs[0] if node.outputs else None
    text = next((saved.text for saved in node.saved if saved.name == "dim"), "")
    if spec is None or not text.lstrip("-").isdigit():
        return None
    return int(text) % max(1, len(spec.shape)), spec.shape
