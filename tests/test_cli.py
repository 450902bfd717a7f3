"""The command line's contract: exit codes, streams, options, and bad input that loses nothing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from explorer.cli import main
from explorer.saying import say_words
from tests.conftest import Explore

COMMAND = [str(Path(sys.executable).with_name("explore"))]
TWO_CALLS = """
import torch
w = torch.tensor([1.0, 2.0], requires_grad=True)
for factor in (3.0, 5.0):
    loss = (w * factor).sum()
    loss.backward()
print("w.grad", w.grad.tolist())
"""


def reports(path: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads(path.read_text())["reports"]
    return found


def test_the_report_goes_to_stderr_and_the_scripts_words_to_stdout(explore: Explore) -> None:
    code, out, err = explore(TWO_CALLS)
    assert (code, out) == (0, "w.grad [8.0, 8.0]\n")
    assert "call 1 at user.py:6" in err
    assert "match" in err
    assert explore(TWO_CALLS, "--quiet")[1:] == (out, "")


def test_every_output_is_written(explore: Explore, tmp_path: Path) -> None:
    names = ["a.svg", "a.png", "a.pdf", "a.dot", "a.html", "a.json", "a.txt"]
    code, _, err = explore(TWO_CALLS, "-q", *(word for name in names for word in ("-o", name)))
    assert code == 0
    begins = [b"<svg", b"\x89PNG", b"%PDF", b"digraph", b"<!doctype html>", b'{"version":1', b"loss"]
    for name, begin in zip(names, begins, strict=True):
        assert f"wrote {name}" in err
        assert (tmp_path / name).read_bytes().lower().startswith(begin.lower()), name


def test_an_output_named_after_the_script_is_told(explore: Explore, tmp_path: Path) -> None:
    """It belongs to the script, as with python; but a script that did not write it hardly wanted it."""
    said = "-o late.svg stood after the script"
    assert said in explore(TWO_CALLS, arguments=("-o", "late.svg"))[2]
    assert said not in explore(TWO_CALLS, arguments=("-o", "late.words"))[2]
    assert not (tmp_path / "late.svg").exists()
    writes = TWO_CALLS + "\nimport sys; open(sys.argv[2], 'w').close()\n"
    assert said not in explore(writes, arguments=("-o", "late.svg"))[2]


def test_a_reader_that_goes_away_loses_only_the_words(tmp_path: Path) -> None:
    """``explore ... 2>&1 | head``: the files are written, and the exit code is the script's."""
    (tmp_path / "user.py").write_text(TWO_CALLS + "raise SystemExit(5)\n")
    command = [*COMMAND, "--explain", "-o", "a.svg", "-o", "a.json", "user.py"]
    with subprocess.Popen(
        command, cwd=tmp_path, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as process:
        assert process.stderr is not None
        process.stderr.close()
        assert process.wait(120) == 5
    assert (tmp_path / "a.svg").exists()
    assert len(reports(tmp_path / "a.json")) == 1


def test_a_call_is_chosen(explore: Explore, tmp_path: Path) -> None:
    explore(TWO_CALLS, "--call", "2", "-o", "second.json")
    (second,) = reports(tmp_path / "second.json")
    assert second["call"] == 2
    explore(TWO_CALLS, "--call", "all", "-o", "all.json")
    assert [report["call"] for report in reports(tmp_path / "all.json")] == [1, 2]


def test_a_call_that_never_came(explore: Explore) -> None:
    code, out, err = explore(TWO_CALLS, "--call", "5")
    assert (code, out) == (2, "w.grad [8.0, 8.0]\n")
    assert "--call 5 does not exist: the script called backward() 2 times" in err


def test_stop_ends_the_script_after_the_call(explore: Explore) -> None:
    code, out, err = explore(TWO_CALLS, "--stop")
    assert (code, out) == (0, "")
    assert "call 1" in err
    assert explore(TWO_CALLS, "--stop", "--call", "all")[0] == 2


def test_a_root_is_chosen_and_candidates_are_listed(explore: Explore, tmp_path: Path) -> None:
    script = TWO_CALLS + "half = (w / 2).sum()\nnumber = 3\n"
    assert explore(script, "--root", "half", "-o", "root.json")[0] == 0
    (report,) = reports(tmp_path / "root.json")
    assert report["root"] == "half"
    for name, words in [
        ("nothing", "no global of that name"),
        ("number", "it is a int"),
        ("w", "without a grad_fn"),
    ]:
        code, out, err = explore(script, "--root", name)
        assert code == 2
        assert out == "w.grad [8.0, 8.0]\n"
        assert words in err
        assert "loss, half" in err


def test_no_backward_at_all(explore: Explore, tmp_path: Path) -> None:
    script = "import torch\nx = torch.ones(2, requires_grad=True)\ny = x * 2\nf = y.sum()\nprint(x.grad)"
    code, out, err = explore(script, "-o", "a.json")
    assert (code, out) == (0, "None\n")
    (report,) = reports(tmp_path / "a.json")
    assert report["call"] == 0
    assert report["findings"][0]["code"] == "backward-never-called"  # type: ignore[index]
    assert "nothing called `f.backward()`" in err
    assert explore(script, "--strict")[0] == 3


def test_nothing_differentiable(explore: Explore) -> None:
    code, out, err = explore("print('hello')")
    assert (code, out) == (4, "hello\n")
    assert "nothing differentiable" in err
    assert explore("import sys; sys.exit(6)")[0] == 6


def test_the_scripts_own_exit_code_and_arguments(explore: Explore) -> None:
    script = TWO_CALLS + "import sys; print(sys.argv); sys.exit(9)"
    code, out, err = explore(script, arguments=("--call", "x", "-q"))
    assert code == 9
    assert out.endswith("['user.py', '--call', 'x', '-q']\n")
    assert "call 1" in err


@pytest.mark.parametrize("place", ["before", "during", "after"])
def test_a_script_that_raises(place: str, explore: Explore, tmp_path: Path) -> None:
    script = f"""
    import torch
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1
        @staticmethod
        def backward(ctx, g):
            if {place == "during"}:
                raise ArithmeticError("planted")
            return g
    x = torch.ones(2, requires_grad=True)
    loss = Bad.apply(x * 2).sum()
    if {place == "before"}:
        raise ArithmeticError("planted")
    loss.backward()
    raise ArithmeticError("planted")
    """
    code, out, err = explore(script, "-o", "a.json")
    assert (code, out) == (1, "")
    assert "ArithmeticError: planted" in err
    assert err.startswith("Traceback (most recent call last):\n")
    traceback = err[: err.index("ArithmeticError: planted")]
    for ours in ("explorer", "hooks", "contextlib"):
        assert f"/{ours}" not in traceback
    (report,) = reports(tmp_path / "a.json")
    assert len(report["nodes"]) == 4  # type: ignore[arg-type]
    assert bool(report["error"]) == (place == "during")
    assert "backward-never-called" not in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["-o", "a.gif"], ".gif"),
        (["-o", "missing/a.svg"], "there is no folder"),
        (["-o", "."], "."),
        (["--call", "0"], "call number from 1"),
        (["--call", "some"], "call number from 1"),
        (["--check", "most"], "most"),
        (["--depth", "-1"], "-1"),
        (["--no-such-option"], "no such option"),
    ],
)
def test_a_usage_error_is_told_before_the_script_runs(
    options: list[str], words: str, explore: Explore
) -> None:
    code, out, err = explore("print('ran')", *options)
    assert (code, out) == (2, "")
    assert words in err.lower()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_folder(explore: Explore, tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    code, out, err = explore("print('ran')", "-o", "locked/a.svg")
    assert (code, out) == (2, "")
    assert "permission denied" in err


def test_a_folder_that_vanishes_meanwhile_loses_neither_report_nor_other_outputs(
    explore: Explore, tmp_path: Path
) -> None:
    (tmp_path / "gone").mkdir()
    script = TWO_CALLS + "import os; os.rmdir('gone')"
    code, out, err = explore(script, "-o", "gone/a.json", "-o", "b.json")
    assert (code, out) == (1, "w.grad [8.0, 8.0]\n")
    assert "could not write gone/a.json" in err
    assert "call 1 at user.py:6" in err
    assert len(reports(tmp_path / "b.json")) == 1


def test_a_missing_script_and_a_syntax_error(explore: Explore, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(["missing.py"], "explore")
    assert ended.value.code == 2
    assert "there is no file 'missing.py'" in capfd.readouterr().err
    code, _, err = explore("x = (1")
    assert code == 1
    assert "SyntaxError: '(' was never closed" in err


def test_a_graph_already_freed_and_one_modified_in_place(explore: Explore, tmp_path: Path) -> None:
    freed = "import torch\nw = torch.ones(2, requires_grad=True)\nloss = w.exp().sum()\nloss.backward()\n"
    code, _, err = explore(freed + "loss.backward()", "--call", "2", "-o", "a.json")
    assert code == 1
    assert "second time" in err
    assert len(reports(tmp_path / "a.json")[0]["nodes"]) == 3  # type: ignore[arg-type]
    modified = (
        "import torch\nw = torch.ones(2, requires_grad=True)\ny = w.exp()\ny += 1\ny.sum().backward()\n"
    )
    code, _, err = explore(modified, "-o", "b.json")
    assert code == 1
    assert "modified by an inplace operation" in err
    assert len(reports(tmp_path / "b.json")[0]["nodes"]) == 4  # type: ignore[arg-type]


def test_the_module_is_the_command(tmp_path: Path) -> None:
    """Also beside a user's module that is called like one of ours."""
    (tmp_path / "hooks.py").write_text("name = 'mine'")
    path = tmp_path / "user.py"
    path.write_text(
        "import hooks, sys\n" + TWO_CALLS + "print(sys.argv, sys.path[0], hooks.name, __name__); sys.exit(7)"
    )
    commands = ([sys.executable], [*COMMAND, "-q"], [sys.executable, "-m", "explorer", "-q"])
    ended = [
        subprocess.run([*command, "user.py", "a", "--b"], capture_output=True, text=True, cwd=tmp_path)
        for command in commands
    ]
    assert [one.returncode for one in ended] == [7, 7, 7], ended[2].stderr
    assert ended[0].stdout == ended[1].stdout == ended[2].stdout
    assert "['user.py', 'a', '--b']" in ended[0].stdout


def test_help_is_answered_without_torch() -> None:
    code = """
import sys, explorer.cli
explorer.cli.main(["--help"], standalone_mode=False)
sys.exit("torch" in sys.modules)
"""
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert shown.returncode == 0, shown.stderr
    assert "--check [sample|full|off]" in shown.stdout


def test_an_interrupt_ends_it_as_it_would_end_python(tmp_path: Path) -> None:
    path = tmp_path / "user.py"
    path.write_text(TWO_CALLS + "import os, signal; os.kill(os.getpid(), signal.SIGINT)\nprint('never')")
    ended = subprocess.run([*COMMAND, str(path)], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGINT
    assert ended.stdout == "w.grad [8.0, 8.0]\n"
    assert ended.stderr.count("KeyboardInterrupt") == 1
    assert "call 1 at" in ended.stderr


def test_a_script_with_its_own_hooks_explorer_and_rich(tmp_path: Path) -> None:
    for name in ("hooks", "explorer", "rich", "graphviz"):
        (tmp_path / f"{name}.py").write_text(f"WORD = 'my {name}'")
    path = tmp_path / "user.py"
    path.write_text(
        "import hooks, explorer, rich, graphviz\nprint(hooks.WORD, explorer.WORD, rich.WORD)" + TWO_CALLS
    )
    ended = subprocess.run([*COMMAND, "-o", "a.svg", "user.py"], cwd=tmp_path, capture_output=True, text=True)
    assert ended.stdout == "my hooks my explorer my rich\nw.grad [8.0, 8.0]\n"
    assert ended.returncode == 0
    assert (tmp_path / "a.svg").exists()
    assert "call 1 at user.py:7" in ended.stderr


HAND = """
import torch
a, b, c = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0, 4.0))
d = a * b
r = (d + b * c) * (a * c)
r.backward()
"""


def test_the_paths_to_a_variable_are_listed(explore: Explore) -> None:
    code, _, err = explore(HAND, "-q", "--paths", "b")
    assert code == 0
    assert "2 paths from r to b" in err
    assert "sum of all 2: 48" in err
    code, _, err = explore(HAND, "-q", "--paths", "nothing")
    assert code == 2
    assert "there are a, b, c, d, r" in err


def test_the_backward_is_told_step_by_step(explore: Explore) -> None:
    code, _, err = explore(HAND, "-q", "--explain")
    assert code == 0
    assert "b.grad += ∂r/∂b = " in err
    assert "∂r/∂a = 96" in err


def test_numeric_gradients_and_what_paths_through_tensors_bring(explore: Explore) -> None:
    script = (
        "import torch\n"
        "x = torch.tensor([1.0, 2.0], requires_grad=True)\n"
        "y = (x * x + torch.exp(x)).sum()\n"
        "y.backward()\n"
    )
    code, _, err = explore(script, "-q", "--numeric", "--paths", "x")
    assert code == 0
    assert "3 paths from y to x" in err
    assert "all 3 together: norm" in err
    assert "2 of 2 agree" in err
    assert err.count("  agree") == 2
    table = [line.split()[2:5] for line in err.splitlines() if line.startswith("x[")]
    for place, row in enumerate(table, 1):  # d(x² + eˣ)/dx
        assert list(map(float, row)) == pytest.approx([2 * place + 2.718281828**place] * 3, rel=1e-5)


def test_only_the_surroundings_of_a_name_are_drawn(explore: Explore, tmp_path: Path) -> None:
    assert explore(HAND, "-q", "--focus", "a", "-o", "a.dot")[0] == 0
    assert explore(HAND, "-q", "-o", "all.dot")[0] == 0
    some, everything = ((tmp_path / name).read_text() for name in ("a.dot", "all.dot"))
    assert len(some) < len(everything)
    code, _, err = explore(HAND, "-q", "--focus", "nothing", "-o", "b.dot")
    assert code == 1
    assert "nothing" in err


def test_why_a_gradient_is_what_it_is(explore: Explore) -> None:
    script = HAND + "e = (a.detach() * 2).requires_grad_()\nfrozen = torch.ones(1)\nunused = a * 3\n"
    for name, words in [
        ("b", "`b` gets a gradient of norm 48, 4 nodes from the loss."),
        ("d", "`d` is not a leaf"),
        ("frozen", "does not require a gradient"),
        ("e", "not in the graph"),
    ]:
        code, _, err = explore(script, "-q", "--why", name)
        assert (code, words in err) == (0, True), err
    code, _, err = explore(script, "-q", "--why", "nothing")
    assert code == 2
    assert "no tensor is called 'nothing'" in err


@pytest.mark.parametrize("option", ["--root", "--paths", "--why"])
def test_an_unknown_name_is_a_usage_error_but_never_hides_the_scripts_own_code(
    explore: Explore, option: str, tmp_path: Path
) -> None:
    code, _, err = explore(HAND, "-q", option, "nothing", "-o", "a.json")
    assert code == 2
    assert "nothing" in err
    assert (option == "--root") != (tmp_path / "a.json").exists()
    assert explore(HAND + "raise SystemExit(5)\n", "-q", option, "nothing")[0] == 5


def test_sentences_fit_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In a file they stay on a line each, for a search to find them."""
    sentence = "explore: nothing differentiable: " + "word " * 30 + "end"
    say_words(sentence)
    assert capsys.readouterr().err == sentence + "\n"
    monkeypatch.setenv("COLUMNS", "50")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    say_words(sentence)
    lines = capsys.readouterr().err.splitlines()
    assert max(map(len, lines)) <= 50
    assert [line[:2] for line in lines[1:]] == ["  "] * (len(lines) - 1)
    assert " ".join(line.strip() for line in lines) == sentence


def test_modules_are_sorted_by_cost(explore: Explore, tmp_path: Path) -> None:
    script = """
    import torch
    model = torch.nn.Sequential(torch.nn.Linear(8, 512), torch.nn.ReLU(), torch.nn.Linear(512, 2))
    model(torch.randn(64, 8)).sum().backward()
    """
    code, _, err = explore(script, "-q", "--sort", "memory", "-o", "a.json")
    assert code == 0
    modules = {item["module"]: item for item in reports(tmp_path / "a.json")[0]["modules"]}  # type: ignore[attr-defined]
    assert modules["2"]["saved_bytes"] == 64 * 512 * 4
    assert modules["2"]["parameter_bytes"] == 512 * 2 * 4
    rows = [line.split()[0] for line in err.splitlines() if line.startswith("  ")]
    assert rows[:2] == ["module", "2"]
    assert set(rows[2:]) == {"0", "1", "(no"}


def test_a_script_that_changes_the_folder_does_not_move_the_outputs(explore: Explore, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    code, _, err = explore(
        "import os; os.chdir('elsewhere')\n" + TWO_CALLS, "-q", "-o", "a.json", "-o", "a.svg"
    )
    assert code == 0
    assert "wrote a.svg" in err
    assert (tmp_path / "a.svg").exists()
    assert (tmp_path / "a.json").exists()


def test_a_loss_that_requires_no_gradient(explore: Explore, tmp_path: Path) -> None:
    script = """
    import torch
    w = torch.ones(3, requires_grad=True)
    h = w * 2
    loss = h.detach().sum()
    loss.backward()
    """
    code, out, err = explore(script, "-o", "a.json")
    assert (code, out) == (1, "")
    assert "RuntimeError: element 0 of tensors does not require grad" in err
    assert "has no grad_fn and requires no gradient" in err
    (report,) = reports(tmp_path / "a.json")
    assert [node["label"] for node in report["nodes"]] == ["h", "w"]  # type: ignore[attr-defined]
