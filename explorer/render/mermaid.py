"""The drawing in Mermaid, for READMEs: the same folding, the colours as classes."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.render import fold, theme, words
from explorer.render.clusters import Cluster, told, tree
from explorer.render.drawing import Drawing, Shape
from explorer.render.marks import Mark, Scale, changes, findings_by_node, hooks, mark, scale
from explorer.report import Report

_LOOKS = {
    "plain": (theme.NEUTRAL, theme.INK, theme.WIRE, ""),
    "zero": (theme.ZERO_FILL, theme.INK, theme.WIRE, ",stroke-dasharray:2"),
    "none": (theme.NONE_FILL, theme.INK, theme.NONE_BORDER, ",stroke-dasharray:6"),
    "hazard": (theme.HAZARD_FILL, theme.HAZARD_INK, theme.HAZARD_BORDER, ""),
    "wrong": (theme.NEUTRAL, theme.WRONG_INK, theme.WRONG_BORDER, ",stroke-width:3px"),
}
"""Class -> fill, ink, border, and what else tells it: exactly zero dotted, no gradient dashed."""
_CODES = {
    '"': "#quot;",
    "<": "#lt;",
    ">": "#gt;",
    "&": "#amp;",
    "#": "#35;",
    "`": "#96;",
    "\\": "#92;",
    ";": "#59;",
}


def source(report: Report, *, depth: int | None = None, full: bool = False, focus: str | None = None) -> str:
    """A ``flowchart`` of the report, folded as in the pictures, its modules as subgraphs.

    Raises:
        UsageError: `focus` names nothing.
    """
    drawing = fold.draw(report, depth=depth, full=full, focus=focus)
    lines = [f"flowchart {'LR' if drawing.circuit else 'TB'}"]
    lines += [f"  %% {words.clean(fact, 200)}" for fact in drawing.folded]
    lines += _boxes(report, drawing)
    for wire in drawing.wires:
        arrow = "-.->" if wire.again else "-->"
        lines.append(f"  {drawing.shapes[wire.source].key} {arrow} {drawing.shapes[wire.target].key}")
    for level, (fill, ink) in enumerate(zip(theme.MAGNITUDE, theme.MAGNITUDE_INK, strict=True)):
        lines.append(f"  classDef g{level} fill:{fill},color:{ink},stroke:{theme.WIRE}")
    for name, (fill, ink, border, more) in _LOOKS.items():
        lines.append(f"  classDef {name} fill:{fill},color:{ink},stroke:{border}{more}")
    return "\n".join(lines) + "\n"


def _boxes(report: Report, drawing: Drawing) -> Iterator[str]:
    """The boxes, each in the subgraph of its module."""
    findings, spread = findings_by_node(report), scale(report)
    top = tree(drawing)
    waiting: list[Cluster | str] = [top]
    number = 0
    while waiting:
        frame = waiting.pop()
        if isinstance(frame, str):
            yield frame
            continue
        if frame is not top:
            number += 1
            yield f'  subgraph c{number}["{escape(frame.name)}"]'
            waiting.append("  end")
        for place in frame.shapes:
            shape = drawing.shapes[place]
            state = mark(report, shape, findings)
            yield _box(report, drawing, shape, state, spread, frame.named.get(place, ""))
        waiting += reversed(frame.inner.values())


def _box(report: Report, drawing: Drawing, shape: Shape, state: Mark, spread: Scale, module: str) -> str:
    name = shape.label + (words.times(shape.times) if not told(drawing, shape) else "")
    rows = [name, module, state.words(), changes(report.graph, shape)]
    rows += [f"{theme.HOOK} {hook}" for hook in hooks(report.graph, shape)[:1]]
    rows += [f"{theme.WRONG} {state.worst.status}"] if state.wrong and state.worst is not None else []
    rows += [f"{theme.LOOK_HERE} {finding.code}" for finding in state.findings[:1]]
    label = "<br/>".join(escape(row) for row in rows if row)
    opening, closing = ("[", "]") if shape.kind == "parameter" else ("([", "])")
    if not {node for node, _ in report.graph.roots}.isdisjoint(shape.members):
        opening, closing = "[[", "]]"
    kind = {"unreached": "none", "": "plain"}.get(state.state, state.state)
    if kind == "flow":
        kind = f"g{spread.level(state.high)}" if state.high is not None else "plain"
    return f'  {shape.key}{opening}"{label}"{closing}:::{"wrong" if state.wrong else kind}'


def escape(content: str) -> str:
    """Text of a stranger inside a quoted Mermaid label."""
    return "".join(_CODES.get(character, character) for character in words.clean(content, 60))
