"""Renderings of a report: terminal text, pictures, DOT, JSON, pages. Pure functions, no torch.

The suffix of a path decides what `save` writes.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from explorer.errors import UsageError
from explorer.render import dot, graphml, json, mermaid, modelexplorer, picture, text
from explorer.report import Report, Session

__all__ = ["SUFFIXES", "check_suffix", "save"]


@dataclass(frozen=True, slots=True)
class View:
    """What of a graph is drawn: modules down to `depth`, everything (`full`), or around `focus`."""

    depth: int | None = None
    full: bool = False
    focus: str | None = None


def _page(session: Session, view: View) -> bytes:
    from explorer.render.html import page  # large, and needed for this suffix alone

    return page(session, depth=view.depth, full=view.full, focus=view.focus).encode("utf-8")


def _picture(form: str) -> Draw:
    return lambda report, view: picture.picture(
        report, form, depth=view.depth, full=view.full, focus=view.focus
    )


def _dot(report: Report, view: View) -> bytes:
    return dot.source(report, depth=view.depth, full=view.full, focus=view.focus).encode("utf-8")


def _mermaid(report: Report, view: View) -> bytes:
    return mermaid.source(report, depth=view.depth, full=view.full, focus=view.focus).encode("utf-8")


MODEL_EXPLORER = ".modelexplorer.json"
NODE_DATA = ".nodedata.json"
"""Ends the name of the file beside a graph for Model Explorer that holds the gradients to colour it by."""
Draw = Callable[[Report, View], bytes]
Write = Callable[[Session, View], bytes]
_ONE_EACH: Mapping[str, Draw] = {
    ".svg": _picture("svg"),
    ".png": _picture("png"),
    ".pdf": _picture("pdf"),
    ".dot": _dot,
    ".gv": _dot,
    ".mmd": _mermaid,
    ".graphml": lambda report, _: graphml.source(report).encode("utf-8"),
}
_ALL_IN_ONE: Mapping[str, Write] = {
    ".html": _page,
    ".json": lambda session, _: json.dumps(session).encode("utf-8"),
    MODEL_EXPLORER: lambda session, _: modelexplorer.collection(session).encode("utf-8"),
    ".txt": lambda session, view: text.text(session, width=100, full=view.full).encode("utf-8"),
}
SUFFIXES = (
    ".svg",
    ".png",
    ".pdf",
    ".dot",
    ".html",
    ".json",
    ".txt",
    ".gv",
    ".mmd",
    ".graphml",
    MODEL_EXPLORER,
)


def check_suffix(path: str | os.PathLike[str]) -> str:
    """The suffix of `path`, in lower case, if something can be written for it.

    Raises:
        UsageError: nothing can; the message lists what there is.
    """
    suffix = Path(path).suffix.lower()
    if Path(path).name.lower().endswith(MODEL_EXPLORER):
        suffix = MODEL_EXPLORER
    if suffix not in SUFFIXES:
        what = (
            f"{os.fspath(path)!r} has the unknown suffix {suffix!r}"
            if suffix
            else f"{os.fspath(path)!r} has no suffix"
        )
        raise UsageError(f"{what}; write one of {' '.join(SUFFIXES)}")
    return suffix


def save(
    found: Session | Report,
    path: str | os.PathLike[str],
    *,
    depth: int | None = None,
    full: bool = False,
    focus: str | None = None,
) -> tuple[Path, ...]:
    """Write `found` to `path`, in the format its suffix names; a file is replaced whole or not at all.

    A page, JSON, text and the graphs for Model Explorer hold all reports of a session; of drawings there
    is one a report, with ``-2``, ``-3``, … before the suffix from the second on. Returns the paths written.

    Args:
        depth: the module depth to unfold in drawings; chosen for legibility by default.
        full: draw every node.
        focus: draw only the part this names; see `explorer.render.focus.focused`.

    Raises:
        UsageError: an unknown suffix, nothing to draw, or a path that cannot be written.
        LayoutError: the picture could not be laid out.
    """
    suffix = check_suffix(path)
    view = View(depth, full, focus)
    session = (
        found if isinstance(found, Session) else Session((found,), found.script, found.torch, found.call)
    )
    first = Path(path)
    if suffix in _ALL_IN_ONE:
        contents = {first: _ALL_IN_ONE[suffix](session, view)}
        if suffix == MODEL_EXPLORER:
            beside = first.with_name(first.name[: -len(MODEL_EXPLORER)] + NODE_DATA)
            contents[beside] = modelexplorer.node_data(session).encode("utf-8")
    else:
        paths = [
            first if not place else first.with_name(f"{first.stem}-{place + 1}{first.suffix}")
            for place in range(len(session.reports))
        ]
        contents = {
            one: _ONE_EACH[suffix](report, view) for one, report in zip(paths, session.reports, strict=True)
        }
    if not contents:
        raise UsageError(f"nothing to draw in {os.fspath(path)!r}: no backward call was explored")
    for one, content in contents.items():
        _write(one, content)
    return tuple(contents)


def _write(path: Path, content: bytes) -> None:
    """Write beside the file, then put it in its place; a device or pipe is written to directly."""
    target = Path(os.path.realpath(path))
    beside = target.with_name(f".{target.name[-100:]}.{os.getpid()}.part")
    try:
        if target.exists() and not target.is_file():
            target.write_bytes(content)
            return
        try:
            beside.write_bytes(content)
            os.replace(beside, target)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        raise UsageError(f"cannot write {os.fspath(path)!r}: {error.strerror or error}") from error
