"""The local derivative on every edge of a scalar graph: a number and its formula.

"upstream × local = downstream": the gradient that a node received, times the derivative of its output by
one input, is what it sends along that edge. The number comes from the formula, evaluated on the known
forward values; where a value is missing or the operation is not in the table, it is the ratio
downstream / upstream of the recorded gradients, and says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import isclose, isnan
from typing import Literal

from explorer.formulas import arguments, operation
from explorer.graph import Edge, Graph, Node
from explorer.mathematics import local_text, lookup
from explorer.report import GradientRecord, Report
from explorer.values import Forward, argument_names, fill, plain_only

__all__ = ["Basis", "Local", "local_derivatives", "multiplied", "scalar_of", "wire_names"]

Basis = Literal["formula", "ratio", "tensor", "unknown"]

ONES = frozenset({
    "view", "_unsafe_view", "_reshape_alias", "_reshape_copy", "squeeze", "unsqueeze", "t", "transpose",
    "permute", "expand", "select", "slice", "sum", "mean", "prod", "max", "min", "amax", "amin", "logsumexp",
    "cumsum",
})  # fmt: skip
"""Operations that hand a single element on unchanged, so that their slope is 1."""

PRODUCTS = {
    "mm": ("self", "mat2"),
    "bmm": ("self", "mat2"),
    "mv": ("self", "vec"),
    "dot": ("self", "tensor"),
    "addmm": ("mat1", "mat2"),
    "baddbmm": ("batch1", "batch2"),
}
"""Matrix products; of single elements each side's slope is the other side."""

AGREE = {"float64": 1e-6, "float32": 1e-4, "float16": 2e-2, "bfloat16": 1e-1}
"""Relative difference between upstream × local and the recorded gradient that rounding explains.

In float64 it is the float32 constants of some of torch's kernels (hardsigmoid's 1/6) that set the bound."""


@dataclass(frozen=True, slots=True)
class Local:
    """The derivative of one output of a node by the input behind one edge.

    `edge` indexes ``graph.edges``; `slot` is the output's. `value` is None when it is not one real number.
    `formula` is mathematics ("∂(a·b)/∂a = b"), "" when the operation is not in the table. `basis` says
    where the number comes from, and `note` what a reader must know about it.
    """

    edge: int
    slot: int
    value: float | None
    formula: str
    basis: Basis
    note: str = ""


def local_derivatives(report: Report, forward: Forward | None = None) -> dict[tuple[int, int], Local]:
    """(edge index, output slot) -> `Local` for every edge and every output of the node it leaves."""
    graph = report.graph
    forward = forward or fill(graph, report.forward)
    names = wire_names(report, forward)
    found: dict[tuple[int, int], Local] = {}
    for node in graph.nodes:
        places = argument_names(graph, node)
        letters = argument_letters(graph, node, forward, names)
        for index in graph.outgoing[node.id]:
            edge = graph.edges[index]
            argument = places[edge.source_slot] if edge.source_slot < len(places) else ""
            formula = local_text(node.name, argument, letters)
            for slot in range(max(len(node.outputs), 1)):
                found[index, slot] = _local(report, forward, node, index, slot, argument, formula)
    return found


def multiplied(report: Report, local: Local | None) -> str:
    """ "upstream × local = downstream" of one edge in numbers, with the formula; "" without a number.

    "1 × (-4) = -4, local ∂(q·z)/∂q = z"
    """
    if local is None or local.value is None:
        return ""
    upstream = scalar_of(report.gradient(report.graph.edges[local.edge].source, local.slot))
    if upstream is None:
        return f"local {local.formula or f'{local.value:.6g}'}"
    product = f"{_factor(upstream)} × {_factor(local.value)} = {upstream * local.value:.6g}"
    return ", ".join(filter(None, (product, local.formula and f"local {local.formula}", local.note)))


def _factor(number: float) -> str:
    """Six significant digits, a negative number in brackets."""
    return f"({number:.6g})" if number < 0 else f"{number:.6g}"


def scalar_of(record: GradientRecord | None) -> float | None:
    """The one real number a gradient record holds, None where it holds anything else."""
    if record is None or record.values is None or len(record.values) != 1:
        return None
    number = record.values[0]
    return None if isinstance(number, complex) else float(number)


def wire_names(report: Report, forward: Forward | None = None) -> tuple[str, ...]:
    """A short name for what each node makes: the variable's where it has one, else a letter and its number.

    The letter is v, or the next that no variable of the program has. A root without a name is called what the
    report calls it, a leaf without one "leaf" and its number.
    """
    graph = report.graph
    taken = {re.split(r"\W|\d", name)[0] for node in graph.nodes for name in node.names}
    letter = next((one for one in "vtnuq" if one not in taken), "v")
    roots = {node for node, _ in graph.roots}
    lone = report.root_name if len(roots) == 1 else ""
    found = []
    for node in graph.nodes:
        named = node.label if node.label in node.names else ""
        named = named or (node.names[0] if node.names else "")
        if node.kind == "leaf" and not named:
            unnamed = node.label in {"", "leaf"} or "AccumulateGrad" in node.label
            named = f"leaf{node.id}" if unnamed else node.label
        found.append(named or (lone if node.id in roots else "") or f"{letter}{node.id}")
    return tuple(found)


