"""Lines of the user's program, as they are shown."""

from __future__ import annotations

import os
from functools import lru_cache
from linecache import getline
from types import FrameType

from explorer.graph import Source


def line_of(file: str, line: int, function: str = "") -> Source:
    """Line `line` of `file` with its text.

    A file below the current folder is named relative to it, as people type it.
    """
    try:
        return _line(file, line, function, os.getcwd())
    except FileNotFoundError:  # the current folder was removed
        return _line(file, line, function, "")


@lru_cache(maxsize=4096)
def _line(file: str, line: int, function: str, folder: str) -> Source:
    below = os.path.join(folder, "")
    shown = os.path.normpath(file.removeprefix(below)) if folder and file.startswith(below) else file
    return Source(shown, line, getline(file, line).strip(), function)


def source_of(frame: FrameType | None) -> Source | None:
    """The line `frame` stands on."""
    if frame is None:
        return None
    return line_of(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
