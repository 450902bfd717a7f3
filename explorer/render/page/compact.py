"""The layout engine's SVG, rewritten small: looks as classes, coordinates to a tenth, boxes as `rect`.

The engine says fonts and colours on every element and draws rounded boxes as paths of 26 points; a page
that holds 1,500 boxes in several levels of detail cannot afford it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from html import escape
from xml.etree.ElementTree import Element, fromstring

from explorer.errors import LayoutError
from explorer.render import theme
from explorer.render.page.palette import Palette

_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}"
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")
_LOOK = ("fill", "stroke", "stroke-width", "stroke-dasharray")
_TEXT = ("font-weight", "font-style", "font-size", "fill")
_USUAL = {
    kind: {"fill": fill, "stroke": theme.WIRE.lower()}
    for kind, fill in (("path", "none"), ("polygon", theme.WIRE.lower()))
}
"""What lines and tips of wires look like where nothing else is said: the page's style sheet has it."""
_ROUNDED = 50
"""Numbers in the path of a rounded box: a start and eight curves of three points."""


Box = tuple[float, float, float, float]
"""Left, top, width, height."""


@dataclass(slots=True)
class _Bounds:
    """The least box around everything drawn."""

    xs: list[float] = field(default_factory=list)
    ys: list[float] = field(default_factory=list)

    def take(self, numbers: list[float]) -> None:
        """Grow by points given as x, y, x, y, …"""
        self.xs += (min(numbers[::2]), max(numbers[::2]))
        self.ys += (min(numbers[1::2]), max(numbers[1::2]))

    def join(self, other: _Bounds) -> None:
        """Grow by other bounds."""
        self.xs += other.xs
        self.ys += other.ys

    def box(self, margin: float = 8) -> Box:
        """x, y, width and height with a margin around."""
        left, top = min(self.xs, default=0) - margin, min(self.ys, default=0) - margin
        return left, top, max(self.xs, default=0) + margin - left, max(self.ys, default=0) + margin - top


@dataclass(frozen=True, slots=True)
class Compact:
    """A drawing for the page: the content of its `svg` element, its box, and the box of each node by name."""

    content: str
    box: Box
    places: Mapping[str, Box]


Attributes = Callable[[str, str], Mapping[str, str] | None]
"""(what, name) -> the attributes of a group, or None to leave it out.

`what` is "node", "edge" or "cluster", `name` the engine's own: "n12", "n12->n3", or the tooltip of a
cluster, which is the path of its module.
"""


def compact(svg: bytes, palette: Palette, attributes: Attributes) -> Compact:
    """Rewrite what the layout engine drew.

    Args:
        svg: the engine's output.
        palette: takes the looks and names their classes.
        attributes: what each group is to be called in the page.

    Raises:
        LayoutError: `svg` is not the engine's.
    """
    graph = fromstring(svg).find(f"{_SVG}g")
    if graph is None:
        raise LayoutError("the layout engine returned no SVG")
    bounds, places = _Bounds(), dict[str, Box]()
    written: dict[str, list[str]] = {"cluster": [], "edge": [], "node": []}
    for group in graph.iter(f"{_SVG}g"):
        what = group.get("class", "").split(" ")[0]
        if what not in written:
            continue
        name = _tooltip(group) if what == "cluster" else _title(group)
        called, own = attributes(what, name), _Bounds()
        loose = what != "node" or "wire" in group.get("class", "").split(" ")
        inner = (
            "".join(_shapes(group, palette, own, loose, what)) if called is not None or what == "node" else ""
        )
        if what == "node":
            places[name] = own.box(0)
        if called is None:
            continue
        bounds.join(own)
        said = "".join(f' {key}="{escape(value)}"' for key, value in called.items())
        written[what].append(f"<g{said}>{inner}</g>")
    return Compact("\n".join(line for lines in written.values() for line in lines), bounds.box(), places)


def _title(group: Element) -> str:
    """The engine's name of a group, without the ports of an edge's ends."""
    name = group.findtext(f"{_SVG}title") or ""
    return re.sub(r":[a-z]+(?=->|$)", "", name)


def _tooltip(group: Element) -> str:
    link = group.find(f".//{_SVG}a")
    return link.get(f"{_LINK}title", "") if link is not None else ""


