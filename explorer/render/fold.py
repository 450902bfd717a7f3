"""Level of detail: how much of a graph is drawn, so that it stays legible.

From fine to coarse: everything; reshapes left out; repeated blocks once; leaves inside their operation;
modules at a depth as one box each; passes of a loop once; operations with alike surroundings once; a
fixed number of stretches. The finest with at most `VISIBLE` shapes is drawn, and of those that keep whole
operations and modules the finest that is not too tall to look at. Every step keeps the link to the
nodes, so that the worst finding shows wherever its node has gone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from typing import NamedTuple

from explorer.render.clusters import headroom
from explorer.render.collection import uncollected
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
SMALL = 50
"""Graphs of at most this many nodes are drawn with their reshapes."""
TALLEST = 3000.0
"""Points (4,000 pixels) that a default drawing is high at most, as `height` estimates, unless only stretches
of the program were lower."""
BOX, LINE, FRAME, HEADING = 50.0, 11.0, 14.0, 90.0
"""Points of height: a box with its wire, a line in it, the edge of a frame, title and legend."""


class Cut(NamedTuple):
    """A level of detail: a drawing, and the depth at which its modules are one box each (None: all open)."""

    base: Drawing
    depth: int | None = None


@uncollected
def draw(
    report: Report,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    coarser: int = 0,
) -> Drawing:
    """The drawing of `report` at the finest level that is legible and not too tall.

    Args:
        depth: draw modules at this depth as one box each instead.
        full: draw every node instead.
        focus: draw only the part this names; see `explorer.render.focus.focused`.
        coarser: levels to give up beyond that.

    Raises:
        UsageError: `focus` names nothing.
    """
    levels = Levels(report)
    chosen = cut(report, depth=depth, full=full, focus=focus, coarser=coarser, levels=levels)
    drawing = levels.drawn(chosen)
    return leaves_per_use(drawing) if depth is not None else drawing


def cut(
    report: Report,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    coarser: int = 0,
    visible: int = VISIBLE,
    tallest: float = TALLEST,
    levels: Levels,
) -> Cut:
    """What `draw` draws, before modules are made one box each: where they can still be opened by themselves.

    Args:
        depth, full, focus, coarser: as `draw` has them.
        visible: shapes that are legible together.
        tallest: points that it should be high at most.
        levels: those of the whole report, which several drawings of it share.

    Raises:
        UsageError: `focus` names nothing.
    """
    if focus is not None:
        levels = Levels(report, focused(levels.start, report.graph, focus))
    start = levels.start
    if len(start.shapes) <= CIRCUIT and depth is None and not coarser and is_scalar(report.graph):
        return Cut(replace(start, circuit=True))
    if full and not coarser:
        return Cut(leaves_per_use(start))
    if depth is not None and not coarser:
        return _at_depth(levels, depth, visible)
    chosen = _finest(levels, visible, tallest)
    if not coarser:
        return chosen
    shown = len(levels.drawn(chosen).shapes)
    smaller = [drawing for drawing in ladder(report, levels) if len(drawing.shapes) < shown]
    return Cut(smaller[min(coarser, len(smaller)) - 1]) if smaller else chosen


def _finest(levels: Levels, visible: int, tallest: float) -> Cut:
    """The finest level that fits; one that is too tall before one that tells no operations apart."""
    tall = None
    for chosen in levels.whole():
        drawing = levels.drawn(chosen)
        if len(drawing.shapes) > visible:
            continue
        if height(drawing) <= tallest:
            return chosen
        tall = tall or chosen
    if tall is not None:
        looped = next(levels.stretches())  # passes of a loop, drawn once, still are whole operations
        shorter = len(looped.shapes) < len(levels.drawn(tall).shapes) and height(looped) <= tallest
        return Cut(looped) if shorter else tall
    drawing = levels.start
    for drawing in levels.stretches():
        if len(drawing.shapes) <= visible:
            break
    return Cut(drawing)


def height(drawing: Drawing) -> float:
    """About how many points high the layout will be: the tallest line of boxes from the top down."""
    waiting = [0] * len(drawing.shapes)
    after: list[list[tuple[int, int]]] = [[] for _ in drawing.shapes]
    rows = headroom(drawing)
    for number, wire in enumerate(drawing.wires):
        if not wire.again:
            waiting[wire.target] += 1
            after[wire.source].append((wire.target, rows.get(number, 1) - 1))
    tall = [0.0] * len(drawing.shapes)
    ready = [place for place, amount in enumerate(waiting) if not amount]
    while ready:
        place = ready.pop()
        shape = drawing.shapes[place]
        below = tall[place] + BOX + LINE * min(len(shape.inside), 3)
        for target, skipped in after[place]:
            frame = FRAME if drawing.shapes[target].module != shape.module else 0
            tall[target] = max(tall[target], below + frame + skipped * (BOX + 2 * LINE))
            waiting[target] -= 1
            if not waiting[target]:
                ready.append(target)
    return max(tall, default=0.0) + HEADING


def ladder(report: Report, levels: Levels | None = None) -> Iterator[Drawing]:
    """Drawings of `report` from the finest to the coarsest, each with fewer shapes than the one before."""
    levels = levels or Levels(report)
    least = None
    for drawing in chain(map(levels.drawn, levels.whole()), levels.stretches()):
        if least is None or len(drawing.shapes) < least:
            least = len(drawing.shapes)
            yield drawing


class Levels:
    """The levels of one report, each step that several share made once."""

    def __init__(self, report: Report, start: Drawing | None = None) -> None:
        self.report = report
        self.graph = report.graph
        self.start = start or everything(report.graph)

    def drawn(self, cut: Cut) -> Drawing:
        """The drawing of a level."""
        return cut.base if cut.depth is None else to_depth(cut.base, cut.depth, self.order)

    def whole(self) -> Iterator[Cut]:
        """The levels whose shapes are whole operations or modules."""
        if len(self.plain.shapes) <= VISIBLE:
            plain = self.start if len(self.start.shapes) <= SMALL else self.plain
            yield Cut(leaves_per_use(plain))
            yield Cut(repeats(leaves_per_use(plain), self.graph, self.order))
        yield Cut(self.light)
        yield Cut(self.once)
        for depth in range(depth_of(self.once), 0, -1):
            yield Cut(self.once, depth)

    def stretches(self) -> Iterator[Drawing]:
        """The levels for programs without modules: passes of a loop, alike operations, stretches."""
        looped = by_line(self.once, self.graph)
        yield looped
        yield alike(looped, self.graph)
        yield parts(self.light, self.graph, self.order)
        yield parts(self.light, self.graph, self.order, 12)

    @cached_property
    def order(self) -> dict[int, int]:
        """The place of each node in the forward pass."""
        return {node: place for place, node in enumerate(forward_order(self.graph))}

    @cached_property
    def plain(self) -> Drawing:
        """Without reshapes."""
        return without_views(self.start, self.graph, kept(self.report))

    @cached_property
    def light(self) -> Drawing:
        """Leaves inside their operation, too."""
        return leaves_per_use(leaves_inside(self.plain))

    @cached_property
    def once(self) -> Drawing:
        """Repeated blocks once, too."""
        return repeats(self.light, self.graph, self.order)


def _at_depth(levels: Levels, depth: int, visible: int) -> Cut:
    start = levels.start if len(levels.start.shapes) <= visible else levels.light
    if len(to_depth(start, depth, levels.order).shapes) <= visible:
        return Cut(start, depth)
    once = levels.once if start is levels.light else repeats(start, levels.graph, levels.order)
    return Cut(once, depth)
