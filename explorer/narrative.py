"""A narrated backward: numbered steps in the order of execution, a line of arithmetic each.

Scalars are worked out in full: "upstream × local = downstream". Tensors are told by shape and size, with
one element worked out where its values are small and known (see `explorer.worked`). What a reader of
PyTorch graphs stumbles over (next_functions, input_nr, AccumulateGrad, views, broadcasting, fan-out,
constants) is said once, where it is first met.
"""

from __future__ import annotations

from collections.abc import Iterator
from textwrap import wrap

from explorer.derivatives import Local, argument_letters, local_derivatives, scalar_of, wire_names
from explorer.formulas import formulas, meaning
from explorer.graph import Node, TensorSpec
from explorer.mathematics import forward_text, local_text
from explorer.notes import NOTES, occasions
from explorer.report import BAD_STATUSES, GradientRecord, Number, Report
from explorer.values import Forward, argument_names, fill
from explorer.worked import worked

__all__ = ["NOTES", "captions", "explain"]

STEPS = 300
"""A longer backward is narrated up to this step."""

FEW = 6
"""So many elements are written out; of more the shape and norm are told."""

TIMES = {2: "twice", 3: "three times"}


def explain(report: Report, width: int = 80, forward: Forward | None = None) -> str:
    """The backward of `report` as text of at most `width` columns, ending with a line break.

    `forward` takes forward values already found by `values.fill`; without it they are found from
    `report.forward` and the settings the nodes saved.
    """
    return _Narrator(report, max(width, 40), forward or fill(report.graph, report.forward)).tell()


def captions(report: Report, forward: Forward | None = None) -> dict[int, tuple[str, ...]]:
    """For each of the first `STEPS` nodes that ran, its lines of arithmetic: what arrived, and what it sent.

    The lines are those of `explain` without the notes; `forward` is as there.
    """
    narrator = _Narrator(report, 10_000, forward or fill(report.graph, report.forward))
    narrator.said.update(NOTES)
    found = {}
    for node in narrator.order()[:STEPS]:
        lines = [line for slot in range(max(len(node.outputs), 1)) for line in narrator.arrival(node, slot)]
        lines += narrator.sendings(node) if node.kind != "leaf" else []
        found[node.id] = tuple(line.strip() for line in lines)
    return found


