"""Scalar graphs as formulas: the expression each node of a small graph stands for."""

from __future__ import annotations

from typing import NamedTuple

from explorer.graph import Node
from explorer.render import theme, words
from explorer.render.drawing import forward_order
from explorer.render.signs import sign_of
from explorer.report import Report

_SUM, _PRODUCT, _PREFIX, _ATOM = range(4)
_INFIX = {
    "Mul": ("·", _PRODUCT),
    "Add": ("+", _SUM),
    "Sub": ("−", _SUM),
    "Div": ("/", _PRODUCT),
    "Dot": ("·", _PRODUCT),
}
_AROUND = {
    "1/x": ("1/{}", _PRODUCT),
    "×−1": ("−{}", _PREFIX),
    "x²": ("{}²", _ATOM),
    "x³": ("{}³", _ATOM),
    "|x|": ("|{}|", _ATOM),
    "√": ("√{}", _PREFIX),
    "1/√": ("1/√{}", _PRODUCT),
}


class _Said(NamedTuple):
    """A formula and how tightly its outermost operation binds."""

    text: str
    binds: int

    def inside(self, least: int) -> str:
        """The formula, in parentheses if it binds less tightly than `least`."""
        return self.text if self.binds >= least else f"({self.text})"


_UNKNOWN = _Said("const", _ATOM)
"""A constant operand that the graph did not keep."""


def expressions(report: Report, longest: int = 40) -> dict[int, str]:
    """For each node its name, or the formula over names that makes it, of at most `longest` characters.

    Of a longer formula only the last operation is shown, over "…".
    """
    graph = report.graph
    said: dict[int, _Said] = {}
    for number in forward_order(graph):
        node = graph.nodes[number]
        if node.label and node.label != words.operation(node) and not is_root(report, number):
            said[number] = _Said(words.label(node), _ATOM)
            continue
        operands = [said[graph.edges[index].target] for index in graph.outgoing[number]]
        found = _join(report, node, operands)
        if len(found.text) > longest:
            found = _join(report, node, [_Said("…", _ATOM) for _ in operands])
        said[number] = found
    return {number: words.clean(found.text, longest) for number, found in said.items()}


def is_root(report: Report, node: int) -> bool:
    """True for the node of a root: its formula is worth more than its name, which the title says."""
    return any(node == root for root, _ in report.graph.roots) and node not in (
        leaf.id for leaf in report.graph.leaves()
    )


def _join(report: Report, node: Node, operands: list[_Said]) -> _Said:
    operation, sign = words.operation(node), sign_of(report, node)
    if len(operands) == 1 and operation in theme.CONSTANT_SIGNS and sign == theme.SIGNS[operation]:
        slot = report.graph.edges[report.graph.outgoing[node.id][0]].source_slot
        operands = [*operands, _UNKNOWN] if slot == 0 else [_UNKNOWN, *operands]
    if operation in _INFIX and len(operands) == 2:
        between, binds = _INFIX[operation]
        right = binds if between in "·+" else binds + 1
        return _Said(f"{operands[0].inside(binds)} {between} {operands[1].inside(right)}", binds)
    if len(operands) == 1 and sign in _AROUND:
        around, binds = _AROUND[sign]
        return _Said(around.format(operands[0].inside(_ATOM if binds != _SUM else binds)), binds)
    if len(operands) == 1 and operation in theme.CONSTANT_SIGNS:
        between, binds = _INFIX[operation]
        return _Said(f"{operands[0].inside(binds)} {between} {sign[1:]}", binds)
    if len(operands) == 1 and operation == "Rsub":
        known = sign.removesuffix("−x") if sign.endswith("−x") else _UNKNOWN.text
        return _Said(f"{known} − {operands[0].inside(_PRODUCT)}", _SUM)
    return _Said(f"{sign}({', '.join(one.text for one in operands)})", _ATOM)
