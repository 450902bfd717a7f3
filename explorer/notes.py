"""What a first-time reader of a backward stumbles over, and where it is first met."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import prod

from explorer.formulas import operation
from explorer.graph import Graph, Node
from explorer.mathematics import lookup
from explorer.values import SAME, argument_names

__all__ = ["NOTES", "occasions"]

NOTES = {
    "next_functions": "Where results go is fixed in the node's next_functions: one place per "
    "differentiable input, naming the node that made that input.",
    "input_nr": "The number beside a next_functions entry, input_nr, says which of that node's several "
    "outputs the gradient belongs to.",
    "accumulate": "AccumulateGrad stands for a leaf, a tensor the program made itself. It multiplies "
    "nothing: it adds what arrives to .grad, which is why .grad must be cleared between steps.",
    "G": "G stands for the gradient that arrived at the node, of the shape of what the node made.",
    "view": "A view shares its numbers with its base. Its backward computes nothing: the gradient is put "
    "back into the base's shape.",
    "transpose": "TBackward and its kin stand for a transpose, hidden in nn.Linear, which multiplies by "
    "the transposed weight; the gradient is transposed back.",
    "broadcast": "The input was smaller than the output: it was broadcast, one number used many times. "
    "So its gradient is the sum over all those uses.",
    "fan-out": "This value was used more than once. The gradients of all its uses are added, the sum rule "
    "of calculus, before the node runs.",
    "in-place": "This line changes a tensor in place. The change has a node of its own, and from here on the "
    "name means the new numbers; backward refuses to use old ones that were overwritten.",
    "constant": "A constant has no node and no place to send a gradient: its next_functions entry is None.",
}
"""What a first-time reader needs to know, each said once."""

IN_PLACE = re.compile(r"[+\-*/@]=(?!=)|\.[a-z]\w*[a-z0-9]_\(|^\w+(\.\w+)*\[.*\]\s*=(?!=)")
"""A line that changes a tensor in place: ``x += 1``, ``x.relu_()``, ``x[0] = 1``."""

TRANSPOSES = frozenset({"t", "transpose", "permute"})
VIEWS = (SAME - {"clone", "_to_copy"}) | {"expand", "select", "slice", "split", "unbind"}


def occasions(graph: Graph, node: Node) -> Iterator[str]:
    """Which keys of `NOTES` this node is an occasion for."""
    base = operation(node.name).split("(", 1)[0].split(".", 1)[0]
    outgoing = [graph.edges[index] for index in graph.outgoing[node.id]]
    if outgoing:
        yield "next_functions"
    if any(edge.target_slot for edge in outgoing):
        yield "input_nr"
    if node.source is not None and IN_PLACE.search(node.source.code):
        yield "in-place"
    if base in TRANSPOSES:
        yield "transpose"
    elif base in VIEWS:
        yield "view"
    found = lookup(node.name)
    if node.outputs and node.outputs[0] is not None and (base == "addmm" or (found and found.elementwise)):
        matrices = {"mat1", "mat2"}
        names = argument_names(graph, node)
        for edge in outgoing:
            specs = graph.nodes[edge.target].outputs
            spec = specs[edge.target_slot] if edge.target_slot < len(specs) else None
            if spec and prod(spec.shape) < node.outputs[0].numel and names[edge.source_slot] not in matrices:
                yield "broadcast"
    if node.id < len(graph.arity) and graph.arity[node.id] > len(outgoing) and node.kind == "op":
        yield "constant"
