"""Layouts of the modules of a drawing, each by itself: the page puts those together that are open."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import NamedTuple

import graphviz

from explorer.errors import LayoutError
from explorer.render import theme
from explorer.render.drawing import Drawing, Wire
from explorer.render.layout import layout
from explorer.render.markup import EDGE, NODE, head
from explorer.render.nest import Module, Nest, Strand
from explorer.render.page.compact import Box, Compact, compact
from explorer.render.page.palette import Palette
from explorer.render.pen import Pen
from explorer.report import Report

_HEADS = re.compile(rb"(?=<\?xml )")


class Room(NamedTuple):
    """One module laid out: what is drawn, and where its things and doors are, in its own coordinates."""

    picture: Compact
    things: dict[int, Box]
    doors: tuple[tuple[float, float], ...]


def rooms(
    report: Report, nest: Nest, palette: Palette, timeout: float
) -> tuple[tuple[Room, ...], tuple[str, ...]]:
    """A layout for each module, all made by one run of the engine; and the keys of `theme.KEY` that occur.

    Raises:
        LayoutTimeoutError: the engine took longer than `timeout` seconds.
        LayoutError: there is no engine, or it failed.
    """
    faces = Drawing(tuple(module.face for module in nest.modules[1:]), ())
    pens = Pen(report, nest.drawing, False), Pen(report, faces, False)
    sources = [_source(nest, module, *pens) for module in nest.modules]
    svg = [part for part in _HEADS.split(layout("\n".join(sources), "svg", timeout=timeout)) if part.strip()]
    if len(svg) != len(sources):
        raise LayoutError(f"the layout engine drew {len(svg)} of {len(sources)} modules")
    found = {mark for pen in pens for mark in pen.occurring()}
    made = (_room(module, part, palette) for module, part in zip(nest.modules, svg, strict=True))
    return tuple(made), tuple(mark for mark in theme.KEY if mark in found)


def _source(nest: Nest, module: Module, pen: Pen, faces: Pen) -> str:
    """DOT of what stands directly in a module; its doors are points in the first and the last row."""
    first = len(nest.drawing.shapes)
    dot = graphviz.Digraph("room")
    dot.attr("graph", **{**head("TB", "", "t"), "pad": "0"})
    dot.attr("node", **NODE)
    dot.attr("edge", **EDGE)
    for thing in module.things:
        if thing < first:
            pen.shape(dot, thing, module.named.get(thing, ""), key=_key(thing))
        else:
            faces.shape(dot, thing - first - 1, "", key=_key(thing))
    for out in (False, True):
        with dot.subgraph() as row:
            row.attr(rank="max" if out else "min")
            for place, door in enumerate(module.doors):
                if door.out is out:
                    row.node(_key(-1 - place), "", shape="point", width="0.01", height="0.01")
    for strand in module.strands:
        look = pen.wire(Wire(0, 0, strand.edges, strand.again))
        if strand.head < 0:
            look["arrowhead"] = "none"
        if (
            strand.head < 0 or strand.tail < 0
        ):  # what passes through runs straight, parameters come from the side
            look["weight"] = "3"
        dot.edge(_key(strand.tail), _key(strand.head), **look)
    return str(dot.source)


def _key(end: int) -> str:
    return f"t{end}" if end >= 0 else f"d{-1 - end}"


def _room(module: Module, svg: bytes, palette: Palette) -> Room:
    strands: dict[str, list[Strand]] = defaultdict(list)
    for strand in module.strands:
        strands[f"{_key(strand.tail)}->{_key(strand.head)}"].append(strand)

    def attributes(what: str, name: str) -> dict[str, str] | None:
        if what == "edge":
            strand = strands[name].pop(0)
            return {"class": "e", "data-e": f"{strand.tail},{strand.head}{'~' if strand.again else ''}"}
        return {"class": "n", "data-t": name[1:]} if what == "node" and name[0] == "t" else None

    picture = compact(svg, palette, attributes)
    centre = [picture.places[_key(-1 - place)] for place in range(len(module.doors))]
    return Room(
        picture,
        {thing: picture.places[_key(thing)] for thing in module.things},
        tuple((left + width / 2, top + height / 2) for left, top, width, height in centre),
    )
