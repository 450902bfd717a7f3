"""Level of detail: how much of a graph is drawn, so that it stays legible.

From fine to coarse: everything; leaves inside their operation and reshapes left out; repeated blocks
once; modules at a depth as one box each; passes of a loop once; operations with alike surroundings once;
a fixed number of stretches. The finest with at most `VISIBLE` shapes is drawn. Every step keeps the link
to the nodes, so that the worst finding shows wherever its node has gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from explorer.render.drawing import Drawing, everything, forward_order, is_scalar
from explorer.render.focus import focused
from explorer.render.loops import alike, by_line, parts
from explorer.render.modules import depth_of, repeats, to_depth
from explorer.render.simplify import kept, leaves_inside, leaves_per_use, without_views
from explorer.report import Report

CIRCUIT = 60
"""Scalar graphs of at most this many nodes are drawn as circuits."""
VISIBLE = 150
"""Shapes a default drawing has at most."""


def draw(
    report: Report,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    coarser: int = 0,
    visible: int = VISIBLE,
) -> Drawing:
    """The drawing of `report` at the finest level that has at most `visible` shapes.

    Args:
        depth: draw modules at this depth as one box each instead.
        full: draw every node instead.
        focus: draw only the part this names; see `explorer.render.focus.focused`.
        coarser: levels to give up beyond that.
        visible: shapes that are legible together.

    Raises:
        UsageError: `focus` names nothing.
    """
    start = everything(report.graph)
    if focus is not None:
        start = focused(start, report.graph, focus)
    if is_scalar(report.graph) and len(start.shapes) <= CIRCUIT and depth is None and not coarser:
        return replace(start, circuit=True)
    if full and not coarser:
        return leaves_per_use(start)
    if depth is not None and not coarser:
        return _at_depth(report, start, depth, visible)
    drawing = start
    for drawing in ladder(report, start):
        if len(drawing.shapes) <= visible:
            if not coarser:
                break
            coarser -= 1
    return drawing


def ladder(report: Report, start: Drawing | None = None) -> Iterator[Drawing]:
    """Drawings of `report` from the finest to the coarsest, each with fewer shapes than the one before."""
    least = None
    for drawing in _levels(report, start or everything(report.graph)):
        if least is None or len(drawing.shapes) < least:
            least = len(drawing.shapes)
            yield drawing


def _levels(report: Report, start: Drawing) -> Iterator[Drawing]:
    graph = report.graph
    yield leaves_per_use(start) if len(start.shapes) <= VISIBLE else start
    order = {node: place for place, node in enumerate(forward_order(graph))}
    light = leaves_per_use(leaves_inside(without_views(start, graph, kept(report))))
    yield light
    once = repeats(light, graph, order)
    yield once
    for depth in range(depth_of(once), 0, -1):
        yield to_depth(once, depth, order)
    looped = by_line(once, graph)
    yield looped
    yield alike(looped, graph)
    yield parts(light, graph, order)
    yield parts(light, graph, order, 12)


def _at_depth(report: Report, start: Drawing, depth: int, visible: int) -> Drawing:
    graph = report.graph
    order = {node: place for place, node in enumerate(forward_order(graph))}
    if len(start.shapes) > visible:
        start = leaves_inside(without_views(start, graph, kept(report)))
    drawing = to_depth(start, depth, order)
    if len(drawing.shapes) > visible:
        drawing = to_depth(repeats(start, graph, order), depth, order)
    return leaves_per_use(drawing)
