"""Pieces of DOT that every drawing shares: the head of the graph, HTML-like labels, tooltips.

Text of the user's program reaches DOT only through `text` (inside an HTML-like label) and `plain`
(a quoted string): both spell control characters and escape what DOT would read as markup.
"""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

import graphviz

from explorer.render import theme, words

NODE = {
    "fontname": theme.FONT,
    "fontsize": str(theme.SIZE),
    "fontcolor": theme.INK,
    "height": "0.3",
    "width": "0.3",
    "margin": "0.10,0.05",
}
EDGE = {
    "fontname": theme.FONT,
    "fontsize": str(theme.SMALL_SIZE),
    "fontcolor": theme.MUTED,
    "color": theme.WIRE,
    "arrowsize": "0.55",
    "arrowhead": "normal",
    "penwidth": "1",
}


def head(direction: str, label: str, place: str) -> dict[str, str]:
    """The graph's own attributes; `direction` is "TB" or "LR", `place` of the label "t" or "b"."""
    nodesep, ranksep = {"TB": ("0.22", "0.22"), "LR": ("0.28", "0.25")}[direction]
    return {
        "rankdir": direction,
        "bgcolor": "transparent",
        "pad": "0.2",
        "nodesep": nodesep,
        "ranksep": ranksep,
        "fontname": theme.FONT,
        "fontsize": str(theme.SIZE),
        "fontcolor": theme.MUTED,
        "labelloc": place,
        "searchsize": "300",
        "label": label,
    }


def text(content: str, longest: int = words.LONGEST) -> str:
    """`content` of a stranger, safe inside an HTML-like label."""
    return escape(words.clean(content, longest), quote=True)


def plain(*lines: str) -> str:
    """Lines of a stranger as one quoted DOT string, for tooltips: the engine reads entities in it."""
    joined = "&#10;".join(escape(words.clean(line, 400), quote=True) for line in lines if line)
    return str(graphviz.escape(joined))


def font(content: str, *, size: int | None = None, colour: str = "", style: str = "") -> str:
    """`content`, already safe, in a font; `style` is a string of tags such as "b" or "bi"."""
    for tag in style:
        content = f"<{tag}>{content}</{tag}>"
    attributes = (f' point-size="{size}"' if size else "") + (f' color="{colour}"' if colour else "")
    return f"<font{attributes}>{content}</font>" if attributes else content


def table(rows: Iterable[str], *, padding: int = 0) -> str:
    """A borderless HTML-like label with one cell a row."""
    cells = "".join(f"<tr><td{_room(row)}>{row}</td></tr>" for row in rows)
    return f'<<table border="0" cellborder="0" cellspacing="0" cellpadding="{padding}">{cells}</table>>'


def _room(row: str) -> str:
    """The engine sets bold and slanted small print so tightly that lines touch."""
    return ' cellpadding="1"' if "point-size" in row and ("<b>" in row or "<i>" in row) else ""


def heading(title: str, lines: Iterable[str]) -> str:
    """The title of a drawing, bold, with small lines under it; all of it already safe."""
    rows = [font(title, size=theme.TITLE_SIZE, colour=theme.INK, style="b")]
    return table([*rows, *(font(line, size=theme.SMALL_SIZE) for line in lines)], padding=1)
