"""The command ``explore --merge``: the files that the ranks of a distributed job wrote, compared."""

from __future__ import annotations

import json
import os
from pathlib import Path

import click

from explorer import across, journal
from explorer.errors import ExplorerError, UsageError
from explorer.render import ranks
from explorer.render.reading import loads

SUFFIXES = (".txt", ".json", ".html")


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option("-o", "--output", "outputs", metavar="PATH", multiple=True, help="Write it: .txt .json .html.")
@click.option("-q", "--quiet", is_flag=True, help="Nothing on the terminal.")
@click.argument("files", nargs=-1, required=True, type=click.Path())
def main(outputs: tuple[str, ...], quiet: bool, files: tuple[str, ...]) -> None:
    """Compare what the ranks of a distributed job wrote: .json reports, or .jsonl journals."""
    try:
        for path in outputs:
            if Path(path).suffix.lower() not in SUFFIXES:
                raise UsageError(f"{path!r}: a comparison is written as one of {' '.join(SUFFIXES)}")
        found = across.compare(read(path, place) for place, path in enumerate(files))
        if not quiet:
            click.echo(ranks.text(found), nl=False)
        for path in outputs:
            _write(path, _content(found, Path(path).suffix.lower()))
            click.echo(f"explore: wrote {path}", err=True)
    except ExplorerError as error:
        raise _Refusal(str(error)) from None


def read(path: str, place: int) -> across.RankRun:
    """What one rank wrote.

    Args:
        place: its number where neither the file nor its content says.

    Raises:
        UsageError: it cannot be read, or is neither a report nor a journal.
    """
    if path.lower().endswith(journal.SUFFIX):
        return across.of_journal(journal.read(path)[-1], path, place)
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {path!r}: {error}") from None
    try:
        return across.of_session(loads(text), path, place)
    except UsageError as error:
        raise UsageError(f"{path!r}: {error}") from None


def _content(found: across.Across, suffix: str) -> str:
    if suffix == ".json":
        return json.dumps(ranks.plain(found), allow_nan=False, indent=1) + "\n"
    return ranks.page(found) if suffix == ".html" else ranks.text(found)


def _write(path: str, content: str) -> None:
    """Write beside the file, then put it in its place."""
    beside = f"{path}.{os.getpid()}.part"
    try:
        Path(beside).write_text(content, encoding="utf-8")
        os.replace(beside, path)
    except OSError as error:
        raise UsageError(f"cannot write {path!r}: {error.strerror or error}") from None
    finally:
        Path(beside).unlink(missing_ok=True)


class _Refusal(click.ClickException):
    """Bad arguments or files, told as any usage error."""

    exit_code = 2