class _Narrator:
    """One telling: the report, the names of its wires, and which notes were already given."""

    def __init__(self, report: Report, width: int, forward: Forward) -> None:
        self.report, self.graph, self.width, self.forward = report, report.graph, width, forward
        self.names = wire_names(report, forward)
        self.local = local_derivatives(report, forward)
        self.said: set[str] = set()
        self.line = ("", 0)
        self.root = report.root_name if len(report.graph.roots) == 1 else "the sum of the roots"

    def tell(self) -> str:
        """The whole text."""
        lines = [*self.wrapped(self.opening())]
        values = list(self.forward_lines())
        if values:
            lines += ["", "Forward, from the inputs to the result:", *values]
        order = self.order()
        if order:
            lines += ["", "Backward, from the result to the inputs:"]
        for number, node in enumerate(order[:STEPS], 1):
            lines += ["", *self.step(number, node)]
        if len(order) > STEPS:
            left = len(order) - STEPS
            lines += ["", f"… and {left:,} more {'step' if left == 1 else 'steps'}."]
        lines += self.closing()
        return "\n".join(lines) + "\n"

    def opening(self) -> str:
        """What backward is about to do, and whether it ran."""
        count = len(self.graph.nodes)
        nodes = "1 node" if count == 1 else f"{count} nodes"
        if not any(self.report.gradients):
            return f"The graph of {self.root} has {nodes}; backward did not run: no gradient is known."
        ran = sum(record is not None for record in self.report.gradients)
        said = (
            f"The backward of {self.root} ran {ran} of {nodes}. Each receives the gradient of "
            f"{self.root} by its output, multiplies it by the derivative of that output by each input, and "
            "sends the products on: upstream × local = downstream."
        )
        root, slot = self.graph.roots[0]
        wide = [spec for node in self.graph.nodes for spec in node.outputs if spec is not None and spec.shape]
        begins = self.graph.nodes[root].outputs[slot : slot + 1]
        if begins and begins[0] is not None and begins[0].numel > 1:
            said += (
                f" {self.root} has {begins[0].numel:,} elements: what is told is the gradient of their sum, "
                "each weighted by what backward began with there."
            )
        if any(spec.numel > 1 for spec in wide):
            said += (
                " Tensors of more than one number are told by shape and size (the norm is the square root of "
                "the sum of squares), and one element of each gradient, its largest, is worked out."
            )
        return f"{said} Numbers are rounded to four digits."

    def order(self) -> list[Node]:
        """The nodes that ran, in the order of execution.

        A leaf whose gradient was only collected (``autograd.grad``) has no place of its own in it; it
        comes after the last node that sent it something.
        """
        place = {n: record.index for n, record in enumerate(self.report.gradients) if record is not None}
        for node in self.graph.leaves():
            if node.id in place:
                senders = (self.graph.edges[index].source for index in self.graph.incoming[node.id])
                place[node.id] = max(place[node.id], *(place.get(sender, 0) for sender in senders), 0)
        ran = sorted(place, key=lambda n: (place[n], self.graph.nodes[n].kind == "leaf", n))
        return [self.graph.nodes[number] for number in ran]

    def forward_lines(self) -> Iterator[str]:
        """One line per operation on single numbers whose value is known."""
        if len(self.graph.nodes) > STEPS:
            return
        for number in reversed(self.graph.order):
            node, value = self.graph.nodes[number], self.forward.outputs.get((number, 0))
            if node.kind != "op" or value is None or value.scalar is None:
                continue
            text = forward_text(node.name, argument_letters(self.graph, node, self.forward, self.names))
            how = "" if value.how == "recorded" else f"  ({value.how})"
            yield from self.wrapped(
                f"{self.names[number]} = {text or node.label} = {_number(value.scalar)}{how}", 2
            )

    def step(self, number: int, node: Node) -> list[str]:
        """One node: what arrives, what it does, where the results go, and what is new about it."""
        lines = self.wrapped(f"{number}. {self.title(node)}", 0, 4)
        for slot in range(max(len(node.outputs), 1)):
            lines += self.arrival(node, slot)
        if node.kind == "leaf":
            lines += self.note("accumulate")
            return lines
        lines += self.sendings(node)
        for key in occasions(self.graph, node):
            lines += self.note(key)
        sentence = node.note or (meaning(node.name) if node.kind != "op" or not formulas(node.name) else "")
        lines += self.wrapped(f"{node.name}: {sentence}.", 4) if sentence else []
        verdict = self.report.verdict(node.id)
        if verdict is not None and verdict.status in BAD_STATUSES:
            lines += self.wrapped(f"The check disagrees here: {verdict.status}. {verdict.reason}", 4)
        return lines

    def title(self, node: Node) -> str:
        """The node, what it made, and the line of the program."""
        if node.kind == "leaf":
            return f"{node.name} of {self.names[node.id]}"
        text = forward_text(node.name, argument_letters(self.graph, node, self.forward, self.names))
        made = f"made {self.names[node.id]}{self.shape(node.outputs, 0)}" + (f" = {text}" if text else "")
        return f"{node.name}, which {made}{self.place(node)}"

    def place(self, node: Node) -> str:
        """Where in the program: the module and the line, its text only where the step before had another."""
        parts = [f"in {node.module}"] if node.module else []
        if node.source:
            here = (node.source.file, node.source.line)
            parts.append(f"line {node.source.line}")
            parts[-1] += f": {node.source.code.strip()}" if here != self.line else ""
            self.line = here
        return f" ({', '.join(parts)})" if parts else ""

    def shape(self, outputs: tuple[TensorSpec | None, ...], slot: int) -> str:
        """ " [2, 3]" for a tensor, "" for a single number."""
        spec = outputs[slot] if slot < len(outputs) else None
        return f" {list(spec.shape)}" if spec is not None and spec.shape else ""

    def arrival(self, node: Node, slot: int) -> list[str]:
        """The gradient that arrives for one output, as the sum of its uses."""
        record = self.report.gradient(node.id, slot)
        several = len(node.outputs) > 1
        name = self.names[node.id] + (f"[output {slot}]" if several else "")
        if record is None:
            return self.wrapped(f"nothing arrives for {name}: that output was not used", 4) if several else []
        what = f"∂{self.root}/∂{name}"
        if (node.id, slot) in self.graph.roots and not self.graph.incoming[node.id]:
            return self.wrapped(f"{what} = {_size(record)}: backward begins here", 4)
        parts = [
            (self.names[self.graph.edges[index].source], self.report.edge_gradients[index])
            for index in self.graph.incoming[node.id]
            if self.graph.edges[index].target_slot == slot and index < len(self.report.edge_gradients)
        ]
        if node.kind == "leaf":
            what = f"{name}.grad += {what}"
        if len(parts) < 2:
            return self.wrapped(f"{what} = {_size(record)}", 4)
        numbers = [scalar_of(part) for _, part in parts]
        known = [number for number in numbers if number is not None]
        if len(known) == len(parts) <= FEW:
            text = f"{what} = {' + '.join(map(_bracket, known))} = {_size(record)}"
        else:
            text = f"{what} = the sum over {len(parts)} uses: {_size(record)}"
        return [*self.wrapped(text, 4), *self.note("fan-out")]

    def sendings(self, node: Node) -> list[str]:
        """What goes along all edges: a sum's equal parts in one line, and twice the same in one."""
        places = argument_names(self.graph, node)
        outgoing = self.graph.outgoing[node.id]
        upstream = scalar_of(self.report.gradient(node.id))
        targets = [
            (self.graph.edges[index].target, self.graph.edges[index].target_slot) for index in outgoing
        ]
        found = [self.local.get((index, 0)) for index in outgoing]
        known = [local for local in found if local is not None and local.value is not None and not local.note]
        if len(node.outputs) > 1 or upstream is None or len(known) < len(outgoing) or len(outgoing) < 2:
            return [line for index in outgoing for line in self.sending(node, index, places)]
        if len(set(targets)) == 1 and len({(local.value, local.formula) for local in known}) == 1:
            to = f"to {self.names[targets[0][0]]}, {TIMES.get(len(known), f'{len(known)} times')}"
            return self.wrapped(f"{self.arithmetic(to, known[0], upstream)} each time", 4, 8)
        if {local.value for local in known} == {1.0} and "sum" in self.said:
            names = [self.names[target] for target, _ in targets]
            to = f"{', '.join(names[:-1])} and {names[-1]}"
            return self.wrapped(
                f"to {to}: a sum's slope is 1 by each term, so each gets {_number(upstream)}", 4, 8
            )
        if {local.value for local in known} == {1.0}:
            self.said.add("sum")
        return [line for index in outgoing for line in self.sending(node, index, places)]

    def sending(self, node: Node, index: int, places: tuple[str, ...]) -> list[str]:
        """What goes along one edge: the arithmetic for a number, formula and size for a tensor."""
        edge = self.graph.edges[index]
        outputs = self.graph.nodes[edge.target].outputs
        to = f"to {self.names[edge.target]}{self.shape(outputs, edge.target_slot)}"
        for slot in range(max(len(node.outputs), 1)):
            local, upstream = self.local.get((index, slot)), scalar_of(self.report.gradient(node.id, slot))
            if local is not None and local.value is not None and upstream is not None:
                return self.wrapped(self.arithmetic(to, local, upstream), 4, 8)
        record = self.report.edge_gradients[index] if index < len(self.report.edge_gradients) else None
        argument = places[edge.source_slot] if edge.source_slot < len(places) else ""
        text = local_text(node.name, argument, argument_letters(self.graph, node, self.forward, self.names))
        text = text.replace("∂L/∂", f"∂{self.root}/∂", 1) or formulas(node.name).get(argument, "")
        lines = self.wrapped(f"{to}: {text or 'its share'}{'; ' + _size(record) if record else ''}", 4, 8)
        known = self.report.elements.get(index)
        example = str(known) if known else worked(self.report, self.forward, node, argument, record)
        return lines + (self.wrapped(example, 8) if example else []) + self.note("G" if "G" in text else "")

    def arithmetic(self, to: str, local: Local, upstream: float) -> str:
        """ "to q: ∂(q·z)/∂q = z = -4, so 1 × (-4) = -4"."""
        assert local.value is not None
        value = _number(local.value)
        formula = local.formula or "local derivative"
        plain = value.replace("-", "−")
        stated = (
            formula
            if formula.endswith((f"= {value}", f"= {plain}", f"= ({value})", f"= ({plain})"))
            else f"{formula} = {value}"
        )
        product = f"{_bracket(upstream)} × {_bracket(local.value)} = {_number(upstream * local.value)}"
        note = f" ({local.note})" if local.note else ""
        return f"{to}: {stated}, so {product}{note}"

    def note(self, key: str) -> list[str]:
        """A note of `NOTES`, the first time only."""
        if not key or key in self.said:
            return []
        self.said.add(key)
        return self.wrapped(f"[{NOTES[key]}]", 4, 5)

    def closing(self) -> list[str]:
        """What the leaves hold in the end, and an error that ended backward early."""
        lines = []
        found = [
            f"∂{self.root}/∂{self.names[node.id]} = {_size(record)}"
            for node in self.graph.leaves()
            if (record := self.report.gradient(node.id)) is not None
        ]
        if found:
            lines += ["", "The gradients of the leaves:"]
            for text in found[:STEPS]:
                lines += self.wrapped(text, 2, 6)
        if self.report.error:
            lines += ["", *self.wrapped(f"Backward ended early: {self.report.error}")]
        return lines

    def wrapped(self, text: str, indent: int = 0, hanging: int | None = None) -> list[str]:
        """`text` in lines of at most the width."""
        hanging = indent if hanging is None else hanging
        return wrap(text, self.width, initial_indent=" " * indent, subsequent_indent=" " * hanging)


def _number(number: float) -> str:
    """Four significant digits; a whole number whole."""
    return f"{number:.0f}" if abs(number) < 1e6 and number == int(number) else f"{number:.4g}"


def _bracket(number: float) -> str:
    """The same, a negative number in brackets."""
    return f"({_number(number)})" if number < 0 else _number(number)


def _plain(number: Number) -> str:
    """A real or complex number with a few digits, a negative one in brackets."""
    return f"({number:.4g})" if isinstance(number, complex) else _bracket(float(f"{number:.4g}"))


def _size(record: GradientRecord) -> str:
    """A gradient in words: its number, its few elements, or its shape and norm."""
    one = scalar_of(record)
    if one is not None:
        return _number(one)
    if record.values is not None and 0 < len(record.values) <= FEW:
        words = ", ".join(f"{value:.4g}" for value in record.values)
        return f"[{words}]" + (f" in shape {list(record.shape)}" if len(record.shape) > 1 else "")
    if record.zero:
        return f"{list(record.shape)}, all zero"
    bad = f", {record.nans} nan and {record.infs} inf" if record.nans or record.infs else ""
    return f"{list(record.shape)}, norm {record.norm:.4g}{bad}"
