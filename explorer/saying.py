"""Words on stderr, which may be a pipe whose reader has gone."""

from __future__ import annotations

import os
import sys

import click


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
