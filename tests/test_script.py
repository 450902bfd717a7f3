"""explorer.script runs a file as Python would: compared with Python itself, in subprocesses and in place."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from explorer import script
from explorer.errors import UsageError

RUNNER = """
import sys
from explorer import script
sys.exit(script.run(script.load(sys.argv[1], sys.argv[2:])).code)
"""


def write(folder: Path, body: str, name: str = "user.py") -> Path:
    path = folder / name
    path.write_text(textwrap.dedent(body))
    return path


def both(path: Path, *arguments: str, stdin: str = "") -> tuple[subprocess.CompletedProcess[str], ...]:
    """The script under Python and under explorer.script: what each printed, and its exit code."""
    here = str(Path(__file__).parents[1])
    folder = path.parent / "folder of the command"
    folder.mkdir()
    own = [sys.executable, str(write(folder, RUNNER, "runner.py"))]
    commands = ([sys.executable, path.name, *arguments], [*own, path.name, *arguments])
    return tuple(
        subprocess.run(
            command, cwd=path.parent, input=stdin, capture_output=True, text=True, env={"PYTHONPATH": here}
        )
        for command in commands
    )


SCRIPTS = {
    "globals": "print(sorted((k, str(v)) for k, v in globals().items() if k[2:4] not in ('lo', 'bu')))",
    "argv": "import sys; print(sys.argv, sys.stdin.read())",
    "exit code": "import sys; sys.exit(7)",
    "exit message": "import sys; print('out'); sys.exit('a message')",
    "exit none": "raise SystemExit",
    "exception": "def f():\n    raise ValueError('mine')\nf()",
    "chained": "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise KeyError('k') from e",
    "group": "raise Exception('outer') from OSError('inner')",
    "syntax inside": "exec('x = (')",
    "own excepthook": "import sys\nsys.excepthook = lambda *a: print('my hook', a[0].__name__)\n1 / 0",
    "broken excepthook": "import sys\ndef h(*a): raise OSError('hook')\nsys.excepthook = h\n1 / 0",
    "main guard": "if __name__ == '__main__':\n    print('guarded')",
    "neighbour": "import neighbour; print(neighbour.WORD)",
    "own hooks": "import hooks; print(hooks.WORD)",
    "own explorer": "from explorer import WORD; print(WORD)",
    "own click": "import click; print(click.WORD)",
    "pickle": "import pickle\nclass A: pass\nprint(type(pickle.loads(pickle.dumps(A()))) is A)",
    "thread": "import threading, time\nthreading.Timer(0.1, lambda: print('late')).start()\nprint('first')",
    "atexit": "import atexit\natexit.register(lambda: print('bye'))\nprint('hello')",
    "future": "def f(x: undefined_name = 1): pass",
}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_behaves_as_under_python(name: str, tmp_path: Path) -> None:
    for module in ("neighbour", "hooks", "explorer", "click"):
        if name.endswith(module):
            write(tmp_path, f"WORD = 'the user wrote {module}'", f"{module}.py")
    python, ours = both(write(tmp_path, SCRIPTS[name]), "--flag", "value", stdin="typed")
    assert (ours.stdout, ours.stderr) == (python.stdout, python.stderr)
    assert ours.returncode == python.returncode


def test_our_packages_reach_a_script_that_asks_for_them(tmp_path: Path) -> None:
    path = write(tmp_path, "import explorer.graph, sys; found = sys.modules['explorer.graph']")
    outcome = script.run(script.load(str(path)))
    assert outcome.namespace["found"] is sys.modules["explorer.graph"]


def test_everything_is_put_back(tmp_path: Path) -> None:
    write(tmp_path, "WORD = 1", "hooks.py")
    path = write(tmp_path, "import hooks, sys; sys.argv = ['mine']; sys.path.append('x'); raise OSError")
    before = (
        sys.argv,
        list(sys.argv),
        sys.path,
        list(sys.path),
        sys.modules["__main__"],
        list(sys.meta_path),
    )
    ours = sys.modules["explorer.script"]
    outcome = script.run(script.load(str(path)))
    after = (sys.argv, list(sys.argv), sys.path, list(sys.path), sys.modules["__main__"], list(sys.meta_path))
    assert outcome.code == 1
    assert isinstance(outcome.error, OSError)
    assert after == before
    assert sys.modules["explorer.script"] is ours


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("missing.py", None, "there is no file"),
        ("picture.png", b"\x89PNG\r\n\0\0", "not Python source"),
        ("notes.txt", b"Dear diary, today", "not Python source"),
        ("nb.ipynb", b"{}", "is a notebook"),
        ("latin.txt", b"caf\xe9 = 1", "not Python source"),
    ],
)
def test_what_is_no_script_is_refused_before_it_runs(
    name: str, content: bytes | None, words: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=words):
        script.load(str(path))
    with pytest.raises(UsageError, match="is a folder"):
        script.load(str(tmp_path))


def test_a_syntax_error_is_pythons_own(tmp_path: Path) -> None:
    path = write(tmp_path, "x = (1")
    with pytest.raises(SyntaxError, match="was never closed"):
        script.load(str(path))


def test_interrupt_and_stop_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outcome = script.run(script.load(str(write(tmp_path, "raise KeyboardInterrupt"))))
    assert outcome.interrupted
    assert "KeyboardInterrupt" in capsys.readouterr().err
    program = script.load(str(write(tmp_path, "x = 1\nstop()\nx = 2")))
    builtins = sys.modules["builtins"]

    def stop() -> None:
        raise script.StopScript

    builtins.__dict__["stop"] = stop
    try:
        outcome = script.run(program)
    finally:
        del builtins.__dict__["stop"]
    assert outcome.stopped
    assert outcome.code == 0
    assert outcome.namespace["x"] == 1


def test_our_frames_are_cut_out_of_the_middle() -> None:
    ours = types.ModuleType("ours")
    code = compile("def door(f):\n    return f()", script.OUR_FOLDERS[0] + "door.py", "exec")
    exec(code, ours.__dict__)

    def inner() -> None:
        raise ValueError("inside")

    with pytest.raises(ValueError, match="inside") as caught:
        ours.door(inner)
    shown = []
    tb = script.without_our_frames(caught.value).__traceback__
    while tb is not None:
        shown.append(tb.tb_frame.f_code.co_name)
        tb = tb.tb_next
    assert shown == ["test_our_frames_are_cut_out_of_the_middle", "inner"]


ANOMALY = """
import torch
with torch.autograd.set_detect_anomaly(True):
    loss = (torch.zeros(2, requires_grad=True).sqrt() * 0).sum()
    loss.backward()
"""
HOOKED = """
import torch
model = torch.nn.Linear(2, 2)
model.register_full_backward_hook(lambda module, sent, came: None)
model(torch.ones(1, 2)).sum().backward()
"""


@pytest.mark.parametrize("body", [ANOMALY, HOOKED], ids=["anomaly mode", "a count of frames"])
def test_what_torch_warns_of_names_no_line_of_ours(body: str, tmp_path: Path) -> None:
    path = write(tmp_path, body)
    ours = [sys.executable, "-c", "from explorer.cli import main; main()", "-q", "user.py"]
    plain, explored = (
        subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(Path(__file__).parents[1])},
        )
        for command in ([sys.executable, path.name], ours)
    )
    assert "Warning" in plain.stderr
    assert explored.stderr == plain.stderr
    assert explored.returncode == plain.returncode
