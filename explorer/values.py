"""Forward values of a small graph: recorded, saved by a consumer, recomputed, or deduced.

torch keeps only what some formula needs, so the value on a wire is often nowhere in the graph. It is
found in this order: what was recorded while the script ran; a value that a consumer saved (the ``self``
of a product is the output of the node that made it); the operation computed again from its inputs; and
for constants, which have no node at all, the number that makes the result come out (``y + 1``: the
constant is the result minus y). Every value says how it is known. Values are flat, row-major, of at most
`report.SMALL` elements, and recomputed ones are rounded to the tensor's dtype.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import exp, log, prod
from typing import Literal

from explorer.elements import Flat, Reals, broadcast, parse_number, rounded, shortest
from explorer.formulas import arguments, inputs, operation
from explorer.graph import Graph, Node, TensorSpec
from explorer.mathematics import lookup
from explorer.operations import OPERATIONS, Compute
from explorer.report import SMALL

__all__ = ["Forward", "How", "Value", "argument_names", "fill"]

How = Literal["recorded", "saved", "recomputed", "deduced"]

SAME = frozenset(
    {
        "view",
        "_unsafe_view",
        "_reshape_alias",
        "_reshape_copy",
        "squeeze",
        "unsqueeze",
        "alias",
        "clone",
        "_to_copy",
    }
)
"""Operations (aten base names) whose output has the elements of `self` in the same order."""


@dataclass(frozen=True, slots=True)
class Value:
    """Flat elements and how they are known; `text` says it in words."""

    numbers: Flat
    how: How
    text: str

    @property
    def scalar(self) -> float | None:
        """The one real element, None where there are several or it is complex."""
        if len(self.numbers) != 1 or isinstance(self.numbers[0], complex):
            return None
        return float(self.numbers[0])


@dataclass(frozen=True, slots=True)
class Forward:
    """All that is known: `outputs` by (node, slot) and `arguments` by (node, torch's argument name).

    `arguments` also holds constants and settings ("alpha", "exponent"), which no node makes.
    """

    outputs: Mapping[tuple[int, int], Value]
    arguments: Mapping[tuple[int, str], Value]

    @property
    def values(self) -> dict[int, tuple[Flat | None, ...]]:
        """The outputs in the form of `Report.forward`."""
        found: dict[int, list[Flat | None]] = {}
        for (node, slot), value in sorted(self.outputs.items()):
            row = found.setdefault(node, [])
            row.extend([None] * (slot + 1 - len(row)))
            row[slot] = value.numbers
        return {node: tuple(row) for node, row in found.items()}

    def how(self, node: int, slot: int = 0) -> str:
        """How the value of output `slot` of `node` is known, or that it is not."""
        value = self.outputs.get((node, slot))
        return value.text if value else "not known: neither recorded, saved by a consumer, nor computable"


def fill(
    graph: Graph,
    recorded: Mapping[int, tuple[Flat | None, ...]] | None = None,
    saved: Mapping[tuple[int, str], Flat] | None = None,
) -> Forward:
    """All forward values of `graph` that can be known.

    `recorded` is in the form of `Report.forward` (leaf nodes included: a leaf's output is its tensor);
    `saved` maps (node, name without ``_saved_``) to flat elements, beside those the graph itself holds in
    `Saved.values`. Numbers spelled in `Saved.text` are read from there.
    """
    held = {
        (node.id, value.name): value.values
        for node in graph.nodes
        for value in node.saved
        if value.values is not None
    }
    return _Filling(graph, recorded or {}, {**held, **(saved or {})}).run()


def argument_names(graph: Graph, node: Node) -> tuple[str, ...]:
    """The argument behind each place in ``next_functions`` of `node`, "" where it is unknown.

    A list of tensors takes one place per tensor, all under the list's name.
    """
    names = inputs(node.name)
    places = len(graph.outgoing[node.id])
    if node.id < len(graph.arity):
        places = graph.arity[node.id]
    if len(names) == 1:
        return names * places
    return names[:places] + ("",) * (places - len(names))


class _Filling:
    """The state of one `fill`: what is known so far, and one method per way of knowing."""

    def __init__(
        self,
        graph: Graph,
        recorded: Mapping[int, tuple[Flat | None, ...]],
        saved: Mapping[tuple[int, str], Flat],
    ) -> None:
        self.graph = graph
        self.names = [argument_names(graph, node) for node in graph.nodes]
        self.outputs: dict[tuple[int, int], Value] = {}
        self.arguments: dict[tuple[int, str], Value] = {}
        for number, row in recorded.items():
            for slot, numbers in enumerate(row):
                if numbers is not None:
                    self.outputs[number, slot] = Value(
                        tuple(numbers), "recorded", "recorded while the script ran"
                    )
        for node in graph.nodes:
            for item in node.saved:
                numbers = saved.get((node.id, item.name))
                if numbers is None and not item.problem:
                    numbers = parse_number(item.text)
                self.keep(node, item.name, numbers)
        for (number, name), numbers in saved.items():
            self.keep(graph.nodes[number], name, numbers)

    def keep(self, node: Node, name: str, numbers: Flat | None) -> None:
        """Take one saved value in: the node's own result, or an argument."""
        if numbers is None or (node.id, name) in self.arguments:
            return
        value = Value(tuple(numbers), "saved", f"saved by {node.name} (node {node.id}) as {name}")
        if name == "result":
            self.outputs.setdefault((node.id, 0), value)
        else:
            self.arguments[node.id, name] = value

    def run(self) -> Forward:
        """Sweep from the inputs to the roots and back until nothing new is found."""
        before = -1
        while before != len(self.outputs) + len(self.arguments):
            before = len(self.outputs) + len(self.arguments)
            for number in reversed(self.graph.order):
                self.share(number)
                self.recompute(self.graph.nodes[number])
            for number in self.graph.order:
                self.deduce(self.graph.nodes[number])
                self.share(number)
        return Forward(self.outputs, self.arguments)

    def share(self, number: int) -> None:
        """An argument is the output of the node that the edge leads to: what one knows, both know."""
        names = self.names[number]
        for index in self.graph.outgoing[number]:
            edge = self.graph.edges[index]
            name = names[edge.source_slot] if edge.source_slot < len(names) else ""
            if not name or names.count(name) > 1:
                continue
            output, argument = (edge.target, edge.target_slot), (number, name)
            spec = self.spec(*output)
            if output in self.outputs:
                self.arguments.setdefault(argument, self.outputs[output])
            elif argument in self.arguments:
                value = self.arguments[argument]
                if spec is None or spec.numel == len(value.numbers):
                    self.outputs[output] = value

    def spec(self, node: int, slot: int) -> TensorSpec | None:
        """The shape and dtype of one output, None where unknown."""
        outputs = self.graph.nodes[node].outputs
        return outputs[slot] if slot < len(outputs) else None

    def known(self, node: Node) -> dict[str, Reals] | None:
        """Every known argument of `node` by name, as real numbers; None if one is complex."""
        found: dict[str, Reals] = {}
        for name in (*arguments(operation(node.name)), "result"):
            value = (
                self.outputs.get((node.id, 0)) if name == "result" else self.arguments.get((node.id, name))
            )
            if value is not None:
                if any(isinstance(number, complex) for number in value.numbers):
                    return None
                found[name] = tuple(
                    float(number) for number in value.numbers if not isinstance(number, complex)
                )
        return found

    def shape(self, node: Node, name: str) -> tuple[int, ...] | None:
        """The shape of one tensor argument, from the node that made it or from what was saved."""
        for index in self.graph.outgoing[node.id]:
            edge = self.graph.edges[index]
            if self.names[node.id][edge.source_slot : edge.source_slot + 1] == (name,):
                spec = self.spec(edge.target, edge.target_slot)
                return spec.shape if spec else None
        for item in node.saved:
            if item.name == name and item.spec:
                return item.spec.shape
        return None

    def recompute(self, node: Node) -> None:
        """The output from the arguments, where all are known and the operation is in the table."""
        spec = self.spec(node.id, 0)
        if (node.id, 0) in self.outputs or spec is None or spec.numel > SMALL or node.kind != "op":
            return
        known = self.known(node)
        if known:
            numbers = self.elementwise(node, known, spec) or self.whole(node, known, spec)
            if numbers is not None and len(numbers) == spec.numel:
                held = tuple(rounded(number, spec.dtype) for number in numbers)
                self.outputs[node.id, 0] = Value(held, "recomputed", "recomputed from its inputs")

    def elementwise(self, node: Node, known: Mapping[str, Reals], spec: TensorSpec) -> list[float] | None:
        """An elementwise operation, computed element by element with broadcasting."""
        found = lookup(node.name)
        if found is None or found.value is None or plain_only(node):
            return None
        wide: dict[str, Reals] = {}
        for name, numbers in known.items():
            shape = self.shape(node, name)
            spread = broadcast(numbers, shape, spec.shape)
            if spread is None:
                return None
            wide[name] = spread
        try:
            return [
                float(found.value({name: numbers[place] for name, numbers in wide.items()}))
                for place in range(spec.numel)
            ]
        except (KeyError, ArithmeticError, ValueError, TypeError):
            return None

    def whole(self, node: Node, known: Mapping[str, Reals], spec: TensorSpec) -> list[float] | None:
        """Copies, sums and matrix products of small tensors."""
        base = operation(node.name).split("(", 1)[0]
        name = base.split(".", 1)[0]
        first = known.get("self")
        if name in SAME and first is not None:
            return list(first)
        shape = self.shape(node, "self")
        if base in {"sum", "mean"} and first:
            return [sum(first) / (len(first) if base == "mean" else 1)]
        if name == "t" and first is not None and shape is not None and len(shape) == 2:
            return [first[row * shape[1] + column] for column in range(shape[1]) for row in range(shape[0])]
        pairs = {
            "mm": ("self", "mat2"),
            "mv": ("self", "vec"),
            "dot": ("self", "tensor"),
            "addmm": ("mat1", "mat2"),
        }
        if name not in pairs:
            return None
        left, right = pairs[name]
        rows = spec.shape[0] if name != "dot" else 1
        if left not in known or right not in known or not rows:
            return None
        inner = len(known[left]) // rows
        if not inner:
            return None
        return self.matrix(known, known[left], known[right], inner, spec, added=name == "addmm")

    def matrix(
        self, known: Mapping[str, Reals], left: Reals, right: Reals, inner: int, spec: TensorSpec, added: bool
    ) -> list[float] | None:
        """left · right, row-major, plus the broadcast `self` of an addmm with alpha = beta = 1."""
        rows, columns = len(left) // inner, len(right) // inner
        found = [
            sum(left[row * inner + k] * right[k * columns + column] for k in range(inner))
            for row in range(rows)
            for column in range(columns)
        ]
        if not added:
            return found
        bias = known.get("self", ())
        if len(bias) not in {1, columns, len(found)} or any(
            known.get(k, (1.0,)) != (1.0,) for k in ("alpha", "beta")
        ):
            return None
        return [number + bias[place % len(bias)] for place, number in enumerate(found)]

    def deduce(self, node: Node) -> None:
        """The one unknown side of a sum, difference, product or quotient from its result."""
        base = operation(node.name).split("(", 1)[0].split(".", 1)[0]
        spec = self.spec(node.id, 0)
        known = self.known(node)
        if base not in INVERSES or spec is None or known is None or plain_only(node):
            return
        unknown = [
            name
            for name in ("self", "other")
            if name in arguments(operation(node.name)) and name not in known
        ]
        if len(unknown) != 1 or "result" not in known or len(known["result"]) != spec.numel:
            return
        name = unknown[0]
        rule = INVERSES[base].get(name)
        if rule is None or any(len(numbers) not in {1, spec.numel} for numbers in known.values()):
            return
        text, inverse = rule
        found: list[float] = []
        forward = OPERATIONS[base].value
        for place in range(spec.numel):
            here = {key: numbers[place % len(numbers)] for key, numbers in known.items()}
            try:
                number = inverse(here)
            except (ArithmeticError, ValueError):
                return
            found.append(shortest(number, here, name, spec.dtype, forward))
        shape = self.shape(node, name)
        if shape is None and len(set(found)) == 1:
            found = found[:1]
        if shape is None or prod(shape) == len(found):
            self.arguments[node.id, name] = Value(tuple(found), "deduced", f"deduced: {text}")


INVERSES: Mapping[str, Mapping[str, tuple[str, Compute]]] = {
    "add": {
        "other": ("(result − self)/alpha", lambda v: (v["result"] - v["self"]) / v.get("alpha", 1.0)),
        "self": ("result − alpha·other", lambda v: v["result"] - v.get("alpha", 1.0) * v["other"]),
    },
    "sub": {
        "other": ("(self − result)/alpha", lambda v: (v["self"] - v["result"]) / v.get("alpha", 1.0)),
        "self": ("result + alpha·other", lambda v: v["result"] + v.get("alpha", 1.0) * v["other"]),
    },
    "rsub": {
        "other": ("result + alpha·self", lambda v: v["result"] + v.get("alpha", 1.0) * v["self"]),
        "self": ("(other − result)/alpha", lambda v: (v["other"] - v["result"]) / v.get("alpha", 1.0)),
    },
    "mul": {
        "other": ("result/self", lambda v: v["result"] / v["self"]),
        "self": ("result/other", lambda v: v["result"] / v["other"]),
    },
    "div": {
        "other": ("self/result", lambda v: v["self"] / v["result"]),
        "self": ("result·other", lambda v: v["result"] * v["other"]),
    },
    "neg": {"self": ("−result", lambda v: -v["result"])},
    "reciprocal": {"self": ("1/result", lambda v: 1 / v["result"])},
    "exp": {"self": ("ln result", lambda v: log(v["result"]))},
    "log": {"self": ("e^result", lambda v: exp(v["result"]))},
    "sqrt": {"self": ("result²", lambda v: v["result"] ** 2)},
}
"""How the missing side of an operation follows from its result and the other side."""


def plain_only(node: Node) -> bool:
    """Whether a setting makes the node differ from the table's plain formula (gelu's tanh form)."""
    return any(item.name == "approximate" and "tanh" in item.text for item in node.saved)
