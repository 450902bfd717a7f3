"""Scalar graphs as CS231n draws them: left to right, values above the wires, gradients below.

A wire is a plain node that holds a table of two rows split by a rule, and the rule *is* the wire.
"""

from __future__ import annotations

from collections.abc import Mapping

import graphviz

from explorer.derivatives import Local, local_derivatives, multiplied, wire_names
from explorer.render import theme, words
from explorer.render.drawing import Drawing, Shape, Wire
from explorer.render.expression import expressions
from explorer.render.marks import Mark, findings_by_node, mark, received
from explorer.render.markup import EDGE, NODE, font, head, heading, plain, table, text
from explorer.render.signs import forward, sign_of
from explorer.report import GradientRecord, Number, Report

Locals = Mapping[tuple[int, int], Local]
"""(edge index, output slot) -> local derivative."""

LONGEST = 60
"""Characters of a formula in the title."""


def source(report: Report, drawing: Drawing, *, note: str = "") -> str:
    """DOT source of a scalar graph in circuit style."""
    dot = graphviz.Digraph("autograd")
    lines = [_key(report), *map(text, (words.check_words(report), *drawing.folded, note))]
    dot.attr("graph", **head("LR", heading(text(title(report)), filter(None, lines)), "t"))
    dot.attr("node", **NODE)
    dot.attr("edge", **EDGE)
    findings, local = findings_by_node(report), local_derivatives(report)
    for shape in drawing.shapes:
        _box(dot, report, shape, mark(report, shape, findings), local)
    for place, wire in enumerate(_by_consumer(report, drawing)):
        _wire(dot, report, drawing, place, wire, local)
    for place, (node, slot) in enumerate(dict.fromkeys(report.graph.roots)):
        _root(dot, report, place, node, slot)
    return str(dot.source)


def _key(report: Report) -> str:
    """What the numbers beside a wire mean; silent about those that are not there."""
    above, over, below, under = theme.CIRCUIT_KEY
    upper = font(above, colour=theme.VALUE, style="b") + over if report.forward else ""
    lower = font(below, colour=theme.GRADIENT, style="i") + (under if upper else f"{under} the wire")
    if not report.gradients:
        return upper.removesuffix(", ") if upper else ""
    return upper + lower


def title(report: Report) -> str:
    """What the drawing is of: the root's name, the formula where it is short, the value where known."""
    name = words.roots(report)
    roots = dict.fromkeys(report.graph.roots)
    if len(roots) != 1:
        return name
    ((node, slot),) = roots
    formula = expressions(report, LONGEST)[node]
    value = forward(report, node, slot)
    parts = [name, formula if formula != name and "…" not in formula else ""]
    parts += [words.value(value) if value is not None else ""]
    return " = ".join(filter(None, parts))


# ---------------------------------------------------------------- boxes


def _box(dot: graphviz.Digraph, report: Report, shape: Shape, state: Mark, local: Locals) -> None:
    node = report.graph.nodes[shape.members[0]]
    sign = shape.label if node.kind == "leaf" else sign_of(report, node)
    rows = [text(sign, 24)]
    if _differ(report, node.id):
        total = " ".join(words.value(_number(record)) for record in received(report, node.id))
        rows.append(font(f"Σ {total}", size=theme.SMALL_SIZE, colour=theme.GRADIENT, style="i"))
    said = _said(state)
    rows += [font(text(line, 40), size=theme.SMALL_SIZE, colour=colour) for line, colour in said]
    attributes = _leaf_look(shape) if node.kind != "op" else _op_look(rows, sign)
    if state.wrong:
        attributes |= {"color": theme.WRONG_BORDER, "penwidth": "2.6"}
    elif state.state == "hazard":
        attributes |= {"color": theme.HAZARD_BORDER, "fillcolor": theme.HAZARD_FILL, "penwidth": "2.6"}
        attributes |= {"fontcolor": theme.HAZARD_INK}
    label = rows[0] if len(rows) == 1 else table(rows)
    kind = {"parameter": "param"}.get(shape.kind, shape.kind)
    dot.node(
        shape.key,
        graphviz.nohtml(words.clean(sign, 24)) if label == rows[0] else label,
        id=shape.key,
        **{"class": f"node {kind}{' wrong' if state.wrong else ''}"},
        tooltip=plain(
            node.name,
            state.words(),
            *_products(report, node.id, local),
            *(finding.message for finding in state.findings),
        ),
        **attributes,
    )


def _products(report: Report, node: int, local: Locals) -> list[str]:
    """What the node sends to each input: "to q: upstream × local = downstream"."""
    names = wire_names(report)
    sent = [
        (names[report.graph.edges[index].target], multiplied(report, local.get((index, 0))))
        for index in report.graph.outgoing[node]
    ]
    return [f"to {name}: {product}" for name, product in sent if product]


