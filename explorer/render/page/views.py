"""The levels of detail a page holds: which drawings of a report, laid out, and what each box stands for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from html import unescape
from math import inf
from typing import NamedTuple

from explorer.errors import LayoutError
from explorer.render import dot, fold, words
from explorer.render.drawing import Drawing
from explorer.render.layout import LayoutTimeoutError, layout
from explorer.render.nest import Nest, nested
from explorer.render.page.compact import Compact, compact
from explorer.render.page.palette import Palette
from explorer.render.page.rooms import Room, rooms
from explorer.render.simplify import leaves_per_use
from explorer.report import Report

TIMEOUT = 20.0
"""Seconds the layout of the first view may take; the others get a third of it."""
LARGE = 10_000
"""Nodes beyond which a page holds the overview and the modules alone, and details of what they show."""
STEPS = 3
"""Levels of detail given up, one at a time, before a timeout of the first view is final."""

_TITLE = re.compile(r"<title>([^<]*)</title>")


@dataclass(frozen=True, slots=True)
class View:
    """One level of detail: its name, the drawing it was made from, the SVG, and a note to show.

    A circuit has one `picture`. Any other drawing is a `nest` with a room for each module, which the page
    puts together; `opened` are the modules that are open at first. `marks` are the keys of `theme.KEY` that
    occur.
    """

    label: str
    drawing: Drawing
    picture: Compact | None = None
    note: str = ""
    nest: Nest | None = None
    rooms: tuple[Room, ...] = ()
    opened: frozenset[int] = frozenset()
    marks: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of the pictures."""
        pictures = [room.picture for room in self.rooms] + ([self.picture] if self.picture else [])
        return sum(len(picture.content.encode("utf-8")) for picture in pictures)

    @property
    def shown(self) -> int:
        """Boxes in sight at first."""
        return len(self.drawing.shapes) if self.nest is None else self.nest.shown(self.opened)


class Opened(NamedTuple):
    """What is drawn first: modules down to `depth`, every node (`full`), or what `focus` names."""

    depth: int | None = None
    full: bool = False
    focus: str | None = None

    @property
    def label(self) -> str:
        """What to call a drawing of it that leaves nodes out."""
        if self.focus is not None:
            return f"focus: {words.clean(self.focus, 40)}"
        return "overview" if self.depth is None else f"modules, depth {self.depth}"


def views(
    report: Report,
    palette: Palette,
    opened: Opened | None = None,
    *,
    limit: int = 1500,
    budget: int = 1_800_000,
) -> tuple[View, ...]:
    """The default view first, then the others from the coarsest to the finest.

    Args:
        report: what is drawn.
        palette: takes the looks of all drawings of the page.
        opened: the first view; None chooses.
        limit: boxes a view may have.
        budget: bytes that the views beyond the first may take together.

    Raises:
        UsageError: `opened.focus` names nothing.
        LayoutError: the first view could not be laid out.
    """
    opened, levels = opened or Opened(), fold.Levels(report)
    first = _first(report, palette, opened, levels)
    found = [first]
    if len(first.drawing.shapes) >= len(report.graph.nodes):  # the others are coarser, and so must be small
        budget = min(budget, first.size)
    spent = 0
    seen = {_identity(first.drawing)}
    for label, cut in _others(report, first.drawing, limit, opened, levels):
        if _identity(cut.base) in seen or not 0 < len(cut.base.shapes) <= limit:
            continue
        seen.add(_identity(cut.base))
        try:
            view = _view(report, cut, palette, label, TIMEOUT / 3, levels)
        except LayoutError:
            continue  # the page has the first view; one that cannot be laid out is only not offered
        if spent + view.size <= budget:
            found.append(view)
            spent += view.size
    return (first, *sorted(found[1:], key=lambda view: len(view.drawing.shapes)))


