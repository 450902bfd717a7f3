"""The lines of the user's program around each source line a report names."""

from __future__ import annotations

import linecache
import os
from collections.abc import Iterable

from explorer.graph import Source
from explorer.render import words

AROUND = 3
"""Lines shown before and after."""
LARGEST = 5_000_000
"""Bytes of a program that is read."""
LONGEST = 300
"""Characters of a line."""


def excerpts(sources: Iterable[Source]) -> dict[str, dict[int, str]]:
    """File -> line number -> text, for the lines around every source.

    A file is read only where its line still says what the report recorded: a report may come from
    another machine, or the file may have changed, and then only the recorded line is given.
    """
    found: dict[str, dict[int, str]] = {}
    for source in dict.fromkeys(sources):
        lines = found.setdefault(source.file, {})
        if not source.code.strip():
            continue
        whole = _lines(source.file)
        if 0 < source.line <= len(whole) and whole[source.line - 1].strip() == source.code.strip():
            first = max(source.line - AROUND, 1)
            for number in range(first, min(source.line + AROUND, len(whole)) + 1):
                lines[number] = _shown(whole[number - 1])
        else:
            lines[source.line] = _shown(source.code)
    return {file: lines for file, lines in found.items() if lines}


def _lines(file: str) -> list[str]:
    """The lines of a program of usual size or of a notebook's cell, none of anything else."""
    if file in linecache.cache:
        return linecache.getlines(file)
    try:
        usual = os.path.isfile(file) and os.path.getsize(file) <= LARGEST
    except (OSError, ValueError):  # a name that no file can have
        usual = False
    return linecache.getlines(file) if usual else []


def _shown(line: str) -> str:
    return words.clean(line.rstrip().expandtabs(4), LONGEST)
