"""Run a user's file as ``python script.py`` would.

The file becomes ``__main__``, with its own ``argv`` and ``sys.path[0]``; its exceptions reach its
own ``sys.excepthook`` without a frame of ours; its exit code is the one Python would give. A
``hooks.py`` or ``explorer.py`` beside the script wins over our packages of that name while it runs.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, SourceFileLoader
from pathlib import Path
from typing import Any

from explorer.errors import UsageError

OURS = ("explorer", "hooks")
HOME = Path(__file__).resolve().parent
OUR_FOLDERS = tuple(str(HOME.parent / name) + os.sep for name in OURS)


class StopScript(BaseException):
    """Ends the user's script quietly (``--stop``); never caught by ``except Exception``."""


@dataclass(frozen=True)
class Program:
    """A script that compiled: `path` as Python would show it, its code, and its arguments."""

    path: str
    name: str
    code: types.CodeType
    arguments: tuple[str, ...] = ()


@dataclass
class Outcome:
    """How a script ended: exit code, the exception that escaped it (if any), and its globals."""

    code: int = 0
    error: BaseException | None = None
    stopped: bool = False
    namespace: Mapping[str, Any] = field(default_factory=dict)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended the script."""
        return isinstance(self.error, KeyboardInterrupt)


def load(path: str, arguments: Sequence[str] = ()) -> Program:
    """Read and compile `path` without running it.

    Raises:
        UsageError: it is missing, a folder, unreadable, or no Python at all.
        SyntaxError: it is Python with a syntax error (as Python itself would raise it).
    """
    try:
        source = Path(path).read_bytes()
    except FileNotFoundError:
        raise UsageError(f"there is no file {path!r}: give the path of a Python script") from None
    except IsADirectoryError:
        raise UsageError(f"{path!r} is a folder: give the path of a Python script") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{path!r} cannot be read: {error}") from None
    if path.endswith(".ipynb"):
        raise UsageError(f"{path!r} is a notebook: call explorer.explore(loss) in a cell of it")
    if b"\0" in source:
        raise UsageError(f"{path!r} is not Python source: it contains binary data")
    full = os.path.join(os.getcwd(), path)
    try:
        code = compile(source, full, "exec", dont_inherit=True)
    except SyntaxError as error:
        if isinstance(error, UnicodeError) or not path.endswith((".py", ".pyw")):
            raise UsageError(f"{path!r} is not Python source: {error}") from None
        raise
    except ValueError as error:
        raise UsageError(f"{path!r} is not Python source: {error}") from None
    return Program(full, path, code, tuple(arguments))


def run(program: Program) -> Outcome:
    """Execute `program` as ``__main__`` and wait for the threads it started.

    Nothing it raises escapes: an exception is shown through its own ``sys.excepthook`` (Python's
    traceback, without our frames) and told in the `Outcome`. Ctrl-C is told, and left to the caller.
    """
    outcome = Outcome()
    with _as_main(program) as module:
        outcome.namespace = module.__dict__
        try:
            exec(program.code, module.__dict__)
            _join_threads()
        except StopScript:
            outcome.stopped = True
        except SystemExit as error:
            outcome.code = _exit_code(error)
        except BaseException as error:  # noqa: BLE001 - the boundary to the user's script
            outcome.code, outcome.error = 1, without_our_frames(error)
        if outcome.error is not None:
            _show(outcome.error)
        _flush()
    return outcome


def without_our_frames(error: BaseException) -> BaseException:
    """Remove our own frames from the traceback of `error` and of every exception behind it."""
    waiting: list[BaseException | None] = [error]
    seen: set[int] = set()
    while waiting:
        one = waiting.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        one.__traceback__ = _users_part(one.__traceback__)
        waiting += [one.__cause__, one.__context__]
        waiting += getattr(one, "exceptions", ())
    return error


def _users_part(tb: types.TracebackType | None) -> types.TracebackType | None:
    kept: list[types.TracebackType] = []
    while tb is not None:
        if not tb.tb_frame.f_code.co_filename.startswith(OUR_FOLDERS):
            kept.append(tb)
        tb = tb.tb_next
    result: types.TracebackType | None = None
    for part in reversed(kept):
        result = types.TracebackType(result, part.tb_frame, part.tb_lasti, part.tb_lineno)
    return result


def _show(error: BaseException) -> None:
    """Print `error` as the interpreter would: stdout first, then the script's own excepthook."""
    _flush()
    try:
        sys.excepthook(type(error), error, error.__traceback__)
    except BaseException as second:  # noqa: BLE001 - Python, too, survives a broken excepthook
        print("Error in sys.excepthook:", file=sys.stderr)  # noqa: T201 - Python's own words
        sys.__excepthook__(type(second), without_our_frames(second), second.__traceback__)
        print("\nOriginal exception was:", file=sys.stderr)  # noqa: T201 - Python's own words
        sys.__excepthook__(type(error), error, error.__traceback__)