def _first(report: Report, palette: Palette, opened: Opened, levels: fold.Levels) -> View:
    note = ""
    for coarser in range(STEPS + 1):
        cut = fold.cut(report, **opened._asdict(), coarser=coarser, levels=levels)
        whole = len(levels.drawn(cut).shapes) >= len(report.graph.nodes)
        label = "every node" if whole else opened.label
        try:
            return _view(report, cut, palette, label, TIMEOUT, levels, note)
        except LayoutTimeoutError:
            if coarser == STEPS:
                raise
            note = f"drawn more coarsely than asked: the layout took more than {TIMEOUT:g} s"
    raise AssertionError("the last step returned or raised")


def _others(
    report: Report, first: Drawing, limit: int, opened: Opened, levels: fold.Levels
) -> Iterator[tuple[str, fold.Cut]]:
    """Candidates, the most useful ones first: everything, then every module for itself."""
    if opened != Opened():
        overview = fold.cut(report, levels=levels)
        every = len(overview.base.shapes) >= len(report.graph.nodes)
        yield "every node" if every else "overview", overview
    if first.circuit:
        return
    nodes = len(report.graph.nodes)
    if nodes <= limit:
        yield "every node", fold.cut(report, full=True, levels=levels)
    elif nodes <= LARGE:
        yield "finest", fold.cut(report, visible=limit, tallest=inf, levels=levels)
    if fold.SMALL < nodes <= LARGE:
        yield "parameters inside", fold.Cut(levels.light)


def _identity(drawing: Drawing) -> object:
    return tuple((shape.key, shape.members, shape.times) for shape in drawing.shapes)


def _view(
    report: Report,
    cut: fold.Cut,
    palette: Palette,
    label: str,
    timeout: float,
    levels: fold.Levels,
    note: str = "",
) -> View:
    if cut.base.circuit:
        svg = layout(dot.of_drawing(report, cut.base), "svg", timeout=timeout)
        return View(label, cut.base, compact(svg, palette, _Groups(cut.base, svg).attributes), note)
    drawing = leaves_per_use(cut.base)
    nest = nested(drawing, levels.order)
    made, marks = rooms(report, nest, palette, timeout)
    return View(label, drawing, None, note, nest, made, nest.down_to(cut.depth), marks)


class _Groups:
    """Says what each group of the engine's drawing is: the box it shows, or the wire it is part of.

    A wire of a circuit is three groups, an edge to a box that holds its numbers, the box, and an edge
    from it; all three get the place of the wire.
    """

    def __init__(self, drawing: Drawing, svg: bytes) -> None:
        self._boxes = {shape.key: place for place, shape in enumerate(drawing.shapes)}
        self._between: dict[tuple[str, str], list[int]] = defaultdict(list)
        for place, wire in enumerate(drawing.wires):
            ends = drawing.shapes[wire.source].key, drawing.shapes[wire.target].key
            self._between[ends].append(place)
        self._strung = self._strings(svg)

    def attributes(self, what: str, name: str) -> dict[str, str] | None:
        """The attributes of one group; see `explorer.render.page.compact.Attributes`."""
        if what == "edge":
            tail, _, front = name.partition("->")
            place = self._strung.get(front, self._strung.get(tail))
            if place is None and self._between.get((tail, front)):
                place = self._between[tail, front].pop(0)
            return {"class": "e"} if place is None else {"class": "e", "data-w": str(place)}
        if name in self._boxes:
            return {"class": "n", "data-s": str(self._boxes[name])}
        if name in self._strung:
            return {"class": "r", "data-w": str(self._strung[name])}
        return {"class": "root"}

    def _strings(self, svg: bytes) -> dict[str, int]:
        """Wire box -> place of its wire, from the two edges that end and begin at it."""
        tails, fronts = {}, {}
        for title in _TITLE.findall(svg.decode("utf-8")):
            tail, arrow, front = unescape(title).partition("->")
            if arrow:
                tail, front = tail.split(":")[0], front.split(":")[0]
                tails[front], fronts[tail] = tail, front
        found = {}
        for key in sorted((key for key in tails if key not in self._boxes), key=lambda key: (len(key), key)):
            places = self._between.get((tails[key], fronts.get(key, "")))
            if places:
                found[key] = places.pop(0)
        return found
