"""The command on a long run: what it keeps and writes, and what is left when the run is cut short."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TextIO

import pytest

from explorer import journal
from explorer.progress import ProgressLine
from tests.conftest import Explore
from tests.test_neutrality import COMMAND

TRAINING = """
import sys, torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for step in range(1, int(sys.argv[1]) + 1):
    optimizer.zero_grad()
    loss = model(torch.randn(5, 6)).pow(2).mean()
    loss.backward()
    optimizer.step()
    if step == 25:
        print("going", flush=True)
print("done", loss.item())
"""


def calls(path: str | Path) -> list[int]:
    return [report["call"] for report in json.loads(Path(path).read_text())["reports"]]


def plain(tmp_path: Path, steps: str) -> str:
    """What the script prints without us."""
    (tmp_path / "plain.py").write_text(TRAINING)
    words = [sys.executable, str(tmp_path / "plain.py"), steps]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


def test_every_kth_call_is_explored_and_all_are_in_the_journal(explore: Explore, tmp_path: Path) -> None:
    code, out, err = explore(
        TRAINING, "--every", "12", "-o", "a.json", "-o", "steps.jsonl", arguments=("30",)
    )
    assert (code, out) == (0, plain(tmp_path, "30"))
    assert calls("a.json") == [1, 13, 25]
    (run,) = journal.read("steps.jsonl")
    assert [step.call for step in run.steps] == list(range(1, 31))
    assert [step.call for step in run.steps if step.explored] == [1, 13, 25]
    assert (run.script, run.every, run.rank) == ("user.py", 12, None)
    assert re.search(
        r"explore: 30 backward calls · loss \S+ to \S+ · gradient \S+ to \S+ · by layer in ", err
    )
    assert "\x1b" not in err
    assert explore(TRAINING, "-q", "--every", "12", arguments=("30",))[2] == ""


def test_a_journal_beside_one_explored_call(explore: Explore) -> None:
    code, _, _ = explore(TRAINING, "--call", "3", "-o", "steps.jsonl", "-o", "a.json", arguments=("5",))
    assert code == 0
    assert calls("a.json") == [3]
    (run,) = journal.read("steps.jsonl")
    assert [step.explored for step in run.steps] == [False, False, True, False, False]


def test_the_first_of_all_reports_the_last_and_those_with_findings_are_printed(explore: Explore) -> None:
    script = TRAINING.replace("loss.backward()", "(loss * (float('nan') if step == 7 else 1)).backward()")
    code, _, err = explore(script, "--call", "all", "--check", "off", "-o", "a.json", arguments=("12",))
    assert code == 0
    assert calls("a.json") == list(range(1, 13))
    shown = [int(number) for number in re.findall(r"user\.py · call (\d+) ", err)]
    assert {1, 7, 12} <= set(shown)
    assert len(shown) < 12
    assert f"explore: {len(shown)} of 12 reports printed, of 12 backward calls" in err
    shown = re.findall(
        r"user\.py · call (\d+) ",
        explore(script, "--call", "all", "--check", "off", "--full", arguments=("12",))[2],
    )
    assert len(shown) == 12


def test_a_run_too_long_for_all_its_reports(explore: Explore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explorer.pipeline.KEPT_NODES", 150)
    code, _, err = explore(TRAINING, "--call", "all", "--check", "off", "-o", "a.json", arguments=("60",))
    assert code == 0
    kept = calls("a.json")
    assert (kept[0], kept[-1]) == (1, 60)
    assert len(kept) < 20
    assert f"explore: 60 calls were explored; {len(kept)} reports, spread over the run, were kept" in err


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--every", "0"], "x>=1"),
        (["--every", "2", "--call", "3"], "give one"),
        (["--every", "2", "--stop"], "--stop"),
        (["--every", "2", "--root", "loss"], "--root"),
        (["-o", "a.jsonl", "-o", "b.jsonl"], "one journal is enough"),
        (["-o", "mine.jsonl"], "no journal"),
    ],
)
def test_what_contradicts_itself_is_told_before_the_script_runs(
    options: list[str], words: str, explore: Explore
) -> None:
    Path("mine.jsonl").write_text('{"mine": 1}\n')
    code, out, err = explore("print('ran')", *options)
    assert (code, out) == (2, "")
    assert words in err
    assert Path("mine.jsonl").read_text() == '{"mine": 1}\n'


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_ends_the_journal_and_nothing_else(explore: Explore, tmp_path: Path) -> None:
    os.symlink("/dev/full", "steps.jsonl")
    code, out, err = explore(
        TRAINING, "--every", "10", "-o", "steps.jsonl", "-o", "a.json", arguments=("30",)
    )
    assert (code, out) == (0, plain(tmp_path, "30"))
    assert calls("a.json") == [1, 11, 21]
    assert err.count("No space left on device") == 1


def test_a_folder_removed_meanwhile_ends_the_journal_and_nothing_else(explore: Explore) -> None:
    os.mkdir("gone")
    script = "import shutil; shutil.rmtree('gone')\n" + TRAINING
    code, out, err = explore(script, "--every", "10", "-o", "gone/steps.jsonl", arguments=("30",))
    assert code == 0
    assert out.startswith("going\ndone")
    assert err.count("the journal") == 1
    assert "No such file or directory" in err


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_a_signal_from_outside(name: str, tmp_path: Path) -> None:
    """It ends the script as it would; the journal is whole; after Ctrl-C the report is written, too."""
    (tmp_path / "user.py").write_text(TRAINING)
    options = ["--every", "10", "-o", "a.json", "-o", "steps.jsonl"]
    running = subprocess.Popen(
        [*COMMAND, *options, "user.py", "1000000000"],
        cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert running.stdout is not None
        assert running.stdout.readline() == "going\n"
        running.send_signal(getattr(signal, name))
        out, err = running.communicate(timeout=60)
    finally:
        running.kill()
    assert running.returncode == -getattr(signal, name), err
    assert out == ""
    (run,) = journal.read(tmp_path / "steps.jsonl")
    assert run.torn == 0
    assert [step.call for step in run.steps] == list(range(1, len(run.steps) + 1))
    assert len(run.steps) >= 24
    if name == "SIGINT":
        assert re.findall("^KeyboardInterrupt", err, re.MULTILINE) == ["KeyboardInterrupt"]
        assert "/explorer/" not in err
        assert calls(tmp_path / "a.json")[:3] == [1, 11, 21]
        assert "backward calls · loss" in err
    else:
        assert not (tmp_path / "a.json").exists()
        assert err == ""


def on_a_terminal(tmp_path: Path, *options: str) -> str:
    """What a run of some two seconds shows on the terminal that its stderr is."""
    slow = TRAINING.replace("optimizer.zero_grad()", "optimizer.zero_grad(); time.sleep(0.05)")
    (tmp_path / "user.py").write_text("import time" + slow)
    ours, theirs = pty.openpty()
    running = subprocess.Popen(
        [*COMMAND, *options, "user.py", "40"], cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    shown = b""
    until = time.monotonic() + 120
    try:
        while time.monotonic() < until and select.select([ours], [], [], 120)[0]:
            try:
                part = os.read(ours, 4096)
            except OSError:  # Linux says so when the other end is closed
                break
            if not part:
                break
            shown += part
        assert running.wait(60) == 0
    finally:
        running.kill()
        os.close(ours)
    return shown.decode()


def test_a_terminal_is_told_how_far_the_run_is(tmp_path: Path) -> None:
    shown = on_a_terminal(tmp_path, "--every", "100")
    assert re.search(r"\x1b\[2Kexplore: backward call \d+, loss \d\S*, gradient \d\S*, \d\S*/s\r", shown)
    assert "\r\x1b[2K" in shown


@pytest.mark.parametrize(("options", "lines"), [(["--every", "9"], 1), (["-q", "--every", "9"], 0), ([], 0)])
def test_only_long_runs_that_are_not_quiet_have_a_progress_line(
    options: list[str], lines: int, explore: Explore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[ProgressLine] = []

    def noted(stream: TextIO) -> ProgressLine:
        made.append(ProgressLine(stream))
        return made[-1]

    monkeypatch.setattr("explorer.cli.ProgressLine", noted)
    assert explore(TRAINING, *options, arguments=("3",))[0] == 0
    assert made == []
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert explore(TRAINING, *options, arguments=("3",))[0] == 0
    assert len(made) == lines