def _exit_code(error: SystemExit) -> int:
    """The exit status Python gives for ``sys.exit(error.code)``; a message goes to stderr."""
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    _flush()
    print(error.code, file=sys.stderr)  # noqa: T201 - what Python prints for sys.exit("message")
    return 1


def _join_threads() -> None:
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        flush: Callable[[], None] | None = getattr(stream, "flush", None)
        if flush is not None:
            try:
                flush()
            except (OSError, ValueError):  # a closed pipe or file: Python would only mutter at exit
                continue


@contextmanager
def _as_main(program: Program) -> Iterator[types.ModuleType]:
    """Install `program` as ``__main__`` with its argv and path; put everything back afterwards.

    ``sys.argv`` and ``sys.path`` keep their identity (modules may hold them) and get their content back.
    """
    module = types.ModuleType("__main__")
    loader = SourceFileLoader("__main__", program.path)
    module.__dict__.update(
        __file__=program.path,
        __builtins__=sys.modules["builtins"],
        __loader__=loader,
        __annotations__={},
        __cached__=None,
    )
    argv, path, main = sys.argv, sys.path, sys.modules["__main__"]
    own_argv, own_path = list(argv), list(path)
    folder = Path(program.path).resolve().parent
    with _set_aside(_shadowed(folder)):
        try:
            sys.modules["__main__"] = module
            sys.argv[:] = [program.name, *program.arguments]
            if not getattr(sys.flags, "safe_path", False):
                sys.path[:1] = [str(folder)]
            yield module
        finally:
            sys.modules["__main__"] = main
            sys.argv, sys.path = argv, path
            argv[:], path[:] = own_argv, own_path


class _Again(Loader):
    """Hands out a module that was imported before the script ran."""

    def __init__(self, module: types.ModuleType) -> None:
        self.module = module
        self.spec, self.loader = module.__spec__, module.__loader__

    def create_module(self, spec: ModuleSpec) -> types.ModuleType:
        return self.module

    def exec_module(self, module: types.ModuleType) -> None:
        """Undo what the import machinery wrote over the module's own spec and loader."""
        module.__spec__, module.__loader__ = self.spec, self.loader


class _OursOnRequest(MetaPathFinder):
    """Gives the script the packages set aside if the ordinary search leads to those very files."""

    def __init__(self, aside: dict[str, types.ModuleType]) -> None:
        self.aside = aside

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: types.ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not None or fullname not in self.aside:
            return None
        found = self._ordinary(fullname)
        ours = self.aside[fullname]
        if found is None or found.origin is None or ours.__file__ is None:
            return None
        if os.path.realpath(found.origin) != os.path.realpath(ours.__file__):
            return None
        for name, module in list(self.aside.items()):
            if name.startswith(fullname + "."):
                sys.modules.setdefault(name, module)
        spec = importlib.util.spec_from_loader(fullname, _Again(ours), is_package=hasattr(ours, "__path__"))
        if spec is not None and hasattr(ours, "__path__"):
            spec.submodule_search_locations = list(ours.__path__)
        return spec

    def _ordinary(self, fullname: str) -> ModuleSpec | None:
        """What the other finders, in their order, would import under this name."""
        for finder in sys.meta_path:
            if finder is not self:
                found = finder.find_spec(fullname, None)
                if found is not None:
                    return found
        return None


def _shadowed(folder: Path) -> frozenset[str]:
    """Our packages, and those of our dependencies that a file or folder beside the script shadows.

    The standard library stays: Python, too, has much of it loaded before a script begins.
    """
    try:
        beside = {entry.name.partition(".")[0] for entry in os.scandir(folder)}
    except OSError:
        beside = set()
    loaded = {name.partition(".")[0] for name in sys.modules}
    return frozenset(OURS) | ((beside & loaded) - sys.stdlib_module_names - {"torch", "__main__"})


@contextmanager
def _set_aside(names: frozenset[str]) -> Iterator[None]:
    """Take the packages `names` out of ``sys.modules`` while the script runs.

    A script's own ``hooks.py`` or ``click.py`` is then found first; where the search would lead to
    ours, the very modules already imported are handed out, so that nothing exists twice.
    """
    aside = {name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] in names}
    finder = _OursOnRequest(aside)
    for name in aside:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if name.partition(".")[0] in names]:
            top = name.partition(".")[0]
            if sys.modules.get(top) is not aside.get(top):
                del sys.modules[name]
        sys.modules.update(aside)
