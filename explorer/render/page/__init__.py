"""The parts of the interactive page: its drawings, its data, and the script and style it is made of.

`explorer.render.html` puts them together. Files ending in ``.js`` and ``.css`` beside this one are the
page's own, joined in the order of `SCRIPTS`; the page fetches nothing.
"""

from __future__ import annotations

from importlib.resources import files

SCRIPTS = (
    "numbers.js",
    "data.js",
    "dom.js",
    "nest.js",
    "compose.js",
    "stage.js",
    "travel.js",
    "selection.js",
    "detail.js",
    "plots.js",
    "panel.js",
    "overview.js",
    "search.js",
    "steps.js",
    "main.js",
)
"""The page's script, a concern a file; later files use earlier ones."""


def script() -> str:
    """The page's whole script, without its comments: one function, so that nothing of it is global."""
    parts = "".join(_light(_read(name)) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{parts}\n}})();\n'


def style() -> str:
    """The page's own style sheet, without the classes that the drawings add."""
    return _read("page.css")


def _light(source: str) -> str:
    """`source` without indentation, empty lines and comments that have lines of their own."""
    lines = (line.strip() for line in source.splitlines())
    return "".join(f"{line}\n" for line in lines if line and not line.startswith(("//", "/**")))


def template() -> str:
    """The page's frame, with ``{{NAME}}`` where `explorer.render.html` puts its parts."""
    return _read("page.html")


def _read(name: str) -> str:
    """A file beside this one."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
