"""The graph in the DOT language, in the look of `theme`; the same report gives the same bytes."""

from __future__ import annotations

import graphviz

from explorer.render import circuit, fold, theme, words
from explorer.render.clusters import Cluster, preorder, tree
from explorer.render.collection import uncollected
from explorer.render.drawing import Drawing, is_leaf
from explorer.render.legend import legend, lines, subtitle
from explorer.render.markup import EDGE, NODE, font, head, heading, plain, table, text
from explorer.render.pen import Pen
from explorer.report import Report


def source(
    report: Report,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    coarser: int = 0,
    shapes: bool = False,
    saved: bool = False,
    note: str = "",
) -> str:
    """DOT source of `report`.

    Args:
        depth: module depth to unfold; None chooses the deepest that stays legible.
        full: draw every node, however many.
        focus: a name, module or node id to draw the neighbourhood of, or two joined by "..".
        coarser: how many levels of detail to give up (after a timeout).
        shapes: print the shape on every operation, not only on leaves.
        saved: hang the saved tensors off their operations.
        note: a sentence to add to the title, such as why the drawing is coarser.

    Returns:
        The source. Node ids are ``n{ID}``; classes are "node", the kind, and "g0" to "g6".
    """
    drawing = fold.draw(report, depth=depth, full=full, focus=focus, coarser=coarser)
    return of_drawing(report, drawing, shapes=shapes, saved=saved, note=note)


@uncollected
def of_drawing(
    report: Report, drawing: Drawing, *, shapes: bool = False, saved: bool = False, note: str = ""
) -> str:
    """DOT source of a drawing that is already folded."""
    if drawing.circuit:
        return circuit.source(report, drawing, note=note)
    dot = graphviz.Digraph("autograd")
    pen = Pen(report, drawing, shapes)
    dot.attr(
        "graph",
        **head("TB", legend(pen.spread, pen.occurring(), inside=pen.only_inside()), "b"),
        compound="true",
    )
    dot.attr("node", **NODE)
    dot.attr("edge", **EDGE)
    with dot.subgraph(name="cluster_title") as page:
        facts = (subtitle(report, drawing), *lines(drawing.folded, 90), note)
        label = heading(text(words.roots(report), 130), [text(fact, 200) for fact in facts if fact])
        page.attr("graph", id="title", label=label, labelloc="t", peripheries="0", margin="6")
        _clusters(page, pen)
    pen.wires(dot)
    if saved:
        _saved(dot, report, drawing)
    return str(dot.source)


def _clusters(dot: graphviz.Digraph, pen: Pen) -> None:
    """The shapes, each in the frame of its module, and the frames in one another."""
    top = tree(pen.drawing)
    frames = preorder(top)
    level = {id(top): -1}
    for frame in frames:
        level |= {id(inner): level[id(frame)] + 1 for inner in frame.inner.values()}
    drawn: dict[int, graphviz.Digraph] = {id(top): dot}
    for number, frame in enumerate(frames[1:], 1):
        drawn[id(frame)] = _frame(frame, number, level[id(frame)])
    for frame in reversed(frames):
        for place in frame.shapes:
            pen.shape(drawn[id(frame)], place, frame.named.get(place, ""))
        for inner in frame.inner.values():
            drawn[id(frame)].subgraph(drawn[id(inner)])


def _frame(frame: Cluster, number: int, level: int) -> graphviz.Digraph:
    """An empty cluster in the look of its nesting level."""
    dot = graphviz.Digraph(f"cluster_{number}")
    fill = theme.CLUSTER_FILLS[min(level, len(theme.CLUSTER_FILLS) - 1)]
    name = font(f"<b>{text(frame.name, 60)}</b>", size=10)
    dot.attr(
        "graph",
        id=f"c{number}",
        **{"class": "module"},
        label=f"<{name}>",
        labeljust="l",
        peripheries="1",
        labelloc="t",
        style="rounded,filled",
        fillcolor=fill,
        color=theme.CLUSTER_BORDER,
        penwidth="1",
        margin="8",
        tooltip=plain(".".join(frame.path)),
    )
    return dot


def _saved(dot: graphviz.Digraph, report: Report, drawing: Drawing) -> None:
    """The tensors each operation keeps for its backward, beside it on a dashed wire."""
    form, style, border, width, fill = theme.LOOKS["saved"]
    for shape in drawing.shapes:
        node = report.graph.nodes[shape.members[0]]
        if shape.kind in ("module", "fold") or is_leaf(shape):
            continue
        for item in node.saved:
            if item.spec is None:
                continue
            key = f"s{node.id}_{item.name}"
            size = f"{words.shape(item.spec.shape)}  {item.spec.dtype}"
            rows = [font(text(f"saved: {item.name}", 40), style="b")]
            rows += [
                font(line, size=theme.SMALL_SIZE, colour=theme.FAINT)
                for line in (size, text(item.problem, 60) or words.memory(item.bytes))
            ]
            dot.node(
                words.clean(key),
                table(rows),
                id=words.clean(key),
                **{"class": "node saved"},
                shape=form,
                style=style,
                color=border,
                penwidth=width,
                fillcolor=fill,
            )
            dot.edge(
                shape.key,
                words.clean(key),
                style="dashed",
                arrowhead="none",
                color=border,
                constraint="false",
            )