def _shapes(group: Element, palette: Palette, bounds: _Bounds, loose: bool, what: str) -> Iterator[str]:
    for element in group.iter():
        kind = element.tag.removeprefix(_SVG)
        if kind == "text":
            yield _text(element, palette, bounds, loose)
        elif kind in ("path", "polygon", "polyline", "ellipse"):
            yield _shape(element, kind, palette, bounds, loose, what)


def _text(element: Element, palette: Palette, bounds: _Bounds, loose: bool) -> str:
    look = {part: element.get(part, "") for part in _TEXT if element.get(part)}
    look["font-size"] = f"{float(look.get('font-size', '11')):g}px"
    if element.get("text-anchor") == "middle":
        look["text-anchor"] = "middle"
    x, y = float(element.get("x", "0")), float(element.get("y", "0"))
    bounds.take([x, y])
    said = escape(element.text or "", quote=False)
    return f'<text class="{palette.name(look, loose=loose)}" x="{_short(x)}" y="{_short(y)}">{said}</text>'


def _shape(element: Element, kind: str, palette: Palette, bounds: _Bounds, loose: bool, what: str) -> str:
    look = {part: element.get(part, "") for part in _LOOK if element.get(part)}
    if element.get("stroke") != "none":
        look.setdefault("stroke-width", "1")
    usual = _USUAL.get(kind, {}) if what == "edge" else {}
    look = {part: said for part, said in look.items() if said != usual.get(part)}
    named = f'class="{palette.name(look, loose=loose)}"'
    if kind == "ellipse":
        cx, cy, rx, ry = (float(element.get(part, "0")) for part in ("cx", "cy", "rx", "ry"))
        bounds.take([cx - rx, cy - ry, cx + rx, cy + ry])
        return f'<ellipse {named} cx="{_short(cx)}" cy="{_short(cy)}" rx="{_short(rx)}" ry="{_short(ry)}"/>'
    drawn = element.get("d") or element.get("points") or ""
    numbers = [float(number) for number in _NUMBER.findall(drawn)]
    bounds.take(numbers)
    if kind == "path" and len(numbers) == _ROUNDED and numbers[:2] == numbers[-2:]:
        return _rounded(numbers, named)
    points = list(zip(numbers[::2], numbers[1::2], strict=True))
    if kind == "path":
        return f'<path {named} d="{_relative(points, "c")}"/>'
    if kind == "polygon" and loose and len(points) == 4:
        return f'<path class="h {named[7:]} d="{_relative(points[:-1], "l")}z"/>'
    listed = " ".join(f"{_short(x)},{_short(y)}" for x, y in points)
    return f'<{kind} {named} points="{listed}"/>'


def _relative(points: list[tuple[float, float]], step: str) -> str:
    """Path data from a start: curves ("c", all points relative to where each begins) or lines ("l").

    Steps are taken between rounded points, so that no error grows along the path.
    """
    tenths = [(round(x * 10), round(y * 10)) for x, y in points]
    (x, y), rest = tenths[0], tenths[1:]
    said = [f"m{_short(x / 10)}", _short(y / 10), step]
    stride = 3 if step == "c" else 1
    for place, (next_x, next_y) in enumerate(rest):
        said += [_short((next_x - x) / 10), _short((next_y - y) / 10)]
        if place % stride == stride - 1:
            x, y = next_x, next_y
    return _joined(said)


def _joined(said: list[str]) -> str:
    """Numbers side by side, with a space only where two would run together."""
    text = said[0]
    for word in said[1:]:
        text += word if word[0] in "-cl" or text[-1] in "cl" else f" {word}"
    return text


def _rounded(numbers: list[float], named: str) -> str:
    """A rounded box as a `rect`; the path starts at an end of a straight side, above or below."""
    left, right = min(numbers[::2]), max(numbers[::2])
    top, bottom = min(numbers[1::2]), max(numbers[1::2])
    radius = max(min(right - numbers[0], numbers[0] - left), 0)
    return (
        f'<rect {named} x="{_short(left)}" y="{_short(top)}" width="{_short(right - left)}" '
        f'height="{_short(bottom - top)}" rx="{_short(radius)}"/>'
    )


def _short(number: float) -> str:
    return f"{number:.1f}".removesuffix(".0").replace("-0.", "-.") if number else "0"