def _said(state: Mark) -> list[tuple[str, str]]:
    said = []
    if state.wrong and state.worst is not None:
        said.append((f"{theme.WRONG} {state.worst.status}", theme.WRONG_INK))
    if state.state in ("none", "unreached"):
        said.append((state.words(), theme.MUTED))
    said += [(f"{theme.LOOK_HERE} {finding.code}", theme.FINDING_INK) for finding in state.findings[:1]]
    return said


def _leaf_look(shape: Shape) -> dict[str, str]:
    form, style, border, width, fill = theme.LOOKS[shape.kind]
    return {"shape": form, "style": style, "color": border, "penwidth": width, "fillcolor": fill}


def _op_look(rows: list[str], sign: str) -> dict[str, str]:
    """A circle of one size; a rounded box where the text would not fit the circle."""
    form, style, border, width, fill = theme.LOOKS["op"]
    look = {"style": "filled", "color": border, "penwidth": width, "fillcolor": fill, "fontsize": "13"}
    if len(rows) == 1 and len(sign) <= 5:
        return {"shape": "circle", "width": "0.5", "height": "0.5", "fixedsize": "true", **look}
    return {**look, "shape": form, "style": style, "height": "0.5"}


# ---------------------------------------------------------------- wires


def _by_consumer(report: Report, drawing: Drawing) -> list[Wire]:
    """Wires in the order of their operands, consumers as the forward pass met them."""
    edges = report.graph.edges
    return sorted(
        drawing.wires, key=lambda wire: (-edges[wire.edges[0]].source, edges[wire.edges[0]].source_slot)
    )


def _differ(report: Report, node: int) -> bool:
    """True if several consumers send node `node` gradients, which sum to what no wire shows alone."""
    return len(report.graph.incoming[node]) > 1 and bool(received(report, node))


def _wire(
    dot: graphviz.Digraph, report: Report, drawing: Drawing, place: int, wire: Wire, local: Locals
) -> None:
    edge = report.graph.edges[wire.edges[0]]
    record = report.edge_gradients[wire.edges[0]] if wire.edges[0] < len(report.edge_gradients) else None
    if record is None and len(report.graph.incoming[edge.target]) == 1:
        record = report.gradient(edge.target, edge.target_slot)
    label = _rule(forward(report, edge.target, edge.target_slot), record, bool(report.gradients))
    product = multiplied(report, local.get((wire.edges[0], 0)))
    told = ("upstream × local = downstream", product) if product else ("no local derivative is known",)
    ends = drawing.shapes[wire.source].key, drawing.shapes[wire.target].key
    _strung(dot, f"w{place}", *ends, label, *told)


def _root(dot: graphviz.Digraph, report: Report, place: int, node: int, slot: int) -> None:
    """The root's own box at the right end, its wire carrying the gradient backward began with."""
    name = report.root_name or "loss"
    if len(report.graph.roots) > 1:
        name = report.graph.nodes[node].label or f"{name} {place + 1}"
    key = f"root{place}"
    look = {
        "shape": "box",
        "style": "rounded,filled",
        "fillcolor": theme.ROOT_FILL,
        "color": theme.ROOT_BORDER,
    }
    dot.node(
        key,
        graphviz.nohtml(words.clean(name, 60)),
        id=key,
        **{"class": "root"},
        penwidth="1.8",
        peripheries="2",
        tooltip="root",
        **look,
    )
    begun = report.gradient(node, slot) if not report.graph.incoming[node] else None
    label = _rule(forward(report, node, slot), begun, bool(report.gradients) and begun is not None)
    _strung(dot, f"wr{place}", f"n{node}", key, label, "what backward began with")


def _strung(dot: graphviz.Digraph, key: str, tail: str, front: str, label: str, *told: str) -> None:
    dot.node(key, label, **{"class": "wire"}, shape="plain", margin="0", tooltip=plain(*told))
    dot.edge(f"{tail}:e", f"{key}:w", arrowhead="none", weight="4")
    dot.edge(f"{key}:e", front, weight="4")


def _rule(value: Number | None, record: GradientRecord | None, ran: bool) -> str:
    """The two-row table that is a wire; a row whose number is unknown stays empty."""
    upper = font(words.value(value), colour=theme.VALUE, style="b") if value is not None else "&#160;"
    if record is not None:
        number = words.value(_number(record))
        lower = font(number, colour=theme.GRADIENT, style="i" if record.finite else "bi")
    else:
        lower = font("none", colour=theme.MUTED, style="i") if ran else "&#160;"
    cells = f'<tr><td align="center">{upper}</td></tr><hr/><tr><td align="center">{lower}</td></tr>'
    return (
        '<<table border="0" cellborder="0" cellspacing="0" cellpadding="2" '
        f'color="{theme.WIRE}">{cells}</table>>'
    )


def _number(record: GradientRecord) -> Number:
    return record.values[0] if record.values else record.norm
