"""The drawing in Mermaid, for READMEs: the same folding, the colours as classes."""

from __future__ import annotations

from explorer.render import fold, theme, words
from explorer.render.marks import changes, findings_by_node, hooks, mark, scale
from explorer.report import Report

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
    """A ``flowchart`` of the report, folded as in the pictures.

    Raises:
        UsageError: `focus` names nothing.
    """
    drawing = fold.draw(report, depth=depth, full=full, focus=focus)
    findings, spread = findings_by_node(report), scale(report)
    roots = {node for node, _ in report.graph.roots}
    lines = [f"flowchart {'LR' if drawing.circuit else 'TB'}"]
    lines += [f"  %% {words.clean(fact, 200)}" for fact in drawing.folded]
    for shape in drawing.shapes:
        state = mark(report, shape, findings)
        name = shape.label + words.times(shape.times)
        rows = [name, state.words(), changes(report.graph, shape)]
        rows += [f"{theme.HOOK} {hook}" for hook in hooks(report.graph, shape)[:1]]
        rows += [finding.code for finding in state.findings[:1]]
        label = "<br/>".join(escape(row) for row in rows if row)
        opening, closing = ("[", "]") if shape.kind == "parameter" else ("([", "])")
        if any(member in roots for member in shape.members):
            opening, closing = "[[", "]]"
        kind = "hazard" if state.state == "hazard" or state.wrong else "plain"
        if kind == "plain" and state.state == "flow" and state.high is not None:
            kind = f"g{spread.level(state.high)}"
        lines.append(f'  {shape.key}{opening}"{label}"{closing}:::{kind}')
    for wire in drawing.wires:
        arrow = "-.->" if wire.again else "-->"
        lines.append(f"  {drawing.shapes[wire.source].key} {arrow} {drawing.shapes[wire.target].key}")
    for level, (fill, ink) in enumerate(zip(theme.MAGNITUDE, theme.MAGNITUDE_INK, strict=True)):
        lines.append(f"  classDef g{level} fill:{fill},color:{ink},stroke:{theme.WIRE}")
    lines.append(f"  classDef plain fill:{theme.NEUTRAL},color:{theme.INK},stroke:{theme.WIRE}")
    lines.append(
        f"  classDef hazard fill:{theme.HAZARD_FILL},color:{theme.HAZARD_INK},stroke:{theme.HAZARD_BORDER}"
    )
    return "\n".join(lines) + "\n"


def escape(content: str) -> str:
    """Text of a stranger inside a quoted Mermaid label."""
    return "".join(_CODES.get(character, character) for character in words.clean(content, 60))
