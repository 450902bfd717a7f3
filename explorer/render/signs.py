"""The sign of each operation, with the constant it takes where the report makes that known."""

from __future__ import annotations

from math import isfinite

from explorer.graph import Node
from explorer.render import theme, words
from explorer.report import Number, Report

_DIGITS = 1e-4
"""A constant read off two forward values is shown if both lose at most this share to cancellation."""


def forward(report: Report, node: int, slot: int) -> Number | None:
    """The forward value of a scalar output, None where it is not known."""
    outputs = report.forward.get(node, ())
    values = outputs[slot] if slot < len(outputs) else None
    return values[0] if values else None


def sign_of(report: Report, node: Node) -> str:
    """The sign of an operation: "×", "exp"; with the constant it takes where that is known: "+1"."""
    name = words.operation(node)
    known = _constant(report, node, name)
    if known is not None and name in theme.CONSTANT_SIGNS:
        return f"{theme.CONSTANT_SIGNS[name]}{words.constant(known)}"
    if known is not None and name == "Rsub":
        return f"{words.constant(known)}−x"
    if name == "Pow":
        exponent = next((saved.text for saved in node.saved if saved.name == "exponent" and saved.text), "")
        return {"2": "x²", "2.0": "x²", "3": "x³", "3.0": "x³"}.get(
            exponent, f"x^{exponent}" if exponent else "xⁿ"
        )
    return theme.SIGNS.get(name, words.clean(name, 24))


def _constant(report: Report, node: Node, name: str) -> float | None:
    """The constant operand of an operation that sends a gradient to one operand only."""
    edges = [report.graph.edges[index] for index in report.graph.outgoing[node.id]]
    if name not in (*theme.CONSTANT_SIGNS, "Rsub") or len(edges) != 1:
        return None
    if edges[0].source_slot != 0:
        return None
    for saved in node.saved:
        if saved.name == "other" and saved.text:
            try:
                return float(saved.text)
            except ValueError:
                return None
    result = forward(report, node.id, 0)
    operand = forward(report, edges[0].target, edges[0].target_slot)
    if result is None or operand is None or isinstance(result, complex) or isinstance(operand, complex):
        return None
    return _solve(name, result, operand)


def _solve(name: str, result: float, operand: float) -> float | None:
    """The c for which ``operand <op> c == result``; None where the two values do not tell it."""
    if not (isfinite(result) and isfinite(operand)):
        return None
    if name in ("Mul", "Div"):
        top, bottom = (result, operand) if name == "Mul" else (operand, result)
        return top / bottom if bottom else None
    found = {"Add": result - operand, "Sub": operand - result, "Rsub": result + operand}[name]
    return found if abs(found) >= _DIGITS * max(abs(result), abs(operand)) else None
