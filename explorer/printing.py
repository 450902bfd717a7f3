"""What the command prints and writes once the script has run.

Whatever fails here is told on stderr, and keeps nothing else from being printed or written.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from explorer.errors import ExplorerError, UsageError
from explorer.saying import say, say_words, width

if TYPE_CHECKING:
    from explorer.costs import Order
    from explorer.pipeline import Exploration
    from explorer.ranks import Rank
    from explorer.report import Session

EXIT_FAILED, EXIT_USAGE = 1, 2
PRINTED = 8
"""Reports that are printed whole; of more, the first, the last and a few with findings."""


def print_reports(session: Session, full: bool) -> bool:
    """Print the report; whether that could be done."""
    from explorer import render

    color = sys.stderr.isatty() and "NO_COLOR" not in os.environ
    some = session if full else _some(session)
    try:
        shown = render.text.text(some, width=width(), color=color, full=full)
        say(shown, color)
        if len(some.reports) < len(session.reports):
            rest = f"{len(some.reports)} of {len(session.reports):,} reports printed"
            say_words(f"explore: {rest}, of {session.calls:,} backward calls")
    except Exception as error:  # noqa: BLE001 - the outputs are still to be written
        say_words(f"explore: the report could not be printed: {_spelled(error)}")
        return False
    return True


def _some(session: Session) -> Session:
    """The reports that are printed: all where there are few."""
    reports = session.reports
    if len(reports) <= PRINTED:
        return session
    telling = [place for place, report in enumerate(reports) if report.findings or report.wrong]
    places = sorted({0, len(reports) - 1, *telling[: PRINTED - 2]})
    return replace(session, reports=tuple(reports[place] for place in places), calls=len(places))


def tell(
    exploration: Exploration, explain: bool, leaf: str | None, why: str | None, sort: Order | None
) -> int:
    """Print what was asked for beside the report; return the exit code this asks for.

    That is 2 where the script knows no such name, as for ``--root``, and 1 for any other failure.
    """
    from explorer import chains, narrative, reasons
    from explorer.comparison import told
    from explorer.costs import costs
    from explorer.render.costs import table

    columns = width()
    try:
        for report in exploration.session.reports:
            if explain:
                say(narrative.explain(report, columns))
            if sort is not None:
                say(table(costs(report, sort), columns))
            if leaf is not None:
                say(chains.paths(report, chains.target_of(report, leaf)).text)
            if report.quotients is not None:
                _say_compared(told(report.quotients))
            if why is not None:
                say_words(str(reasons.why_named(report, why, exploration.outcome.namespace)))
    except Exception as error:  # noqa: BLE001 - the outputs are still to be written
        say_words(f"explore: {_spelled(error)}")
        return EXIT_USAGE if isinstance(error, UsageError) else EXIT_FAILED
    return 0


def _say_compared(text: str) -> None:
    """The table of `explorer.comparison` as it is, and its sentences as wide as the terminal."""
    for line in text.split("\n"):
        (say_words if line.startswith(("(", "no numeric")) else say)(line)


def write(session: Session, outputs: dict[str, str], view: dict[str, Any], rank: Rank | None) -> int:
    """Write every output; return the exit code this asks for, 1 where one could not be written.

    One that fails is told and does not keep the others from being written.
    """
    from explorer import render
    from explorer.ranks import named

    code = 0
    for path, full in outputs.items() if session.reports else ():
        try:
            for written in render.save(session, named(full, rank), **view):
                shown = os.path.join(os.path.dirname(path), os.path.basename(written))
                say(f"explore: wrote {shown}")
        except Exception as error:  # noqa: BLE001 - the other outputs are still to be written
            say_words(f"explore: could not write {path}: {_spelled(error)}")
            code = EXIT_FAILED
    return code


def tell_of_the_run(exploration: Exploration, quiet: bool) -> None:
    """One line on all calls of a long run, and one on the reports that were let go."""
    light, session = exploration.light, exploration.session
    if quiet or light is None:
        return
    try:
        said = light.summary()
    except Exception as error:  # noqa: BLE001 - the report is written, and the exit code still to come
        said = f"the run could not be told in a line: {_spelled(error)}"
    if said:
        say_words(f"explore: {said}")
    if exploration.explored > len(session.reports):
        say_words(
            f"explore: {exploration.explored:,} calls were explored; {len(session.reports):,} reports, "
            "spread over the run, were kept",
        )


def tell_of_misplaced(arguments: tuple[str, ...]) -> None:
    """What looks like our ``-o PATH`` but went to the script, which wrote no such file: where it belongs."""
    from explorer import render

    for option, path in pairwise(arguments):
        known = os.path.splitext(path)[1].lower() in render.SUFFIXES
        if option in ("-o", "--output") and known and not os.path.exists(path):
            say_words(
                f"explore: {option} {path} stood after the script and went to it; ours stand before it",
            )


def _spelled(error: Exception) -> str:
    """What the explorer refuses in its own words, anything else with its type."""
    return str(error) if isinstance(error, (ExplorerError, OSError)) else f"{type(error).__name__}: {error}"
