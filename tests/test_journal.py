"""The journal: whole lines whatever ends the process, a bound that holds, and a reader that is not misled."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from itertools import pairwise
from pathlib import Path

import pytest

from explorer import journal
from explorer.errors import UsageError
from explorer.journal import Journal, LayerGradient, Step, layer_of, read

STEP = Step(
    call=3, at=1.25, seconds=0.5, loss=2.5, where="train.py:7", explored=True,
    layers={"0": LayerGradient(1.5, 0.25, 2, 0, 12), "head": LayerGradient(math.nan, math.inf, 0, 3, 4)},
    averaged={"0": 0.75}, error="ValueError",
)  # fmt: skip
FIRST = {"script": "train.py", "torch": "2", "started": 5.0, "rank": 1, "ranks": 2, "every": 10}


def plain(call: int, bad: int = 0) -> Step:
    return Step(call, call / 10, 0.01, 1.0, "train.py:7", False, {"0": LayerGradient(1.0, 0.5, 0, bad, 9)})


def written(path: Path, steps: list[Step], limit: int = journal.LIMIT) -> Journal:
    one = Journal(str(path), FIRST, limit)
    for step in steps:
        one.write(step)
    one.close()
    return one


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    assert written(path, [plain(1), STEP]).problem == ""
    (run,) = read(path)
    assert (run.script, run.torch, run.started, run.rank, run.ranks) == ("train.py", "2", 5.0, 1, 2)
    assert (run.every, run.thinned, run.torn) == (10, 0, 0)
    assert run.steps[0] == plain(1)
    assert repr(run.steps[1]) == repr(STEP)  # nan is not equal to itself
    assert run.steps[1].nonfinite == 3


def test_every_line_is_json_that_any_parser_reads(tmp_path: Path) -> None:
    def refuse(name: str) -> float:
        raise AssertionError(name)

    written(tmp_path / "a.jsonl", [STEP])
    first, step = (
        json.loads(line, parse_constant=refuse) for line in (tmp_path / "a.jsonl").read_text().splitlines()
    )
    assert first["columns"] == ["norm", "max", "zeros", "nonfinite", "elements"]
    assert step["layers"]["head"] == ["nan", "inf", 0, 3, 4]


def test_a_torn_line_is_passed_over_and_another_run_is_appended(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [plain(1), plain(2)])
    whole = path.read_bytes()
    for cut in range(2, 60, 7):
        path.write_bytes(whole[:-cut])
        (run,) = read(path)
        assert ([step.call for step in run.steps], run.torn) == ([1], 1)
    written(path, [plain(1)])
    one, other = read(path)
    assert ([step.call for step in one.steps], one.torn) == ([1], 1)
    assert ([step.call for step in other.steps], other.torn) == ([1], 0)


@pytest.mark.parametrize(
    "line",
    [
        b"{}",
        b"[1]",
        b"nonsense",
        b'{"call":1,"at":0,"seconds":0,"layers":{"a":[1]}}',
        b"\xff\xfe",
        b"[" * 10**5,
    ],
)
def test_a_line_that_is_none_is_counted(line: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [plain(1)])
    path.write_bytes(path.read_bytes() + line + b"\n")
    (run,) = read(path)
    assert (len(run.steps), run.torn) == (1, 1)


def test_a_file_that_is_something_else_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "mine"}\n')
    for refused in (lambda: read(path), lambda: journal.check(str(path))):
        with pytest.raises(UsageError, match="is no journal"):
            refused()
    one = written(path, [plain(1)])
    assert "no journal" in one.problem
    assert path.read_text() == '{"prompt": "mine"}\n'
    with pytest.raises(UsageError, match="cannot read"):
        read(tmp_path / "none.jsonl")
    (tmp_path / "b.jsonl").touch()
    with pytest.raises(UsageError, match="empty"):
        read(tmp_path / "b.jsonl")
    journal.check(str(tmp_path / "none.jsonl"))
    journal.check(str(tmp_path / "b.jsonl"))


def test_the_file_stays_below_its_bound(tmp_path: Path) -> None:
    """What is left: all of the newest calls, older ones ever sparser, the first bad one, and the count."""
    path = tmp_path / "a.jsonl"
    limit = 20_000
    one = Journal(str(path), FIRST, limit)
    for call in range(1, 3001):
        one.write(plain(call, bad=call == 301))
        if call % 100 == 0:
            assert path.stat().st_size <= limit
    one.close()
    assert one.problem == ""
    (run,) = read(path)
    calls = [step.call for step in run.steps]
    assert run.thinned > 5
    assert calls == sorted(set(calls))
    assert 301 in calls
    assert calls[-20:] == list(range(2981, 3001))
    gaps = [later - earlier for earlier, later in pairwise(calls)]
    assert max(gaps[: len(gaps) // 4]) >= 8
    assert os.listdir(tmp_path) == ["a.jsonl"]


def test_other_runs_are_thinned_too_and_stay_apart(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [plain(call) for call in range(1, 100)])
    one = Journal(str(path), {**FIRST, "started": 6.0}, path.stat().st_size + 500)
    for call in range(1, 30):
        one.write(plain(call))
    one.close()
    first, second = read(path)
    assert (first.thinned, second.thinned) == (0, 1)
    assert 40 < len(first.steps) < 60
    assert second.steps[-1].call == 29


def test_an_interrupt_right_after_the_first_line_does_not_begin_the_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.jsonl"
    one, append = Journal(str(path), FIRST), Journal._append

    def interrupted(self: Journal, line: bytes) -> None:
        monkeypatch.undo()
        append(self, line)
        raise KeyboardInterrupt

    monkeypatch.setattr(Journal, "_append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        one.write(plain(1))
    one.write(plain(2))
    one.close()
    (run,) = read(path)
    assert [step.call for step in run.steps] == [1, 2]


def test_the_first_line_counts_towards_the_bound(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    written(path, [plain(call) for call in range(1, 100)])
    line = len(path.read_bytes().splitlines(keepends=True)[-1])
    limit = path.stat().st_size + line + 10  # room for a call, none for the run's first line
    assert written(path, [plain(1)], limit).problem == ""
    assert path.stat().st_size <= limit
    assert len(read(path)) == 2


def test_threads_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    one = Journal(str(path), FIRST, 30_000)
    threads = [
        threading.Thread(target=lambda start=start: [one.write(plain(start + place)) for place in range(200)])
        for start in (0, 1000, 2000, 3000)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    one.close()
    (run,) = read(path)
    assert one.problem == ""
    assert run.torn == 0
    assert one.written == 800
    assert path.stat().st_size <= 30_000


def test_a_bound_that_is_too_small_ends_it(tmp_path: Path) -> None:
    one = written(tmp_path / "a.jsonl", [plain(call) for call in range(1, 20)], 300)
    assert "300 bytes are too few" in one.problem


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_full_disk_ends_it(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.symlink_to("/dev/full")
    one = written(path, [plain(1), plain(2)])
    assert "ends early" in one.problem
    assert "No space left" in one.problem
    assert one.written == 0


def test_a_folder_that_is_gone_ends_it(tmp_path: Path) -> None:
    one = written(tmp_path / "gone" / "a.jsonl", [plain(1)])
    assert "No such file" in one.problem
    (tmp_path / "b").mkdir()
    other = Journal(str(tmp_path / "b" / "a.jsonl"), FIRST, 2000)
    other.write(plain(1))
    (tmp_path / "b" / "a.jsonl").unlink()
    (tmp_path / "b").rmdir()
    for call in range(2, 40):
        other.write(plain(call))
    assert "No such file" in other.problem


WRITES = """
import sys
from explorer.journal import Journal, LayerGradient, Step
journal = Journal(sys.argv[1], {"started": 1.0}, int(sys.argv[2]))
for call in range(1, 10**9):
    layers = {f"layer{i}": LayerGradient(1.0, 0.5, 0, 0, 9) for i in range(50)}
    journal.write(Step(call, 0.1, 0.1, 1.0, "a.py:1", False, layers))
    if call == 50:
        print("going", flush=True)
"""


@pytest.mark.parametrize("limit", [journal.LIMIT, 100_000])
def test_a_kill_leaves_whole_lines(limit: int, tmp_path: Path) -> None:
    """``kill -9`` in the midst of writing (and, with a low bound, of thinning), several times over."""
    path = tmp_path / "a.jsonl"
    for _ in range(5):
        running = subprocess.Popen(
            [sys.executable, "-c", WRITES, str(path), str(limit)], stdout=subprocess.PIPE, text=True
        )
        assert running.stdout is not None
        assert running.stdout.readline() == "going\n"
        running.send_signal(signal.SIGKILL)
        running.wait(60)
        running.stdout.close()
        runs = read(path)
        assert sum(run.torn for run in runs) == 0
        assert runs[-1].steps[-1].call >= 50
        assert path.stat().st_size <= limit


def test_the_layer_of_a_name() -> None:
    assert layer_of("encoder.0.weight", True) == "encoder.0"
    assert layer_of("weight", True) == "weight"
    assert layer_of("self.w", True) == "self.w"
    assert layer_of("params[0]", True) == "params[0]"
    assert layer_of("x.y", False) == "x.y"
