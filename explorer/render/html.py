"""The interactive page: one file that fetches nothing, with the drawings, the data and the script in it."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from collections.abc import Sequence
from html import escape

from explorer.derivatives import local_derivatives
from explorer.render import page as parts
from explorer.render import theme, words
from explorer.render.page.data import Locals, document
from explorer.render.page.palette import Palette
from explorer.render.page.views import LARGE, Opened, View, views
from explorer.report import Report, Session

BUDGET = 1_700_000
"""Bytes that all drawings of a page may take together, beyond the first of each report."""
HEIGHT = 640
"""Pixels of the frame in a notebook."""

_TELL_THEME = (
    "const ink=/^rgba?\\((.*)\\)/.exec(getComputedStyle(this.parentElement).color),"
    "[r,g,b]=ink?ink[1].split(/[ ,]+/):[];"
    "if(b)this.contentWindow.postMessage({theme:r*.3+g*.6+b*.1>128?'dark':'light'},'*')"
)
"""A notebook is dark where the text in it is light."""


def page(
    session: Session | Report,
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
    limit: int = 1500,
    local: Sequence[Locals] = (),
) -> str:
    """The whole page.

    Args:
        session: what to show; of a session every report can be chosen in the page.
        depth: module depth that is open at first; None chooses what stays legible.
        full: every node is drawn at first.
        focus: only the part this names is drawn at first; see `explorer.render.focus.focused`.
        limit: boxes that one drawing may have.
        local: for each report its local derivatives, by (edge index, output slot); found by
            `explorer.derivatives.local_derivatives` where they are not given.

    Raises:
        UsageError: `focus` names nothing.
        LayoutError: no layout engine, or even the coarsest drawing took too long.
    """
    found = session if isinstance(session, Session) else Session((session,), session.script, session.torch)
    palette = Palette()
    share = BUDGET // max(len(found.reports), 1)
    opened = Opened(depth, full, focus)
    drawn = [views(report, palette, opened, limit=limit, budget=share) for report in found.reports]
    known: Sequence[Locals] = local or [
        local_derivatives(report) if len(report.graph.nodes) <= LARGE else {} for report in found.reports
    ]
    script = parts.script()
    content = {
        "TITLE": escape(_title(found)),
        "POLICY": _policy(script),
        "STYLE": f"{parts.style()}\n{_variables()}\n{palette.rules()}",
        "DRAWINGS": "\n".join(
            _drawing(view, number, place)
            for number, several in enumerate(drawn)
            for place, view in enumerate(several)
        ),
        "DATA": document(found, drawn, known),
        "SCRIPT": script,
    }
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda name: content[name[1]], parts.template())


def frame(session: Session | Report, *, height: int = HEIGHT, local: Sequence[Locals] = ()) -> str:
    """The page as a sandboxed frame for a notebook: it runs its own script and reaches nothing else.

    It cannot see whether the notebook is light or dark, so its element tells it; where that is not allowed
    to (an export that is sanitised), it follows what the reader's system prefers.

    Raises:
        LayoutError: as `page`.
    """
    inner, told = escape(page(session, local=local), quote=True), escape(_TELL_THEME, quote=True)
    return (
        f'<iframe title="autograd explorer" sandbox="allow-scripts" srcdoc="{inner}" onload="{told}" '
        f'style="width:100%;height:{height}px;border:1px solid #cbd2d9;border-radius:6px"></iframe>'
    )


def _title(session: Session) -> str:
    name = re.split(r"[/\\]", session.script)[-1]
    return f"{words.clean(name, 80)} · autograd explorer" if name else "autograd explorer"


def _policy(script: str) -> str:
    """Nothing is fetched, sent or framed; the one script is the one whose digest is given."""
    digest = b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii")
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )


def _drawing(view: View, report: int, place: int) -> str:
    """One drawing; all but a circuit shown first stand in a template, and cost nothing until shown."""
    named = f'<svg class="drawing" data-view="{report}-{place}" xmlns="http://www.w3.org/2000/svg"'
    if view.picture is None:
        inner = "\n".join(
            f'<g data-room="{number}">\n{room.picture.content}\n</g>'
            for number, room in enumerate(view.rooms)
        )
        return f"<template>{named}>\n{inner}\n</svg></template>"
    left, top, width, height = view.picture.box
    drawing = (
        f'{named} viewBox="{left:.1f} {top:.1f} {width:.1f} {height:.1f}" role="group"'
        f' aria-label="autograd graph"><g class="moved">\n{view.picture.content}\n</g></svg>'
    )
    return drawing if report == place == 0 else f"<template>{drawing}</template>"


def _variables() -> str:
    """The colours of `theme` that the page's own style sheet uses, by name, light and dark."""
    names = {
        "ink": theme.INK,
        "muted": theme.MUTED,
        "wire": theme.WIRE,
        "value": theme.VALUE,
        "gradient": theme.GRADIENT,
        "wrong": theme.WRONG_INK,
        "finding": theme.FINDING_INK,
        "hook": theme.HOOK_INK,
        "cast": theme.CAST_INK,
        "link": "#0072B2",
        "frame": theme.CLUSTER_BORDER,
        **{f"room{level}": fill for level, fill in enumerate(theme.CLUSTER_FILLS)},
    }
    light = "".join(f"--{name}:{colour};" for name, colour in names.items())
    dark = "".join(f"--{name}:{theme.DARK[colour]};" for name, colour in names.items())
    swatches = "".join(
        f".level{place}{{background:{fill};color:{ink}}}"
        for place, (fill, ink) in enumerate(zip(theme.MAGNITUDE, theme.MAGNITUDE_INK, strict=True))
    )
    return f':root{{{light}}}[data-theme="dark"]{{{dark}}}{swatches}'
