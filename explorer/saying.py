"""Words on stderr, which may be a pipe whose reader has gone."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap

import click

NARROWEST = 40
"""Columns that are used at least."""


def say(text: str, color: bool | None = None) -> None:
    """Print a line on stderr; once its reader has gone (``2>&1 | head``), nothing is said any more.

    What else there is to do, files to write and an exit code to give, goes on. As Python's manual advises
    (library/signal, "Note on SIGPIPE"), the descriptor then leads nowhere, so that no later flush fails.
    """
    try:
        click.echo(text, err=True, color=color)
    except BrokenPipeError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stderr.fileno())
        os.close(nowhere)


def say_words(text: str) -> None:
    """The same for sentences, which are wrapped to the width of the terminal.

    Where stderr is none they stay on a line each, so that a search in a log finds them.
    """
    if sys.stderr.isatty():
        text = "\n".join(map(_wrapped, text.splitlines()))
    say(text)


def width() -> int:
    """Columns of the terminal that stderr is, 80 where it is none."""
    return max(shutil.get_terminal_size((80, 24)).columns, NARROWEST) if sys.stderr.isatty() else 80


def _wrapped(line: str) -> str:
    """One line as several; what it begins with, spaces included, stays, and a path is not cut."""
    return "\n".join(
        textwrap.wrap(
            line, width(), subsequent_indent="  ", drop_whitespace=True,
            break_long_words=False, break_on_hyphens=False,
        )
        if len(line) > width()
        else [line]
    )  # fmt: skip
