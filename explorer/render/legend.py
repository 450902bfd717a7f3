"""What stands around a drawing: how much is drawn, and what its colours and marks mean."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from explorer.render import theme, words
from explorer.render.drawing import Drawing
from explorer.render.marks import Scale
from explorer.render.markup import font
from explorer.report import Report


def subtitle(report: Report, drawing: Drawing) -> str:
    """How much is drawn, and the check in a few words."""
    nodes, shown = len(report.graph.nodes), len(drawing.shapes)
    amount = words.count(nodes, "node") if shown == nodes else f"{shown:,} of {nodes:,} nodes drawn"
    errors = sum(finding.severity == "error" for finding in report.findings)
    said = f"{theme.LOOK_HERE} {words.count(errors, 'error')} found" if errors else ""
    return " · ".join(filter(None, (amount, words.check_words(report), said)))


def legend(spread: Scale, marks: Sequence[str], *, inside: bool = False) -> str:
    """The swatches with their absolute numbers, and under them what the marks that occur mean.

    `inside`: parameters are drawn inside the operations that use them.
    """
    rows = []
    if spread.centre is not None:
        swatches = "".join(_swatch(level, spread.centre) for level in range(7))
        words_ = font(f"{theme.LEGEND}&#160;&#160;", colour=theme.MUTED, size=theme.SMALL_SIZE)
        rows.append(f"<tr><td>{words_}</td>{swatches}</tr>")
    bold, rest = theme.INSIDE_KEY if inside else theme.PARAMETER_KEY
    key = font(f"<b>{bold}</b>", colour="#0072B2", size=theme.SMALL_SIZE)
    entries = [rest, *(theme.KEY[mark] for mark in theme.KEY if mark in marks)]
    for line, said in enumerate(lines(entries, 105)):
        own = (key if not line else "") + font(said, colour=theme.MUTED, size=theme.SMALL_SIZE)
        room = "" if line else ' height="18"'
        rows.append(f'<tr><td colspan="8"{room}>{own}</td></tr>')
    table_ = '<table border="0" cellborder="0" cellspacing="0" cellpadding="3">'
    return f"<{table_}{''.join(rows)}</table>>"


def lines(facts: Iterable[str], longest: int) -> list[str]:
    """Facts joined by dots, a few to a line."""
    lines: list[str] = []
    for fact in facts:
        if lines and len(lines[-1]) + len(fact) < longest:
            lines[-1] += f" · {fact}"
        else:
            lines.append(fact)
    return lines


def _swatch(level: int, centre: float) -> str:
    number = words.scientific(centre * 10.0 ** (level - theme.CENTRE))
    sign = {0: "≤ ", 6: "≥ "}.get(level, "")
    label = font(f"{sign}{number}", size=8, colour=theme.MAGNITUDE_INK[level])
    return f'<td bgcolor="{theme.MAGNITUDE[level]}" width="52">{label}</td>'
