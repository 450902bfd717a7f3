"""The boxes and wires of one drawing in DOT: what each says, and in which look."""

from __future__ import annotations

from math import isfinite, sqrt

import graphviz

from explorer.derivatives import local_derivatives, multiplied, wire_names
from explorer.render import theme, words
from explorer.render.clusters import headroom, told
from explorer.render.drawing import Drawing, Shape, Wire, is_leaf, is_scalar
from explorer.render.marks import (
    Mark,
    Scale,
    changes,
    findings_by_node,
    hooks,
    mark,
    mark_of_nodes,
    node_rms,
    scale,
)
from explorer.render.markup import font, plain, table, text
from explorer.report import Report

LISTED = 3
"""Leaves drawn inside an operation are listed up to this many; beyond that they are counted."""
SUMMED = 4
"""Contributions to one gradient that are listed."""


MULTIPLIED = 20_000
"""Of a graph of more nodes no local derivatives are sought."""


class Pen:
    """Writes the shapes and wires of one drawing; holds what they have in common."""

    def __init__(self, report: Report, drawing: Drawing, shapes: bool) -> None:
        self.report = report
        self.drawing = drawing
        self.with_shapes = shapes
        self.spread = scale(report)
        self.findings = findings_by_node(report)
        self.roots = {node for node, _ in report.graph.roots}
        self.keys = [shape.key for shape in drawing.shapes]
        self.marks = {place: mark(report, shape, self.findings) for place, shape in enumerate(drawing.shapes)}
        # A shape may stand for a million nodes: asked once.
        self.changes = [changes(report.graph, shape) for shape in drawing.shapes]
        self.hooks = [hooks(report.graph, shape) for shape in drawing.shapes]
        self.sums = self._sums()
        self.products = _products(report)

    def occurring(self) -> tuple[str, ...]:
        """The keys of `theme.KEY` for the marks in this drawing."""
        found = set[str]()
        for place, (shape, state) in enumerate(zip(self.drawing.shapes, self.marks.values(), strict=True)):
            found |= {shape.kind, {"unreached": "none"}.get(state.state, state.state)}
            found |= {"wrong"} if state.wrong else set()
            found |= {"finding"} if state.findings else set()
            found |= {"hook"} if self.hooks[place] else set()
            found |= {"cast"} if self.changes[place] else set()
            found |= {"copies"} if shape.copies > 1 else set()
        found |= {"again"} if any(wire.again for wire in self.drawing.wires) else set()
        found |= {"sum"} if self.sums else set()
        return tuple(key for key in theme.KEY if key in found)

    def only_inside(self) -> bool:
        """Whether parameters are listed in operations, and none is drawn by itself."""
        listed = {shape.kind for shape in self.drawing.shapes if shape.inside} - {"module", "fold"}
        return bool(listed) and all(shape.kind != "parameter" for shape in self.drawing.shapes)

    def _sums(self) -> dict[int, str]:
        """Per shape that several wires bring different gradients to, what each brings."""
        brought: dict[int, list[float]] = {}
        for wire in self.drawing.wires:
            if not wire.again and (strongest := self._strongest(wire)) is not None:
                brought.setdefault(wire.source, []).append(strongest)
        said = {}
        for place, levels in brought.items():
            spelled = [words.scientific(level) for level in levels]
            if 1 < len(levels) <= SUMMED and len(set(spelled)) > 1:
                said[place] = f"{theme.SUM} {', '.join(spelled)}"
        return said

    def _strongest(self, wire: Wire) -> float | None:
        """The largest RMS among the edges of a wire; NaN where one is; None where nothing is known."""
        levels = [level for level in map(self._record, wire.edges) if level is not None]
        return next((level for level in levels if level != level), max(levels, default=None))

    # ------------------------------------------------------------ shapes

    def shape(self, dot: graphviz.Digraph, place: int, frame: str, *, key: str = "") -> None:
        """Write the box of the shape at `place`; `frame` is its module where that has no frame of its own.

        `key` names the box where the shape's own key would not do.
        """
        shape, state = self.drawing.shapes[place], self.marks[place]
        root = any(member in self.roots for member in shape.members)
        look, ink = _look(shape, state, self.spread, root)
        rows = [
            font(line, colour=ink or colour, size=size, style=style)
            for line, colour, size, style in self._rows(place, root, frame, look["fillcolor"])
        ]
        level = f"g{self.spread.level(_middle(state))}" if state.state == "flow" else state.state
        names = (
            "node",
            {"parameter": "param"}.get(shape.kind, shape.kind),
            level,
            "root" * root,
            "wrong" * state.wrong,
        )
        dot.node(
            key or shape.key,
            table(rows),
            id=key or shape.key,
            **{"class": " ".join(filter(None, names))},
            tooltip=self._tooltip(shape, state),
            **look,
        )

    def _rows(self, place: int, root: bool, frame: str, fill: str) -> list[tuple[str, str, int | None, str]]:
        """Lines of the label: (safe text, colour, size, style)."""
        small, shape, state = theme.SMALL_SIZE, self.drawing.shapes[place], self.marks[place]
        name, second = self._names(shape, root)
        times = words.times(shape.times) if not told(self.drawing, shape) else ""
        pale, faint = theme.inks_on(fill)
        rows: list[tuple[str, str, int | None, str]] = [(text(name + times), pale, None, "b")]
        rows += [(text(line, 60), faint, small, "") for line in (second, frame, shape.note) if line]
        if shape.kind == "custom":
            rows.append((theme.CUSTOM, faint, small, ""))
        spec = self.report.graph.nodes[shape.members[0]].outputs[:1]
        if (is_leaf(shape) or self.with_shapes) and spec and spec[0] is not None:
            rows.append((words.shape(spec[0].shape), faint, small, ""))
        rows += [(line, _on(fill, theme.INSIDE_INK), small, "") for line in self._inside(shape)]
        if state.words():
            rows.append((state.words(), faint, small, ""))
        if place in self.sums:
            rows.append((self.sums[place], faint, small, "i"))
        if changed := self.changes[place]:
            rows.append((text(changed, 60), _on(fill, theme.CAST_INK), small, "b"))
        if hooked := self.hooks[place]:
            said = hooked[0] if len(hooked) == 1 else words.count(len(hooked), "hook")
            rows.append((text(f"{theme.HOOK} {said}", 40), _on(fill, theme.HOOK_INK), small, "b"))
        if state.wrong and state.worst is not None:
            rows.append((f"{theme.WRONG} {state.worst.status}", _on(fill, theme.WRONG_INK), small, "b"))
        for finding in state.findings[:2]:
            said = text(f"{theme.LOOK_HERE} {finding.code}", 40)
            rows.append((said, _on(fill, theme.FINDING_INK), small, "b"))
        return rows

    def _names(self, shape: Shape, root: bool) -> tuple[str, str]:
        """The bold name and, where the shape is called after a variable, its operation."""
        node = self.report.graph.nodes[shape.members[0]]
        if node.kind == "leaf" or shape.kind in ("module", "fold"):
            return shape.label, ""
        plain_name = words.operation(node)
        name = shape.label
        if root and name == plain_name and len(self.roots) == 1 and self.report.root_name:
            name = words.clean(self.report.root_name, 60)
        return name, plain_name if name != plain_name else ""

    def _inside(self, shape: Shape) -> list[str]:
        """The leaves drawn inside an operation, with their gradients; counted where they are many."""
        if len(shape.inside) > LISTED * shape.times or shape.kind in ("module", "fold"):
            return [words.count(len(shape.inside), "parameter")] if shape.inside else []
        named: dict[str, list[int]] = {}
        for leaf in shape.inside:
            node = self.report.graph.nodes[leaf]
            named.setdefault(node.label.rpartition(".")[2] or words.label(node), []).append(leaf)
        return [
            text(f"{name}  {mark_of_nodes(self.report, tuple(leaves), self.findings).words()}", 60)
            for name, leaves in named.items()
        ]

    def _tooltip(self, shape: Shape, state: Mark) -> str:
        node = self.report.graph.nodes[shape.members[0]]
        several = words.count(len(shape.members), "node") if len(shape.members) > 1 else ""
        spec = node.outputs[0] if node.outputs else None
        lines = [
            node.name if node.kind != "leaf" else node.label,
            several,
            f"{words.shape(spec.shape)} {spec.dtype}" if spec is not None else "",
            f"gradient RMS {state.words()}" if state.state == "flow" else state.words(),
            node.module,
            f"{node.source.file}:{node.source.line}" if node.source is not None else "",
            node.source.code if node.source is not None else "",
            f"check: {state.worst.status} {state.worst.reason}" if state.worst is not None else "",
            node.note,
            *(self.products[index] for index in self._outgoing(shape) if index in self.products),
            *(f"hook: {hook}" for hook in node.hooks),
            *(f"{finding.severity}: {finding.message}" for finding in state.findings),
        ]
        return plain(*lines)

    # ------------------------------------------------------------ wires

    def wires(self, dot: graphviz.Digraph) -> None:
        """The wires, as wide as the gradient they carry."""
        rows = headroom(self.drawing)
        for place, wire in enumerate(self.drawing.wires):
            look = self.wire(wire)
            if place in rows:
                look["minlen"] = str(rows[place])
            dot.edge(self.keys[wire.source], self.keys[wire.target], **look)

    def wire(self, wire: Wire) -> dict[str, str]:
        """The look of a wire, from the gradients of its edges."""
        if wire.again:
            label = theme.NEXT + words.times(self.drawing.shapes[wire.source].times)
            return {"style": "dashed", "constraint": "false", "tooltip": label, "class": "again"}
        if not self.report.gradients:
            return {}
        strongest = self._strongest(wire)
        if strongest is None:
            return {"style": "dashed", "color": theme.NONE_BORDER, "tooltip": theme.NO_GRADIENT}
        if not isfinite(strongest):
            return {"color": theme.HAZARD_BORDER, "penwidth": "2.6", "tooltip": "gradient NaN or Inf"}
        said = f"gradient RMS {words.scientific(strongest)}"
        if strongest == 0:
            return {"style": "dotted", "tooltip": f"gradient {theme.ZERO}"}
        if len(wire.edges) == 1:
            element = self.report.elements.get(wire.edges[0])
            said = plain(said, self.products.get(wire.edges[0], ""), str(element) if element else "")
        return {"penwidth": f"{self.spread.width(strongest):.1f}", "tooltip": said}

    def _outgoing(self, shape: Shape) -> tuple[int, ...]:
        """The edges that leave a shape of one node."""
        return self.report.graph.outgoing[shape.members[0]] if len(shape.members) == 1 else ()

    def _record(self, index: int) -> float | None:
        """RMS of what edge `index` carried; the total of its end where that says the same."""
        edges = self.report.edge_gradients
        record = edges[index] if index < len(edges) else None
        if record is not None:
            return record.rms
        target = self.report.graph.edges[index].target
        alone = len(self.report.graph.incoming[target]) == 1
        return node_rms(self.report, target) if alone or not edges else None


