"""Level of detail: how much of a graph is drawn, so that it stays legible."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.render.drawing import Drawing, everything, is_scalar
from explorer.report import Report

CIRCUIT = 60
VISIBLE = 150


def draw(
    report: Report,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    coarser: int = 0,
) -> Drawing:
    """The drawing of `report` at the finest level that stays legible."""
    graph = report.graph
    drawing = everything(graph)
    if is_scalar(graph) and len(graph.nodes) <= CIRCUIT:
        return Drawing(drawing.shapes, drawing.wires, circuit=True)
    return drawing


def ladder(report: Report) -> Iterator[Drawing]:
    """Drawings of `report` from the finest to the coarsest."""
    yield everything(report.graph)
