"""The command ``explore``: arguments, printing, exit codes; nothing else.

Everything of ours goes to stderr, so that ``explore script.py > out`` equals
``python script.py > out``. torch is imported only once the arguments are known to be good.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from explorer.errors import ExplorerError, NothingDifferentiableError, UsageError
from explorer.printing import EXIT_USAGE, print_reports, tell, tell_of_misplaced, tell_of_the_run, write
from explorer.progress import ProgressLine
from explorer.saying import say_words

if TYPE_CHECKING:
    from explorer.costs import Order
    from explorer.pipeline import Exploration
    from explorer.report import CheckMode

EXIT_STRICT, EXIT_NOTHING = 3, 4
FEW_NODES, TOLD_NODES = 150, 2000
"""Graphs of at most so many nodes have an element of each gradient worked out; the second with --explain."""


class CallNumber(click.ParamType[int | None]):
    """A backward call: a number from 1, or "all" (None)."""

    name = "N|all"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> int | None:
        text = str(value)
        if text == "all":
            return None
        if not text.isdecimal() or int(text) < 1:
            self.fail(f"{text!r} is neither a call number from 1 nor 'all'", param, ctx)
        return int(text)


class _Interrupted(SystemExit):
    """Ctrl-C ended the script: told past click, which would turn it into exit 1."""


class _Command(click.Command):
    """Ends as an interrupted Python does when the script was interrupted."""

    def main(self, *args: Any, **options: Any) -> Any:
        try:
            return super().main(*args, **options)
        except _Interrupted:
            sys.excepthook = lambda *_: None  # the script's traceback was shown already
            raise KeyboardInterrupt from None


@click.command(
    cls=_Command,
    context_settings={"allow_interspersed_args": False, "help_option_names": ["-h", "--help"]},
    epilog="Exit: the script's own code; where that is 0: 1 when an output could not be written, 2 usage "
    "(also a NAME the script does not know), 3 with --strict when something is wrong, "
    "4 nothing differentiable.",
)
@click.version_option(package_name="autograd-explorer")
@click.option(
    "-o",
    "--output",
    "outputs",
    metavar="PATH",
    multiple=True,
    help="Write the result; the suffix decides: .svg .png .pdf .dot .html .json .txt, or .jsonl for a "
    "journal of every backward() call, written as the script runs. Repeatable.",
)
@click.option(
    "--root", metavar="NAME", help="Explore this global of the script instead of a backward() call."
)
@click.option(
    "--call",
    type=CallNumber(),
    metavar="N|all",
    default=1,
    help="Which backward() call to explore. [default: 1]",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    metavar="K",
    help="For long runs: explore every K-th call, from the first on, and keep a light record of all.",
)
@click.option("--stop", is_flag=True, help="End the script after that call.")
@click.option(
    "--check",
    type=click.Choice(["sample", "full", "off"]),
    default="sample",
    show_default=True,
    help="How much of every gradient the pure-Python engine verifies.",
)
@click.option(
    "--depth",
    type=click.IntRange(min=0),
    metavar="N",
    help="Module depth to unfold in drawings (default: what stays legible).",
)
@click.option("--full", is_flag=True, help="Draw and list every node, however many.")
@click.option(
    "--focus",
    metavar="WHAT",
    help="Draw only this name, module or node with its neighbours, or the paths A..B.",
)
@click.option("--explain", is_flag=True, help="Tell the backward step by step, a line of arithmetic each.")
@click.option(
    "--paths",
    "leaf",
    metavar="NAME",
    help="List the chain-rule paths to this variable, what each brings, and their sum.",
)
@click.option(
    "--numeric",
    is_flag=True,
    help="Compare the largest gradients with central differences of the forward, which is computed again "
    "from the graph, not by the script.",
)
@click.option("--why", metavar="NAME", help="Say why this tensor's .grad is what it is, None or zero.")
@click.option(
    "--sort",
    type=click.Choice(["memory", "time", "gradient"]),
    help="List the modules by saved memory, backward time, or gradient.",
)
@click.option("--strict", is_flag=True, help="Exit 3 if a gradient mismatches or a finding is an error.")
@click.option(
    "--merge",
    is_flag=True,
    help="Compare the .json reports (or .jsonl journals) that the ranks of a distributed job wrote: "
    "explore --merge -o all.html report.rank*.json",
)
@click.option("-q", "--quiet", is_flag=True, help="No report on the terminal.")
@click.argument("script", type=click.Path())
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[ARGS]...")
def main(
    outputs: tuple[str, ...],
    root: str | None,
    call: int | None,
    every: int | None,
    stop: bool,
    check: CheckMode,
    depth: int | None,
    full: bool,
    focus: str | None,
    explain: bool,
    leaf: str | None,
    numeric: bool,
    why: str | None,
    sort: Order | None,
    strict: bool,
    merge: bool,
    quiet: bool,
    script: str,
    arguments: tuple[str, ...],
) -> None:
    """Run SCRIPT as python would, and show what happened behind its backward().

    The script's own output, exit code and gradients stay as they are; the report goes to stderr.
    """
    try:
        if merge:
            _merge(outputs, quiet, (script, *arguments))
        _check_together(call, every, root, stop)
        places, journal = _check_outputs(outputs)
        # everything is imported before the script runs: it may bring modules of the same names
        from explorer import chains, comparison, narrative, pipeline, reasons  # noqa: F401
        from explorer.render import costs, text  # noqa: F401
        from explorer.script import load

        program = load(script, arguments)
    except ExplorerError as error:
        raise _Refusal(str(error)) from None
    except SyntaxError as error:
        sys.excepthook(type(error), error.with_traceback(None), None)
        sys.exit(1)
    long = every is not None or call is None or journal is not None
    line = ProgressLine(sys.stderr) if long and not quiet and sys.stderr.isatty() else None
    exploration = pipeline.explore_script(
        program, root=root, call=call, stop=stop, check=check,
        every=every, log=journal, told=None if line is None else line.told,
        work_out=TOLD_NODES if explain else FEW_NODES, paths_to=leaf or "", numeric=numeric,
    )  # fmt: skip
    if line is not None:
        line.close()
    session = exploration.session
    printed = quiet or not session.reports or print_reports(session, full)
    told = tell(exploration, explain, leaf, why, sort)
    written = write(session, places, {"depth": depth, "full": full, "focus": focus}, exploration.rank)
    tell_of_the_run(exploration, quiet)
    if not quiet:
        tell_of_misplaced(arguments)
    code = _exit_code(exploration, max(int(not printed), told, written), strict)
    if exploration.outcome.interrupted:
        raise _Interrupted
    sys.exit(code)


def _check_together(call: int | None, every: int | None, root: str | None, stop: bool) -> None:
    """Refuse options that contradict each other."""
    if stop and call is None:
        raise UsageError("--stop ends the script after one call: give its number with --call N")
    if every is None:
        return
    named = click.get_current_context().get_parameter_source("call")
    for said, option in ((root is not None, "--root"), (stop, "--stop")):
        if said:
            raise UsageError(f"--every explores one call after another: it cannot go with {option}")
    if named is not click.core.ParameterSource.DEFAULT:
        raise UsageError("--every K and --call are two ways to say which calls are explored: give one")


def _merge(outputs: tuple[str, ...], quiet: bool, files: tuple[str, ...]) -> None:
    """Compare the files of several ranks instead of running a script."""
    from explorer.merge import main as merge

    context = click.get_current_context()
    known = {"merge", "outputs", "quiet", "script", "arguments"}
    for option in context.command.params:
        name = option.name or ""
        asked = context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT
        if asked and name not in known:
            raise UsageError(
                f"--merge compares files and runs no script: it cannot go with {option.opts[-1]}"
            )
    words = [word for path in outputs for word in ("-o", path)]
    merge.main([*words, *(["-q"] if quiet else []), *files], "explore --merge")


def _exit_code(exploration: Exploration, failed: int, strict: bool) -> int:
    """Say what is missing; the script's own code, unless it is 0 and there is more to tell.

    A name that the script does not know (--root, --paths, --why) is a usage error, found late.

    Args:
        failed: the code that printing and writing ask for, 0 where all went well.
    """
    own = exploration.outcome.code
    for problem in exploration.problems:
        say_words(f"explore: {problem}")
    if exploration.error is not None:
        say_words(f"explore: {exploration.error}")
        if own == 0:
            return EXIT_NOTHING if isinstance(exploration.error, NothingDifferentiableError) else EXIT_USAGE
    if own == 0 and failed:
        return failed
    if own == 0 and strict and any(report.wrong for report in exploration.session.reports):
        return EXIT_STRICT
    return own


def _check_outputs(outputs: tuple[str, ...]) -> tuple[dict[str, str], str | None]:
    """Refuse, before the script runs, what could not be written after it.

    Returns:
        Each output as given, and its full path: the script may change the current folder; and the full path
        of the journal, if one is asked for.
    """
    from explorer import journal, render

    journals = [path for path in outputs if path.lower().endswith(journal.SUFFIX)]
    if len(journals) > 1:
        raise UsageError(f"one journal is enough: {journals[0]!r} or {journals[1]!r}")
    for path in outputs:
        if path in journals:
            journal.check(path)
        else:
            render.check_suffix(path)
        folder = os.path.dirname(path) or "."
        if os.path.isdir(path):
            raise UsageError(f"cannot write {path!r}: it is a folder")
        if not os.path.isdir(folder):
            raise UsageError(f"cannot write {path!r}: there is no folder {folder!r}")
        target = path if os.path.exists(path) else folder
        if not os.access(target, os.W_OK):
            raise UsageError(f"cannot write {path!r}: permission denied")
    places = {path: os.path.abspath(path) for path in outputs if path not in journals}
    return places, os.path.abspath(journals[0]) if journals else None


class _Refusal(click.ClickException):
    """A usage error found after click's own parsing."""

    exit_code = EXIT_USAGE
