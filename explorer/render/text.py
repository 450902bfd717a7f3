"""The report for a terminal: a folded tree of gradients, the check in one line, the findings.

Everything fits the width; without `color` there are no escape codes, and control characters of the
user's names are spelled out, so that no name can drive the terminal.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from io import StringIO
from math import isfinite, log10

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from explorer.graph import Node, Source
from explorer.render import fold, theme, words
from explorer.render.clusters import Cluster, preorder, told, tree
from explorer.render.collection import uncollected
from explorer.render.drawing import Drawing, Shape, everything, forward_order, is_scalar
from explorer.render.expression import expressions
from explorer.render.marks import Mark, Scale, findings_by_node, mark, mark_of_nodes, received, scale
from explorer.report import BAD_STATUSES, Finding, Report, Session

LINES = 40
"""Lines a tree takes by default, so that the whole report fits a screen or two."""
BAR = 8
"""Cells of the widest bar."""
LISTED = 5
"""Mismatching nodes named under the check; the rest are counted."""
_EIGHTHS = " ▏▎▍▌▋▊▉█"
_NARROWEST = 40
_BARS, _SHAPES = 50, 58
"""Columns from which on there are bars, and shapes."""
_NAMES = 56
"""Cells of the column of names at most, where none is longer: numbers far from names are hard to read."""


@uncollected
def text(found: Report | Session, *, width: int = 80, color: bool = False, full: bool = False) -> str:
    """The report, or every report of a session, as text that ends with a newline.

    Args:
        width: columns of the terminal; at least 40 are used.
        color: whether to use ANSI colours.
        full: draw every node instead of folding to some `LINES` lines.
    """
    console = Console(
        file=StringIO(),
        width=max(width, _NARROWEST),
        force_terminal=color,
        force_jupyter=False,
        color_system="standard" if color else None,
        no_color=not color,
        markup=False,
        highlight=False,
        emoji=False,
        legacy_windows=False,
    )
    reports = found.reports if isinstance(found, Session) else (found,)
    for place, report in enumerate(reports):
        if place:
            console.print()
        _report(console, report, full)
    if isinstance(found, Session) and found.calls > len(reports):
        console.print(Text(f"{found.calls:,} backward calls in all; {len(reports):,} explored", style="dim"))
    written = console.file.getvalue() if isinstance(console.file, StringIO) else ""
    return "\n".join(line.rstrip() for line in written.splitlines()) + "\n"


def _report(console: Console, report: Report, full: bool) -> None:
    _header(console, report)
    console.print()
    if len(report.graph.nodes) <= fold.CIRCUIT and is_scalar(report.graph):
        _table(console, report)
    else:
        _tree(console, report, full)
    console.print()
    _check(console, report)
    _findings(console, report)
    for problem in report.problems:
        _hanging(console, "! ", words.clean(problem, 400), "yellow")


# ---------------------------------------------------------------- header


def _header(console: Console, report: Report) -> None:
    called = f"call {report.call}" if report.call else "a backward of the explorer's own"
    place = _place(report.where)
    first = Text(words.roots(report, 40), style="bold")
    for part in (words.clean(report.script, 60), f"{called} at {place}" if place else called):
        if part:
            first.append(f" · {part}", style="not bold")
    console.print(first)
    graph = report.graph
    leaves = sum(node.role == "parameter" for node in graph.nodes)
    facts = [words.count(len(graph.nodes), "node"), words.count(len(graph.edges), "edge")]
    facts += [words.count(leaves, "parameter")] if leaves else []
    facts += [f"backward took {words.seconds(report.seconds)}"] if report.seconds is not None else []
    console.print(Text(" · ".join(facts), style="dim"))
    if report.error:
        failed = f" in {words.label(graph.nodes[report.failed])}" if report.failed is not None else ""
        _hanging(console, "✗ ", f"backward raised{failed}: {words.clean(report.error, 400)}", "bold red")


def _place(where: Source | None) -> str:
    return f"{words.clean(where.file, 80)}:{where.line}" if where is not None else ""


# ---------------------------------------------------------------- scalars


def _table(console: Console, report: Report) -> None:
    """Variable, value, gradient: leaves first, then the steps in forward order."""
    graph = report.graph
    named = expressions(report, console.width - 30)
    steps = [graph.nodes[node] for node in forward_order(graph)]
    when = {node.id: place for place, node in enumerate(steps)}

    def used(leaf: Node) -> tuple[int, int]:
        """The first operation that uses a leaf, and as which operand."""
        uses = (graph.edges[index] for index in graph.incoming[leaf.id])
        return min(((when[edge.source], edge.source_slot) for edge in uses), default=(len(when), leaf.id))

    rows = sorted((node for node in graph.nodes if node.kind == "leaf"), key=used)
    rows += [node for node in steps if node.kind != "leaf"]
    widest = max((cell_len(named[node.id]) for node in rows), default=8)
    span = min(max(widest, 8), console.width - 30)
    console.print(Text(f"  {_left('variable', span)}{'value':>12}{'gradient':>12}", style="dim"))
    findings = findings_by_node(report)
    for node in rows:
        value = (report.forward.get(node.id) or (None,))[0]
        state = mark_of_nodes(report, (node.id,), findings)
        ran = received(report, node.id)
        number = words.value(ran[0].values[0]) if ran and ran[0].values else state.words()
        line = Text("  ")
        line.append(_left(named[node.id], span), style="bold" if node.kind == "leaf" else "")
        line.append(_right(words.value(value[0]) if value else "", 12), style="green")
        line.append(_right(number, 12), style="red")
        line.append_text(_verdict(state))
        console.print(line)


# ---------------------------------------------------------------- tensors


def _tree(console: Console, report: Report, full: bool) -> None:
    drawing = everything(report.graph) if full else _folded(report)
    findings = findings_by_node(report)
    spread = scale(report)
    when = {node: place for place, node in enumerate(forward_order(report.graph))}
    states = {shape.key: mark(report, shape, findings) for shape in drawing.shapes}
    sizes = {shape.key: _sizes(report, shape) for shape in drawing.shapes}
    rows = [
        (
            "  " * (level + 1) + (content if isinstance(content, str) else _name(report, drawing, *content)),
            content,
        )
        for level, content in _lines(drawing, when)
    ]
    ranged = any(len(shape.members) > 1 for shape in drawing.shapes)
    cells = BAR if console.width >= _BARS else 0
    spoken = max(
        (cell_len(state.words()) - cells - 1 for state in states.values() if not _range(state)), default=0
    )
    digits = max(
        13 if ranged else 6, min(spoken, 14), *(cell_len(_range(state)) for state in states.values()), 0
    )
    widest = max(map(cell_len, sizes.values()), default=0)
    room = min(max(widest, 5) + 2, 14) if widest and console.width >= _SHAPES else 0
    span = min(
        console.width - room - cells - digits - 8, max(_NAMES, *(cell_len(name) + 2 for name, _ in rows), 0)
    )
    head = f"  {_left('forward order', span - 2)}{_right('shape', room) if room else ''}  gradient RMS"
    console.print(Text(head, style="dim"))
    for name, content in rows:
        if isinstance(content, str):
            console.print(Text(_left(name, span).rstrip(), style="bold"))
            continue
        shape, _ = content
        line = Text(_left(name, span), style="blue" if shape.kind == "parameter" else "")
        if room:
            line.append(_right(sizes[shape.key], room), style="dim")
        line.append_text(_gradient(states[shape.key], digits, spread, cells))
        console.print(line)
    if drawing.folded:
        console.print()
        _hanging(console, "  ", " · ".join(drawing.folded), "dim")


def _folded(report: Report) -> Drawing:
    """The finest drawing of at most `LINES` lines; the coarsest there is if none is so short."""
    drawing = everything(report.graph)
    for drawing in fold.ladder(report):
        if len(drawing.shapes) <= LINES and len(drawing.shapes) + len(preorder(tree(drawing))) - 1 <= LINES:
            break
    return drawing


def _lines(drawing: Drawing, when: dict[int, int]) -> Iterator[tuple[int, str | tuple[Shape, str]]]:
    """Module names and shapes with their indentation, in forward order, each module in one piece."""
    top = tree(drawing)
    begins: dict[int, int] = {}
    first = [min(when[member] for member in shape.members) for shape in drawing.shapes]
    for frame in reversed(preorder(top)):
        inside = [first[place] for place in frame.shapes] + [
            begins[id(inner)] for inner in frame.inner.values()
        ]
        begins[id(frame)] = min(inside, default=0)
    waiting: list[tuple[int, Cluster | tuple[Shape, str]]] = [(-1, top)]
    while waiting:
        level, content = waiting.pop()
        if not isinstance(content, Cluster):
            yield level, content
            continue
        if content is not top:
            yield level, content.name
        rows: list[tuple[int, Cluster | tuple[Shape, str]]] = [
            (first[place], (drawing.shapes[place], content.named.get(place, ""))) for place in content.shapes
        ]
        rows += [(begins[id(inner)], inner) for inner in content.inner.values()]
        waiting += [(level + 1, row) for _, row in sorted(rows, key=lambda row: row[0], reverse=True)]


def _name(report: Report, drawing: Drawing, shape: Shape, frame: str) -> str:
    """Module, name, how many alike unless a frame says so, and the parameters inside."""
    name = f"{frame}  {shape.label}" if frame else shape.label
    name += words.times(shape.times) if not told(drawing, shape) else ""
    if not shape.inside:
        return name
    if shape.kind in ("module", "fold"):
        return f"{name} ({len(shape.inside):,} params)"
    names = dict.fromkeys(report.graph.nodes[leaf].label.rpartition(".")[2] for leaf in shape.inside)
    few = ", ".join(words.clean(one, 20) for one in names)
    return f"{name} ({few if len(names) <= 3 and len(few) < 24 else f'{len(shape.inside):,} params'})"


def _sizes(report: Report, shape: Shape) -> str:
    spec = report.graph.nodes[shape.members[0]].outputs[:1]
    known = spec and spec[0] is not None and shape.kind not in ("module", "fold")
    return words.shape(spec[0].shape).replace(" ", "") if known and spec[0] is not None else ""


def _gradient(state: Mark, digits: int, spread: Scale, cells: int) -> Text:
    """The RMS or its range, a bar, the verdict."""
    line = Text("  ")
    if state.state != "flow" or state.high is None or state.low is None:
        strong = "bold yellow" if state.state == "hazard" else "dim"
        line.append(_left(state.words(), digits + cells + 1), style=strong)
    else:
        line.append(_right(_range(state), digits) + " ")
        line.append(_left(bar(state.high, spread), BAR)[:cells], style="magenta")
    line.append_text(_verdict(state))
    return line


def _range(state: Mark) -> str:
    """What flowed, from the least to the most; "" where nothing finite did."""
    if state.state != "flow" or state.high is None or state.low is None:
        return ""
    least, most = words.scientific(state.low), words.scientific(state.high)
    return most if least == most else f"{least}…{most}"


def bar(rms: float, spread: Scale) -> str:
    """A bar as long as the logarithm of `rms` lies between the least and the most of the report."""
    if rms <= 0 or not isfinite(rms) or spread.least <= 0:
        return ""
    low, high = log10(spread.least), log10(spread.most)
    share = (log10(rms) - low) / (high - low) if high > low else 0.5
    eighths = max(1, round(max(0.0, min(1.0, share)) * BAR * 8))
    return "█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()


def _verdict(state: Mark) -> Text:
    said = Text()
    if state.worst is not None:
        said.append(
            f" {theme.VERDICT_MARKS[state.worst.status]}", style=theme.VERDICT_COLOURS[state.worst.status]
        )
    elif state.findings:
        said.append("  ")
    if state.findings:
        said.append("▲", style=theme.SEVERITY_COLOURS[state.findings[0].severity])
    return said


# ---------------------------------------------------------------- check and findings


def _check(console: Console, report: Report) -> None:
    bad = [verdict for verdict in report.verdicts if verdict.status in BAD_STATUSES]
    sign, style = ("≠ ", "bold red") if bad else ("✓ ", "green") if report.check.checked else ("· ", "dim")
    _hanging(console, sign, words.check_line(report.check), style)
    reasons = Counter(verdict.reason for verdict in report.verdicts if verdict.status == "unchecked")
    for reason, count in reasons.most_common(LISTED):
        _hanging(console, "  · ", f"unchecked: {words.clean(reason, 300)} ({count:,})", "dim")
    for verdict in bad[:LISTED]:
        node = report.graph.nodes[verdict.node]
        place = f" ({_place(node.source)})" if node.source is not None else ""
        said = f"{words.label(node)} [{verdict.node}]{place}: {words.clean(verdict.reason, 300)}"
        _hanging(console, "  ≠ ", said, "red")
    if len(bad) > LISTED:
        console.print(Text(f"    and {len(bad) - LISTED:,} more", style="red"))


_ORDER = ("error", "warning", "info")
_SIGNS = {"error": "✗ ", "warning": "▲ ", "info": "· "}


def _findings(console: Console, report: Report) -> None:
    for finding in sorted(report.findings, key=lambda finding: _ORDER.index(finding.severity)):
        _finding(console, finding)
    if not report.findings and report.looked_for:
        kinds = len(report.looked_for)
        _hanging(console, "✓ ", f"no findings: nothing of the {kinds} kinds looked for", "green")


def _finding(console: Console, finding: Finding) -> None:
    where = f"  {_place(finding.where)}" if finding.where is not None else ""
    style = theme.SEVERITY_COLOURS[finding.severity]
    _hanging(console, _SIGNS[finding.severity], f"{finding.severity}: {finding.code}{where}", style)
    if finding.where is not None and finding.where.code:
        _hanging(console, "    │ ", words.clean(finding.where.code.strip(), 200), "dim")
    _hanging(console, "    ", words.clean(finding.message, 1000), "")
    if finding.advice:
        _hanging(console, "    → ", words.clean(finding.advice, 1000), "bold")


def _hanging(console: Console, sign: str, content: str, style: str) -> None:
    """`content` wrapped to the width, its later lines indented under its first."""
    inner = Text(content, style="" if sign.strip() in ("✓",) else style)
    for place, line in enumerate(inner.wrap(console, console.width - len(sign))):
        line.rstrip()
        console.print(Padding(Text.assemble((sign if not place else " " * len(sign), style), line), 0))


def _left(content: str, cells: int) -> str:
    """`content` in exactly so many terminal cells, cut with `…` where it is longer."""
    if cell_len(content) <= cells:
        return content + " " * (cells - cell_len(content))
    return set_cell_size(content, max(cells - 2, 0)) + "… "


def _right(content: str, cells: int) -> str:
    if cell_len(content) > cells:
        content = set_cell_size(content, cells - 1) + "…"
    return " " * (cells - cell_len(content)) + content
