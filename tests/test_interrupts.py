"""Ctrl-C between any two lines of ours: it passes, reports stay whole, training goes on as without us."""

from __future__ import annotations

import linecache
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

import explorer
from explorer import journal

HOME = Path(explorer.__file__).resolve().parent.parent
OURS = tuple(str(HOME / room) for room in ("explorer", "hooks"))
STEPS = 4
SPOTS = 80
"""Spread evenly over the lines as they run; of the files below, every line that runs has its turn."""
STATEFUL = ("kept.py", "light.py", "layers.py", "journal.py", "watching.py", "handles.py", "backward.py")


class Interrupting:
    """Counts the lines of ours that run in this thread, and raises KeyboardInterrupt at one of them.

    Lines that release deep graphs, whoever made them, do not count: they run when the collector does.

    Args:
        at: the line, from 1; 0 for none.
        files: count only these files' lines; all where empty.
    """

    def __init__(self, at: int = 0, files: tuple[str, ...] = ()) -> None:
        self.lines = 0
        self.where = ""
        self.last: dict[str, int] = {}
        self._at = at
        self._files = files

    def __call__(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        name = frame.f_code.co_filename
        if not name.startswith(OURS) or name.endswith("release.py"):
            return None
        return self._line if not self._files or name.endswith(self._files) else None

    def _line(self, frame: FrameType, event: str, argument: object) -> Callable[..., Any] | None:
        # Leaving a `with` is its line's event again; a real signal comes after `__exit__` there, not before.
        name, number = frame.f_code.co_filename, frame.f_lineno
        if event == "line" and not linecache.getline(name, number).lstrip().startswith("with "):
            self.lines += 1
            where = f"{name}:{number}"
            self.last[where] = self.lines
            if self.lines == self._at:
                sys.settrace(None)
                self.where = where
                raise KeyboardInterrupt
        return self._line


class Training:
    """A model, an optimizer and batches that are always the same."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1)
        self.batches = torch.randn(STEPS, 5, 3, generator=generator)

    def step(self, number: int) -> float:
        self.optimizer.zero_grad()
        loss = self.model(self.batches[number]).pow(2).mean()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def again(self) -> list[float]:
        """The losses of the whole training from the beginning."""
        self.__init__()  # type: ignore[misc] # begin again
        return [self.step(number) for number in range(STEPS)]


def interrupted(place: Path, counting: Interrupting) -> tuple[bool, explorer.Watch]:
    """Train under a watch; whether the interrupt came out."""
    training = Training()
    watch = explorer.watch(training.model, every=2, log=place)
    before = sys.gettrace()
    came = False
    with watch:
        sys.settrace(counting)
        try:
            for number in range(STEPS):
                training.step(number)
        except KeyboardInterrupt:
            came = True
        finally:
            sys.settrace(before)
    return came, watch


def spots(place: Path, files: tuple[str, ...]) -> list[int]:
    """Where to interrupt: once in every line of `files`, or in `SPOTS` places of everything."""
    interrupted(place, Interrupting())  # what is worked out once only is worked out here
    counting = Interrupting(files=files)
    came, watch = interrupted(place, counting)
    assert (came, len(watch.reports)) == (False, STEPS // 2)
    if files:
        return sorted(counting.last.values())
    return list(range(1, counting.lines + 1, -(-counting.lines // SPOTS)))


def interrupt_each(files: tuple[str, ...], folder: Path) -> int:
    """Train once for each spot, and look at what is left; how many spots there were."""
    plain = Training().again()
    everything = spots(folder / "counted.jsonl", files)
    reached = 0
    for at in everything:
        counting = Interrupting(at, files)
        place = folder / f"{at}.jsonl"
        came, watch = interrupted(place, counting)
        if not counting.where:
            break  # more is remembered from round to round: fewer lines run
        reached += 1
        assert came, counting.where
        torch.set_grad_enabled(True)  # an optimizer's step that is cut short leaves it off, without us too
        reports = watch.session(scripted=True).reports
        assert watch.problems == [], (counting.where, watch.problems)
        assert all(report.problems == () for report in reports), counting.where
        assert [report.call for report in reports] == [1, 3][: len(reports)]
        if place.exists() and place.stat().st_size:
            (run,) = journal.read(place)
            assert run.torn == 0
            assert [step.call for step in run.steps] == list(range(1, len(run.steps) + 1))
        assert Training().again() == plain, counting.where
    assert reached > 0.9 * len(everything)
    return reached


@pytest.mark.parametrize("files", ["()", "STATEFUL"], ids=["anywhere", "where state is kept"])
def test_an_interrupt_anywhere(files: str, tmp_path: Path) -> None:
    """In a process of its own, where no other test has left anything to be gathered or released."""
    code = "import pathlib, tests.test_interrupts as here; print(here.interrupt_each({}, pathlib.Path({!r})))"
    words = [sys.executable, "-c", code.format(files.replace("STATE", "here.STATE"), str(tmp_path))]
    done = subprocess.run(
        words,
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= SPOTS // 2
