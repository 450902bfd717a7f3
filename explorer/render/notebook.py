"""How a report draws itself in a notebook: a bundle that every front end finds something in."""

from __future__ import annotations

import base64
import hashlib

from explorer.errors import LayoutError
from explorer.render.json import dumps
from explorer.render.picture import picture
from explorer.render.text import text
from explorer.report import Report

TIMEOUT = 5.0
LARGEST_SVG = 2_000_000
LARGEST_PNG = 1_500_000
"""Bytes of a picture that is stored in the notebook; a larger one is left out."""
HEIGHT = 640
"""Pixels of the interactive frame."""


def bundle(report: Report, *, timeout: float = TIMEOUT, engine: str | None = None) -> dict[str, object]:
    """MIME types and their content: text/plain always, image/svg+xml and image/png where possible.

    The PNG is base64 text, as notebooks store it. Ids in the SVG begin with a prefix made from the
    report's content: they do not collide with those of another output, and the same report gives the
    same bytes. Without a layout engine the text says why there is no picture.
    """
    plain = text(report)
    made: dict[str, object] = {"text/plain": plain}
    prefix = f"ae{hashlib.sha256(dumps(report).encode()).hexdigest()[:8]}-"
    try:
        drawn = picture(report, "svg", timeout=timeout, engine=engine, prefix=prefix)
        if len(drawn) <= LARGEST_SVG:
            made["image/svg+xml"] = drawn.decode("utf-8")
        raster = picture(report, "png", timeout=timeout, engine=engine)
        if len(raster) <= LARGEST_PNG:
            made["image/png"] = base64.b64encode(raster).decode("ascii")
    except LayoutError as error:
        made["text/plain"] = f"{plain}(no picture: {error})\n"
    return made


class Interactive:
    """The interactive page of a report in a sandboxed frame, for the last line of a notebook cell."""

    def __init__(self, report: Report) -> None:
        self.report = report

    def __repr__(self) -> str:
        return text(self.report)

    def _repr_html_(self) -> str:
        from explorer.render.html import frame  # large, and needed for this alone

        return frame(self.report, height=HEIGHT)
