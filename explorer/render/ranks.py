"""The ranks of a distributed job side by side: as text, as one page without script, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from explorer.across import Across, Row, Table
from explorer.render import words
from explorer.report import Finding

NAME = 34
"""Columns of a layer's name."""
COLUMNS = 8
"""Ranks that a table of text shows; of more, these few."""
LISTED = 40
"""Layers that a table of text shows: those that differ first."""


def text(across: Across) -> str:
    """The comparison as plain text that ends with a newline."""
    runs = across.runs
    script = words.clean(runs[0].script, 60)
    of_script = f" of {script}" if script else ""
    compared = words.count(across.calls, "backward call")
    lines = [f"{len(runs)} ranks{of_script} · {compared} compared", ""]
    for table in across.tables:
        lines += [*_table(across, table), ""]
    lines += [f"✗ {words.clean(difference, 400)}" for difference in across.differences]
    lines += [] if across.differences else [f"✓ {_agreement(across)}"]
    for finding, ranks in across.findings:
        lines += ["", *_finding(finding, _whose(across, ranks))]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _agreement(across: Across) -> str:
    """What was compared, where nothing differs."""
    compared = ["a gradient for the same layers"]
    if any(call.nodes for run in across.runs for call in run.calls.values()):
        compared.insert(0, "the same graph")
    if any(call.averaged for run in across.runs for call in run.calls.values()):
        compared.append("one .grad after each call")
    return f"the ranks agree: {', '.join(compared)}"


def page(across: Across) -> str:
    """The comparison as one page that fetches nothing and runs nothing."""
    parts = []
    for table in across.tables:
        heads = "".join(f"<th>rank {run.rank}</th>" for run in across.runs)
        rows = "".join(_html_row(row, len(across.runs)) for row in table.rows)
        losses = "".join(f"<td>{_cell(loss)}</td>" for loss in table.losses)
        parts.append(
            f"<h2>Backward call {table.call:,}</h2><table><thead><tr><th>layer</th>{heads}"
            f"{heads.replace('<th>', '<th>.grad, ')}</tr></thead><tbody>"
            f"<tr><th>loss</th>{losses}<td colspan={len(across.runs)}></td></tr>{rows}</tbody></table>"
        )
    told = "".join(f'<li class="bad">{escape(words.clean(one, 400))}</li>' for one in across.differences)
    told = told or f"<li>{escape(_agreement(across))}</li>"
    found = "".join(
        f"<li><b>{escape(finding.severity)}: {escape(finding.code)}</b>, {escape(_whose(across, ranks))}"
        f"{escape(_line(finding))}<br>{escape(words.clean(finding.message, 600))}<br>"
        f"{escape(words.clean(finding.advice, 400))}</li>"
        for finding, ranks in across.findings
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta http-equiv='
        "\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{len(across.runs)} ranks · autograd explorer</title><style>{_STYLE}</style></head><body>"
        f"<h1>{len(across.runs)} ranks, {words.count(across.calls, 'backward call')} compared</h1>"
        f"<ul>{told}</ul>{''.join(parts)}{'<h2>Findings</h2><ul>' + found + '</ul>' if found else ''}"
        "</body></html>\n"
    )


def plain(across: Across) -> dict[str, Any]:
    """The comparison as data for JSON; numbers that are not finite are strings, as in a report."""
    return {
        "version": 1,
        "ranks": [{"rank": run.rank, "file": run.path, "calls": run.total} for run in across.runs],
        "compared": across.calls,
        "calls": [
            {
                "call": table.call,
                "losses": [_number(loss) for loss in table.losses],
                "layers": [
                    {
                        "layer": row.layer,
                        "norms": [_number(value) for value in row.own],
                        "averaged": [_number(value) for value in row.averaged],
                        "differs": row.differs,
                    }
                    for row in table.rows
                ],
            }
            for table in across.tables
        ],
        "differences": list(across.differences),
        "findings": [
            {
                "code": finding.code,
                "severity": finding.severity,
                "message": finding.message,
                "advice": finding.advice,
                "where": None
                if finding.where is None
                else {"file": finding.where.file, "line": finding.where.line},
                "ranks": list(ranks),
            }
            for finding, ranks in across.findings
        ],
    }


def _table(across: Across, table: Table) -> list[str]:
    """Layers down, ranks across: the norm of each rank's own gradient, then of ``.grad`` after the call."""
    shown = across.runs[:COLUMNS]
    left = len(across.runs) - len(shown)
    rest = f" (and {words.count(left, 'rank')} more)" if left else ""
    heads = [f"rank {run.rank}" for run in shown]
    lines = [f"call {table.call:,}: gradient norm by layer{rest}"]
    lines.append(f"  {'layer':{NAME}} {''.join(f'{head:>10}' for head in heads)}   {'.grad after':>11}")
    if any(loss is not None for loss in table.losses):
        lines.append(f"  {'loss':{NAME}} {''.join(f'{_cell(loss):>10}' for loss in table.losses[:COLUMNS])}")
    rows = sorted(table.rows, key=lambda row: not row.differs)[:LISTED]
    for row in table.rows:
        if row in rows:
            cells = "".join(f"{_cell(value):>10}" for value in row.own[:COLUMNS])
            lines.append(f"{'✗' if row.differs else ' '} {_name(row.layer)} {cells}   {_agreed(row):>11}")
    if len(rows) < len(table.rows):
        lines.append(f"  ... and {words.count(len(table.rows) - len(rows), 'layer')} more")
    return lines


def _agreed(row: Row) -> str:
    """The one norm of ``.grad``, or the smallest and the largest."""
    known = [value for value in row.averaged if value is not None]
    if not known:
        return "-"
    cells = list(dict.fromkeys(map(_cell, known)))
    return cells[0] if len(cells) == 1 else f"{_cell(min(known))} to {_cell(max(known))}"


def _name(layer: str) -> str:
    cleaned = words.clean(layer, 200)
    return f"{cleaned if len(cleaned) <= NAME else '…' + cleaned[1 - NAME :]:{NAME}}"


def _cell(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _whose(across: Across, ranks: Sequence[int]) -> str:
    if len(ranks) == len(across.runs):
        return "on every rank"
    return f"on rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _finding(finding: Finding, whose: str) -> list[str]:
    lines = [f"{finding.severity}: {finding.code}, {whose}{_line(finding)}"]
    lines.append(f"    {words.clean(finding.message, 600)}")
    return [*lines, f"    → {words.clean(finding.advice, 400)}"] if finding.advice else lines


def _line(finding: Finding) -> str:
    return f" · {words.clean(finding.where.file, 80)}:{finding.where.line}" if finding.where else ""


def _html_row(row: Row, ranks: int) -> str:
    cells = "".join(f"<td>{_cell(value)}</td>" for value in (*row.own, *row.averaged))
    mark = ' class="bad"' if row.differs else ""
    return f"<tr{mark}><th>{escape(words.clean(row.layer, 200))}</th>{cells}</tr>"


def _number(value: float | None) -> float | str | None:
    if value is None or value - value == 0:
        return value
    return "nan" if value != value else "inf" if value > 0 else "-inf"


_STYLE = (
    ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:70em}"
    "table{border-collapse:collapse;font-variant-numeric:tabular-nums}"
    "td,th{padding:.2em .8em;text-align:right;border-bottom:1px solid #8884}th:first-child{text-align:left}"
    ".bad{color:#b3261e;font-weight:600}"
)
