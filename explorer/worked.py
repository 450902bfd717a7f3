"""One element of a tensor's gradient worked out in numbers.

The element is the one of largest size: the first is too often a dull zero. Its arithmetic is done by the
rules of `explorer.arithmetic` on numbers of the report itself, where tensors are small and known; larger
ones are read while backward runs (`explorer.witness`) and stand in `Report.elements`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isclose, isfinite, prod

from explorer.arithmetic import Block, Case, Worked, flat_block, work
from explorer.derivatives import AGREE
from explorer.formulas import arguments, operation
from explorer.graph import Node
from explorer.report import Element, GradientRecord, Number, Report
from explorer.values import Forward, argument_names

__all__ = ["confirmed", "index_of", "worked"]


def worked(report: Report, forward: Forward, node: Node, argument: str, record: GradientRecord | None) -> str:
    """ "element [1, 0]: 1×10 + 3×22 = 76" for the gradient `record` of one argument, "" where not known."""
    incoming = report.gradient(node.id)
    if incoming is None or record is None or not incoming.values or not record.values or not argument:
        return ""
    received, sent = _reals(incoming.values), _reals(record.values)
    if received is None or sent is None or not any(sent) or len(sent) < 2:
        return ""
    if not all(map(isfinite, (*received, *sent))):
        return ""
    place = max(range(len(sent)), key=lambda i: (abs(sent[i]), -i))
    where = index_of(place, record.shape)
    known = _Known(report, forward, node)
    given = flat_block(received, incoming.shape)
    found = work(Case(node, argument, where, record.shape, given, known.block, known.setting))
    return str(confirmed(found, where, sent[place], record.dtype)) if found else ""


def confirmed(found: Worked, place: tuple[int, ...], sent: float, dtype: str) -> Element:
    """The element as it is told: what torch sent stands beside the result where they differ.

    They differ by rounding where a sum cancels, and in earnest where a gradient is wrong or was changed by a
    hook; the check tells which.
    """
    relative = AGREE.get(dtype, 1e-4) * 10
    if isclose(found.value, sent, rel_tol=relative):
        return Element(place, found.text, sent)
    cancelled = abs(found.value - sent) <= relative * found.size
    said = " (its terms cancel: what is left is rounding)" if cancelled else ""
    return Element(place, found.text, sent, f"{found.value:.4g}{said}")


class _Known:
    """The numbers of one node's arguments and results, as the report holds them."""

    def __init__(self, report: Report, forward: Forward, node: Node) -> None:
        self.graph, self.forward, self.node = report.graph, forward, node
        self.tensors = set(arguments(operation(node.name))) | {item.name for item in node.saved if item.spec}

    def block(self, name: str) -> Block | None:
        """A tensor argument, or a result ("result", "result1")."""
        own = name == "result"
        value = self.forward.outputs.get((self.node.id, 0)) if own else None
        value = value or self.forward.arguments.get((self.node.id, name))
        numbers = _reals(value.numbers) if value is not None else None
        shape = self.shape(name)
        if numbers is not None and shape is None and self.node.outputs and self.node.outputs[0] is not None:
            shape = self.node.outputs[0].shape  # an operand as large as the result, saved without a shape
        if numbers is None or shape is None or prod(shape) != len(numbers):
            return None
        return flat_block(numbers, shape)

    def setting(self, name: str) -> tuple[float, ...] | None:
        """A number or list of numbers; also a constant tensor of one element."""
        text = next((item.text for item in self.node.saved if item.name == name), "")
        if text.isdecimal() and int(text) >= 2**63:  # a dim of -1, which torch keeps as an unsigned number
            return (float(int(text) - 2**64),)
        value = self.forward.arguments.get((self.node.id, name))
        numbers = _reals(value.numbers) if value is not None else None
        return None if numbers is None else tuple(numbers)

    def shape(self, name: str) -> tuple[int, ...] | None:
        """The shape of an argument or result, None where it is no tensor or not known."""
        saved = next((item.spec for item in self.node.saved if item.name == name and item.spec), None)
        if saved is not None:
            return saved.shape
        if name == "result":
            spec = self.node.outputs[0] if self.node.outputs else None
            return spec.shape if spec else None
        places = argument_names(self.graph, self.node)
        for index in self.graph.outgoing[self.node.id]:
            edge = self.graph.edges[index]
            if places[edge.source_slot : edge.source_slot + 1] == (name,):
                outputs = self.graph.nodes[edge.target].outputs
                spec = outputs[edge.target_slot] if edge.target_slot < len(outputs) else None
                return spec.shape if spec else None
        return None


def index_of(place: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the flat `place` in `shape`, row-major."""
    return tuple(place // prod(shape[axis + 1 :]) % size for axis, size in enumerate(shape))


def _reals(numbers: Sequence[Number]) -> list[float] | None:
    """The numbers as floats, None if one is complex."""
    found = [float(number) for number in numbers if not isinstance(number, complex)]
    return found if len(found) == len(numbers) else None
