"""One element of a tensor's gradient worked out in numbers, where its values are small and known.

The element is the one of largest size: the first is too often a dull zero. Elementwise operations show
upstream × local (a sum of such products where the input was broadcast), matrix products the row times
column, softmax and log-softmax their own formula.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import exp, isfinite, prod

from explorer.formulas import arguments, operation
from explorer.graph import Node
from explorer.mathematics import lookup
from explorer.report import GradientRecord, Number, Report
from explorer.values import Forward, broadcast, plain_only

__all__ = ["worked"]

FEW = 6
"""A sum of more terms is not written out."""

MATRICES = {"mm": ("self", "mat2"), "bmm": ("self", "mat2"), "addmm": ("mat1", "mat2")}
"""Matrix products: the names of their two sides."""


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
    base = operation(node.name).split("(", 1)[0].split(".", 1)[0]
    if base in MATRICES and argument in MATRICES[base]:
        text = _matrix(forward, node, argument, base, incoming, record, place)
    elif base in {"_softmax", "_safe_softmax", "_log_softmax"}:
        text = _softmax(forward, node, incoming, place, "log" in base)
    else:
        text = _elementwise(forward, node, argument, incoming, record, place, base)
    return f"element {list(_index(place, record.shape))}: {text} = {_number(sent[place])}" if text else ""


def _matrix(
    forward: Forward,
    node: Node,
    argument: str,
    base: str,
    incoming: GradientRecord,
    record: GradientRecord,
    place: int,
) -> str:
    """Row of one matrix times column of the other: G·Bᵀ for the left side, Aᵀ·G for the right one."""
    left, right = MATRICES[base]
    known = forward.arguments.get((node.id, right if argument == left else left))
    other = _reals(known.numbers) if known is not None else None
    given = _reals(incoming.values or ())
    if other is None or given is None or len(incoming.shape) < 2 or len(record.shape) != len(incoming.shape):
        return ""
    (rows, columns), batch = incoming.shape[-2:], _index(place, record.shape)[0] if base == "bmm" else 0
    row, column = _index(place, record.shape)[-2:]
    given = given[batch * rows * columns : (batch + 1) * rows * columns]
    if argument == left:
        inner = record.shape[-1]
        other = other[batch * inner * columns : (batch + 1) * inner * columns]
        pairs = [(given[row * columns + k], other[column * columns + k]) for k in range(columns)]
    else:
        inner = record.shape[-2]
        other = other[batch * rows * inner : (batch + 1) * rows * inner]
        pairs = [(other[k * inner + row], given[k * columns + column]) for k in range(rows)]
    return _sum([f"{_factor(a)}×{_factor(b)}" for a, b in pairs])


def _softmax(forward: Forward, node: Node, incoming: GradientRecord, place: int, logarithm: bool) -> str:
    """s·(G − Σ G·s) along the last axis, or G − s·Σ G for the logarithm, whose result is ln s."""
    own = forward.outputs.get((node.id, 0))
    result, given = _reals(own.numbers) if own else None, _reals(incoming.values or ())
    axis = next((item.text for item in node.saved if item.name == "dim"), "")
    last = len(incoming.shape) - 1
    # torch saves a dim of -1 as an unsigned 64-bit number
    if result is None or given is None or axis not in {str(last), "-1", str(2**64 - 1)}:
        return ""
    width = incoming.shape[-1]
    line = range(place // width * width, place // width * width + width)
    if logarithm:
        total = sum(given[i] for i in line)
        return f"{_number(given[place])} − {_factor(exp(result[place]))}×{_factor(total)}"
    total = sum(given[i] * result[i] for i in line)
    return f"{_factor(result[place])}×({_number(given[place])} − {_factor(total)})"


def _elementwise(
    forward: Forward,
    node: Node,
    argument: str,
    incoming: GradientRecord,
    record: GradientRecord,
    place: int,
    base: str,
) -> str:
    """upstream × local for every output element that this input element went into, added."""
    given = _reals(incoming.values or ())
    spread = broadcast(tuple(map(float, range(record.numel))), record.shape, incoming.shape)
    if given is None or spread is None or plain_only(node):
        return ""
    users = [i for i, source in enumerate(spread) if source == place]
    if base == "addmm":
        return _sum([_factor(given[i]) for i in users]) if len(users) > 1 else ""
    found = lookup(node.name)
    if found is None or not found.elementwise or argument not in found.slope or len(users) > FEW:
        return ""
    try:
        slopes = [float(found.slope[argument](_at(forward, node, incoming.shape, i))) for i in users]
    except (KeyError, ArithmeticError, ValueError, TypeError):
        return ""
    if slopes == [1.0]:
        return ""  # passed on unchanged: nothing to work out
    if set(slopes) == {1.0}:
        return _sum([_factor(given[i]) for i in users])
    return _sum([f"{_factor(given[i])} × {_factor(slope)}" for i, slope in zip(users, slopes, strict=True)])


def _at(forward: Forward, node: Node, shape: tuple[int, ...], place: int) -> dict[str, float]:
    """Every known argument of an elementwise node, and its result, at one output element."""
    found: dict[str, float] = {}
    for name in (*arguments(operation(node.name)), "result"):
        value = (
            forward.outputs.get((node.id, 0)) if name == "result" else forward.arguments.get((node.id, name))
        )
        numbers = _reals(value.numbers) if value is not None else None
        wide = broadcast(tuple(numbers), _shape(node, name), shape) if numbers else None
        if wide is not None:
            found[name] = wide[place]
    return found


def _shape(node: Node, name: str) -> tuple[int, ...] | None:
    """The shape of an argument as it was saved, None where it was not."""
    return next((item.spec.shape for item in node.saved if item.name == name and item.spec), None)


def _index(place: int, shape: Sequence[int]) -> tuple[int, ...]:
    """The index of the flat `place` in `shape`, row-major."""
    return tuple(place // prod(shape[axis + 1 :]) % size for axis, size in enumerate(shape))


def _reals(numbers: Sequence[Number]) -> list[float] | None:
    """The numbers as floats, None if one is complex."""
    found = [float(number) for number in numbers if not isinstance(number, complex)]
    return found if len(found) == len(numbers) else None


def _sum(terms: Sequence[str]) -> str:
    return " + ".join(terms) if len(terms) <= FEW else ""


def _number(number: float) -> str:
    """Four significant digits."""
    return f"{number:.4g}"


def _factor(number: float) -> str:
    """The same, a negative number in brackets."""
    return f"({number:.4g})" if number < 0 else f"{number:.4g}"
