"""The cell magic ``%%explore``: a cell runs as it is, and its backward is drawn under it.

    %load_ext explorer

    %%explore
    loss = model(images).square().mean()
    loss.backward()

IPython is imported only by `register`, which IPython calls.
"""

from __future__ import annotations

import shlex
from time import monotonic
from typing import Any

import click

from explorer.comparison import told
from explorer.errors import ExplorerError
from explorer.render import check_suffix, save
from explorer.watching import Watch
from explorer.witness import FEW_NODES

SHOWN = 3
"""Reports drawn under one cell."""
PATIENCE = 1.0
"""Seconds a backward may take before progress is shown, and between two updates."""


@click.command("%%explore", add_help_option=False)
@click.option("-o", "--output", "outputs", multiple=True)
@click.option("--call", default="1")
@click.option("--check", type=click.Choice(["sample", "full", "off"]), default="sample")
@click.option("--page", is_flag=True)
@click.option("--explain", is_flag=True)
@click.option("--numeric", is_flag=True)
def _options(**given: Any) -> dict[str, Any]:
    return given


def register(shell: Any) -> None:
    """Give an IPython shell the magic ``%%explore``."""
    from IPython.display import display  # IPython is there, for it has called us

    def explore(line: str, cell: str) -> None:
        """Run the cell and draw its backward.

        [--call N|all] [--check sample|full|off] [--page] [--explain] [--numeric] [-o PATH]
        """
        try:
            run(shell, line, cell, display)
        except (ExplorerError, click.ClickException) as error:
            said = error.format_message() if isinstance(error, click.ClickException) else str(error)
            print(f"%%explore: {said}")  # noqa: T201 - the magic is a command, and this is its terminal

    shell.register_magic_function(explore, magic_kind="cell", magic_name="explore")


def run(shell: Any, line: str, cell: str, display: Any) -> None:
    """Run `cell` in `shell` under a watch and show with `display` what came of it.

    Raises:
        ClickException: an unknown option.
        UsageError: a file that cannot be written.
        ExplorerError: the cell called no backward.
    """
    options = _parsed(line)
    for path in options["outputs"]:
        check_suffix(path)
    bar = Bar(display)
    with Watch(
        check=options["check"],
        call=options["call"],
        progress=bar.told,
        work_out=FEW_NODES,
        numeric=options["numeric"],
    ) as watch:
        result = shell.run_cell(cell)
    bar.close()
    reports = watch.reports
    for report in reports[-SHOWN:]:
        display(report.show() if options["page"] else report)
        if options["explain"]:
            display({"text/plain": report.explain()}, raw=True)
        if options["numeric"]:
            display({"text/plain": told(report.quotients)}, raw=True)
    if reports:
        for path in options["outputs"]:
            save(watch.session(scripted=False), path)
    elif getattr(result, "success", True):
        times = "once" if watch.calls == 1 else f"{watch.calls} times"
        raise ExplorerError(
            f"the cell called backward() {times}, not {options['call']}"
            if watch.calls
            else "the cell called no backward()"
        )


def _parsed(line: str) -> dict[str, Any]:
    """The options of a magic line; `call` is None for all."""
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise click.UsageError(f"cannot read {line!r}: {error}") from error
    options: dict[str, Any] = _options.main(words, standalone_mode=False)
    call = options["call"]
    if call != "all" and not (call.isdecimal() and int(call) > 0):
        raise click.UsageError(f"--call takes a number from 1, or all, not {call!r}")
    return {**options, "call": None if call == "all" else int(call)}


class Bar:
    """How far a backward is, in one line that is written anew; nothing for a fast one."""

    def __init__(self, display: Any) -> None:
        self._display = display
        self._handle: Any = None
        self._next = 0.0

    def told(self, done: int, of: int) -> None:
        """`done` of `of` nodes have run."""
        now = monotonic()
        if done == 1:
            self._next = now + PATIENCE
        if now < self._next:
            return
        self._next = now + PATIENCE
        self._show(f"explore: {done:,} of {of:,} nodes")

    def close(self) -> None:
        """The backward is over."""
        if self._handle is not None:
            self._show("explore: done")

    def _show(self, said: str) -> None:
        content = {"text/plain": said}
        if self._handle is None:
            self._handle = self._display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)
