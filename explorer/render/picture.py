"""Pictures of a report: folded, written as DOT, laid out, finished; coarser where time runs out."""

from __future__ import annotations

from explorer.render import circuit, dot, fold, svg, words
from explorer.render.layout import TIMEOUT, LayoutTimeoutError, layout
from explorer.report import Report

STEPS = 3
"""Levels of detail given up, one at a time, before a timeout is final."""


def picture(
    report: Report,
    form: str,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    timeout: float = TIMEOUT,
    engine: str | None = None,
    prefix: str = "",
) -> bytes:
    """The picture of `report` as "svg", "png" or "pdf".

    When the layout takes longer than `timeout` seconds, it is drawn one level coarser, and the
    drawing says so.

    Raises:
        LayoutError: no engine, a crash, or even the coarsest drawing took too long.
    """
    note = ""
    for coarser in range(STEPS + 1):
        source = dot.source(
            report, depth=depth, full=full and not coarser, focus=focus, coarser=coarser, note=note
        )
        try:
            made = layout(source, form, timeout=timeout, engine=engine)
        except LayoutTimeoutError:
            if coarser == STEPS:
                raise
            note = f"drawn more coarsely than asked: the layout took more than {timeout:g} s"
            continue
        if form != "svg":
            return made
        title = f"autograd graph of {words.roots(report)}"
        return svg.finish(made, title=title, description=describe(report), prefix=prefix).encode("utf-8")
    raise AssertionError("the last step returned or raised")


def describe(report: Report) -> str:
    """The drawing in a sentence or two, for those who cannot see it."""
    graph = report.graph
    leaves = sum(1 for _ in graph.leaves())
    said = [f"{words.count(len(graph.nodes), 'node')}, {words.count(leaves, 'leaf')} among them"]
    if len(graph.nodes) <= fold.CIRCUIT:
        said.append(circuit.title(report))
    said.append(words.check_line(report.check))
    said += [f"{finding.severity}: {finding.message}" for finding in report.findings[:5]]
    return ". ".join(said) + "."