def _products(report: Report) -> dict[int, str]:
    """ "to q: upstream × local = downstream" by edge, for graphs of single numbers of bearable size."""
    if len(report.graph.nodes) > MULTIPLIED or not is_scalar(report.graph):
        return {}
    names, edges = wire_names(report), report.graph.edges
    said = {
        index: multiplied(report, local)
        for (index, slot), local in local_derivatives(report).items()
        if slot == 0
    }
    return {
        index: words.clean(f"to {names[edges[index].target]}: {product}", 200)
        for index, product in said.items()
        if product
    }


def _on(fill: str, ink: str) -> str:
    """`ink` where it reads on `fill`, else the ink that does."""
    pale, faint = theme.inks_on(fill)
    return ink if faint == theme.FAINT else pale


def _middle(state: Mark) -> float:
    """One RMS for the colour of a mark: the geometric middle of its range."""
    low, high = state.least or 0.0, state.high or 0.0
    return sqrt(low) * sqrt(high) if low > 0 else high


def _look(shape: Shape, state: Mark, spread: Scale, root: bool) -> tuple[dict[str, str], str]:
    """The attributes of a shape's box, and the one ink for all its text ("" for the usual)."""
    form, style, border, width, fill = theme.LOOKS[shape.kind]
    look = {"shape": form, "style": style, "color": border, "penwidth": width, "fillcolor": fill}
    ink = ""
    if state.state == "flow":
        look["fillcolor"] = theme.MAGNITUDE[spread.level(_middle(state))]
    elif state.state == "zero":
        look |= {
            "style": f"{style.removesuffix(',dashed')},dotted",
            "fillcolor": theme.ZERO_FILL,
            "penwidth": "1.6",
        }
    elif state.state in ("none", "unreached") and shape.kind != "input":
        look |= {"style": f"{style},dashed", "fillcolor": theme.NONE_FILL, "color": theme.NONE_BORDER}
    if root:
        look |= {"color": theme.ROOT_BORDER, "penwidth": "1.8", "peripheries": "2"}
    if state.state == "hazard":
        look |= {"fillcolor": theme.HAZARD_FILL, "color": theme.HAZARD_BORDER, "penwidth": "3"}
        ink = theme.HAZARD_INK
    if state.wrong:
        look |= {"color": theme.WRONG_BORDER, "penwidth": "3"}
    return look, ink
