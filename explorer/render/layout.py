"""Laying out DOT with whatever engine there is: the embedded one, a system `dot`, or the one asked for.

The engine runs in a process of its own with a timeout, for the `graphviz` package's own `pipe` has none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path

from explorer.errors import LayoutError

VARIABLE = "AUTOGRAD_EXPLORER_DOT"
TIMEOUT = 20.0
PIXELS = 40_000_000
DPI = 96.0
FORMATS = ("svg", "png", "pdf", "json", "plain")

_PDF_BY_EXTRA = """
import sys, pygraphviz
graph = pygraphviz.AGraph(string=sys.stdin.buffer.read().decode("utf-8"))
sys.stdout.buffer.write(graph.draw(prog="dot", format="pdf"))
"""


class LayoutTimeoutError(LayoutError):
    """The engine did not finish in time; a coarser drawing may."""


def layout(source: str, form: str, *, timeout: float = TIMEOUT, engine: str | None = None) -> bytes:
    """Lay out DOT `source` and return the picture.

    Args:
        source: the graph in the DOT language.
        form: one of `FORMATS`.
        timeout: seconds the engine may take.
        engine: path of the engine; None looks in ``AUTOGRAD_EXPLORER_DOT``, for the embedded
            graphviz-pure, and for `dot` on the PATH, in this order.

    Raises:
        LayoutTimeoutError: the engine ran longer than `timeout`.
        LayoutError: there is no engine, it crashed, or it cannot write `form`.
    """
    if form not in FORMATS:
        raise LayoutError(f"cannot lay out as {form!r}; the formats are {', '.join(FORMATS)}")
    if form == "pdf":
        return _pdf(source, timeout, engine)
    program = find(engine)
    if form == "png":
        svg = _run([program, "-Tsvg"], source, timeout)
        return _run([program, "-Tpng", f"-Gdpi={dpi_for(svg):.4g}", "-Gbgcolor=white"], source, timeout)
    return _run([program, f"-T{form}"], source, timeout)


def find(engine: str | None = None) -> str:
    """Path of the layout engine to use.

    Raises:
        LayoutError: none was found, or the one asked for is not there; the message says what to do.
    """
    for asked, origin in ((engine, "the engine asked for"), (os.environ.get(VARIABLE), f"${VARIABLE}")):
        if asked:
            found = shutil.which(asked)
            if found is None:
                raise LayoutError(f"{origin}, {asked!r}, is no program; give the path of a Graphviz `dot`")
            return found
    found = embedded() or system()
    if found is None:
        raise LayoutError(
            "no layout engine: install one with `pip install graphviz-pure` (or Graphviz, for `dot`), "
            f"or set {VARIABLE} to its path; the .dot, .txt and .json outputs need none"
        )
    return found


def embedded() -> str | None:
    """Path of graphviz-pure: by its package's own file list, then beside Python; no PATH is needed."""
    name = "graphviz-pure.exe" if os.name == "nt" else "graphviz-pure"
    candidates = [Path(sys.executable).parent / name, Path(sysconfig.get_path("scripts")) / name]
    try:
        files = metadata.distribution("graphviz-pure").files or []
        candidates[:0] = [Path(str(file.locate())) for file in files if file.name == name]
    except metadata.PackageNotFoundError:
        pass
    usable = (path for path in candidates if path.is_file() and os.access(path, os.X_OK))
    return next((os.path.normpath(path) for path in usable), None)


def system() -> str | None:
    """Path of a `dot` on the PATH, None without one."""
    return shutil.which("dot")


def size(svg: bytes) -> tuple[float, float]:
    """Width and height of an SVG of the engine, in points."""
    found = re.search(rb'<svg width="([\d.]+)pt" height="([\d.]+)pt"', svg)
    if found is None:
        raise LayoutError("the layout engine returned no SVG")
    return float(found[1]), float(found[2])


def dpi_for(svg: bytes, pixels: int = PIXELS) -> float:
    """The resolution at which the picture has at most `pixels` pixels, `DPI` at most."""
    width, height = size(svg)
    fitting: float = 72 * (pixels / max(width * height, 1.0)) ** 0.5 * 0.999
    return min(DPI, fitting)


def _pdf(source: str, timeout: float, engine: str | None) -> bytes:
    """PDF comes from a full Graphviz: the engine asked for, a system `dot`, or pygraphviz."""
    asked = engine or os.environ.get(VARIABLE)
    program = find(engine) if asked else system()
    if program is not None:
        return _run([program, "-Tpdf"], source, timeout)
    if find_spec("pygraphviz") is not None:
        return _run([sys.executable, "-c", _PDF_BY_EXTRA], source, timeout)
    raise LayoutError(
        "PDF needs a full Graphviz: `pip install 'autograd-explorer[pdf]'`, or Graphviz for its `dot`;"
        " .svg and .png need neither"
    )


def _run(command: list[str], source: str, timeout: float) -> bytes:
    name = Path(command[0]).name
    try:
        done = subprocess.run(command, input=source.encode("utf-8"), capture_output=True, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise LayoutTimeoutError(f"the layout engine {name} took more than {timeout:g} s") from error
    except OSError as error:
        raise LayoutError(
            f"the layout engine {command[0]} did not start: {error.strerror or error}"
        ) from error
    if done.returncode != 0 or not done.stdout:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines()
        reason = (
            f"was killed by signal {-done.returncode}"
            if done.returncode < 0
            else f"exited with {done.returncode}"
        )
        raise LayoutError(f"the layout engine {name} {reason}" + (f": {said[-1][:300]}" if said else ""))
    return done.stdout