def argument_letters(graph: Graph, node: Node, forward: Forward, names: tuple[str, ...]) -> dict[str, str]:
    """What to call each argument of `node`: the wire's name, or a constant's number."""
    places = argument_names(graph, node)
    letters: dict[str, str] = {}
    for name in arguments(operation(node.name)):
        value = forward.arguments.get((node.id, name))
        if value is not None and value.scalar is not None:
            letters[name] = f"{value.scalar:.6g}" if value.scalar >= 0 else f"({value.scalar:.6g})"
    for index in graph.outgoing[node.id]:
        edge = graph.edges[index]
        if edge.source_slot < len(places) and places[edge.source_slot]:
            letters[places[edge.source_slot]] = names[edge.target]
    return letters


def _local(
    report: Report, forward: Forward, node: Node, index: int, slot: int, argument: str, formula: str
) -> Local:
    """One edge and one output: by the formula if it can be evaluated, else by the recorded gradients."""
    edge = report.graph.edges[index]
    if not _is_scalar(report.graph, edge, node, slot):
        return Local(index, slot, None, formula, "tensor", "a tensor: its derivative is not one number")
    upstream, downstream = scalar_of(report.gradient(node.id, slot)), _downstream(report, index)
    value = _evaluate(forward, node, argument) if slot == 0 else None
    if value is not None:
        return Local(
            index, slot, value, formula, "formula", _difference(report, node, upstream, value, downstream)
        )
    if upstream is None or downstream is None:
        return Local(index, slot, None, formula, "unknown", "neither the values nor both gradients are known")
    received = report.gradients[node.id]
    others = received is not None and sum(record is not None for record in received.received) > 1
    if others:
        return Local(index, slot, None, formula, "unknown", "several outputs of the node feed this edge")
    if upstream == 0:
        return Local(
            index, slot, None, formula, "unknown", "the upstream gradient is 0, so no ratio tells it"
        )
    return Local(
        index, slot, downstream / upstream, formula, "ratio", "from the gradients: downstream / upstream"
    )


def _is_scalar(graph: Graph, edge: Edge, node: Node, slot: int) -> bool:
    """Whether the output and the input behind the edge have one element each, as far as is known."""
    target = graph.nodes[edge.target]
    specs = (
        node.outputs[slot] if slot < len(node.outputs) else None,
        target.outputs[edge.target_slot] if edge.target_slot < len(target.outputs) else None,
    )
    return all(spec is None or (spec.numel == 1 and not spec.dtype.startswith("complex")) for spec in specs)


def _downstream(report: Report, index: int) -> float | None:
    """What the edge carried; where it is the only edge into its target, what the target received."""
    if index < len(report.edge_gradients) and report.edge_gradients[index] is not None:
        return scalar_of(report.edge_gradients[index])
    edge = report.graph.edges[index]
    if len(report.graph.incoming[edge.target]) == 1:
        return scalar_of(report.gradient(edge.target, edge.target_slot))
    return None


def _evaluate(forward: Forward, node: Node, argument: str) -> float | None:
    """The slope of a one-element operation by `argument`, None where it cannot be evaluated."""
    base = operation(node.name).split("(", 1)[0].split(".", 1)[0]
    if node.kind != "op" or not argument or plain_only(node):
        return None
    if base in ONES or (base in {"addmm", "baddbmm"} and argument == "self"):
        return 1.0
    if base in PRODUCTS and argument in PRODUCTS[base]:
        left, right = PRODUCTS[base]
        other = forward.arguments.get((node.id, right if argument == left else left))
        return other.scalar if other else None
    found = lookup(node.name)
    if found is None or argument not in found.slope:
        return None
    known = _known(forward, node)
    try:
        value = float(found.slope[argument](known))
    except (KeyError, ArithmeticError, ValueError, TypeError):
        return None
    return None if isnan(value) else value


def _known(forward: Forward, node: Node) -> Mapping[str, float]:
    """Every argument of `node` known as one real number, and its result."""
    known: dict[str, float] = {}
    for name in (*arguments(operation(node.name)), "result"):
        value = (
            forward.outputs.get((node.id, 0)) if name == "result" else forward.arguments.get((node.id, name))
        )
        if value is not None and value.scalar is not None:
            known[name] = value.scalar
    return known


def _difference(
    report: Report, node: Node, upstream: float | None, value: float, downstream: float | None
) -> str:
    """A note when upstream × local is not what torch sent, "" when rounding explains the difference."""
    if upstream is None or downstream is None:
        return ""
    spec = node.outputs[0] if node.outputs else None
    relative = AGREE.get(spec.dtype if spec else "float32", 1e-4)
    if isclose(upstream * value, downstream, rel_tol=relative, abs_tol=relative * 1e-6):
        return ""
    if isnan(upstream * value) and isnan(downstream):
        return ""
    return f"torch sent {downstream:.6g}, not {upstream * value:.6g}"
