"""Lines of the user's program, as they are shown."""

from __future__ import annotations

import os
import sys
from functools import lru_cache
from linecache import getline, lazycache
from types import FrameType

from explorer.graph import Source

_started_in: list[str] = []
"""The folder in which the latest watch began, [] before any."""


def set_out() -> None:
    """Name files relative to the current folder from now on, wherever the program goes (``os.chdir``)."""
    _started_in[:] = _current()


def line_of(file: str, line: int, function: str = "") -> Source:
    """Line `line` of `file` with its text.

    A file below the folder in which the watch began is named relative to it, as people type it.
    """
    return _line(file, line, function, "".join(_started_in or _current()))


def _current() -> list[str]:
    try:
        return [os.getcwd()]
    except FileNotFoundError:  # the current folder was removed
        return []


@lru_cache(maxsize=4096)
def _line(file: str, line: int, function: str, folder: str) -> Source:
    below = os.path.join(folder, "")
    inside = bool(folder.strip(os.sep)) and file.startswith(below)
    _learn(file)
    return Source(
        os.path.normpath(file.removeprefix(below)) if inside else file,
        line,
        getline(file, line).strip(),
        function,
    )


@lru_cache(maxsize=4096)
def _learn(file: str) -> None:
    """Let linecache ask the module's loader for a source that is no file of its own: one in an archive."""
    if file.startswith("<") or os.path.exists(file):
        return
    for module in list(sys.modules.values()):
        scope = getattr(module, "__dict__", None)
        if type(scope) is dict and scope.get("__file__") == file and lazycache(file, scope):
            return


def source_of(frame: FrameType | None) -> Source | None:
    """The line `frame` stands on."""
    if frame is None:
        return None
    return line_of(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)
