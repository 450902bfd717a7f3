"""How a report draws itself in a notebook: a bundle that every front end finds something in."""

from __future__ import annotations

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


def bundle(report: Report, *, timeout: float = TIMEOUT, engine: str | None = None) -> dict[str, str | bytes]:
    """MIME types and their content: text/plain always, image/svg+xml and image/png where possible.

    Ids in the SVG begin with a prefix made from the report's content: they do not collide with those
    of another output, and the same report gives the same bytes.
    """
    plain = text(report)
    made: dict[str, str | bytes] = {"text/plain": plain}
    prefix = f"ae{hashlib.sha256(dumps(report).encode()).hexdigest()[:8]}-"
    try:
        drawn = picture(report, "svg", timeout=timeout, engine=engine, prefix=prefix)
        if len(drawn) <= LARGEST_SVG:
            made["image/svg+xml"] = drawn.decode("utf-8")
        raster = picture(report, "png", timeout=timeout, engine=engine)
        if len(raster) <= LARGEST_PNG:
            made["image/png"] = raster
    except LayoutError as error:
        made["text/plain"] = f"{plain}(no picture: {error})\n"
    return made
