"""A fault in any stage of ours: the script ends as it would, and the report says what is missing and why."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import explorer
from explorer.diagnose import DIAGNOSES
from hooks.creation import anomaly_reaches_us
from tests.conftest import Explore
from tests.test_neutrality import COMMAND

SCRIPT = """
import sys
import torch
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    optimizer.zero_grad()
    loss = model(torch.randn(5, 3)).pow(2).mean()
    loss.backward()
    optimizer.step()
    print("loss", loss.item(), model[0].weight.grad.sum().item())
sys.exit(7)
"""


class PlantedError(Exception):
    """Raised by a test inside one of our stages, and nowhere else."""


def fails(*args: Any, **kwargs: Any) -> Any:
    raise PlantedError("planted")


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the script prints without us."""
    path = tmp_path_factory.mktemp("plain") / "user.py"
    path.write_text(SCRIPT)
    ended = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (7, "")
    return ended.stdout


# Where the fault is planted, and the words by which the report names the part that is missing.
STAGES = {
    "the place of a new node": ("hooks.creation.record_here", "noting where nodes were made failed"),
    "small values": ("hooks.values.YoungValues.look", "noting where nodes were made failed"),
    "a module's call": ("hooks.modules.ModuleCalls._begin", "following the modules' calls failed"),
    "the arguments of backward": ("hooks.backward._describe", "the arguments of a backward call failed"),
    "the context of a node": ("hooks.forward.Observation.told", "the context of nodes failed"),
    "names": ("explorer.watching.collect", "reading variable names failed"),
    "the walk": ("explorer.exploring.trace", "the walk failed"),
    "describing a node": ("explorer.describe.Describer.describe", "the walk failed"),
    "forward values": ("explorer.exploring.with_values", "reading forward values failed"),
    "the recorder begins": ("explorer.exploring.Recorder", "the record of gradients failed"),
    "the recorder observes": ("explorer.record.Recorder.observe", "the record of gradients stopped"),
    "the recorder ends": ("explorer.record.Recorder.finish", "the record of gradients failed"),
    "the checker begins": ("explorer.exploring.Checker", "the check failed"),
    "the checker observes": ("explorer.check.Checker.observe", "the check stopped"),
    "the checker ends": ("explorer.check.Checker.finish", "the check failed"),
    "capture": ("hooks.nodes.Capture._attach", "observing stopped"),
    "the observer": ("explorer.exploring.Exploring._observe", "observing stopped"),
    "looking for evidence": ("explorer.gather.Gatherer._look", "looking for evidence failed"),
    "the parameters met": ("explorer.facts.Known.parameters", "noting what is not reached failed"),
    "evidence of the run": ("explorer.gather.of_run", "gathering evidence of the run failed"),
    "the findings": ("explorer.watching.diagnosed", "looking for findings failed"),
    "the report": ("explorer.exploring.Report", "the report of call 1 failed"),
    "attaching to the forward": ("explorer.watching.observe_forward", "observing the forward failed"),
    "attaching to backward": ("explorer.watching.watch_backward", "watching backward calls failed"),
    "attaching evidence": ("explorer.gather.Gatherer.__enter__", "gathering evidence failed"),
    "the terminal": ("explorer.render.text.text", "the report could not be printed"),
    "the rank": ("explorer.watching.rank_now", "reading the rank failed"),
    "the reports that are kept": ("explorer.kept.Kept.add", "the report of call 1 failed"),
}
RECORD = "the light record of"
LIGHT_STAGES = {
    "names of layers": ("explorer.light.collect", f"{RECORD} backward calls stopped"),
    "the layers' nodes": ("explorer.layers.Layers.targets", f"{RECORD} backward calls stopped"),
    "the loss": ("explorer.light._loss", f"{RECORD} backward calls stopped"),
    "a layer's gradient": ("explorer.layers._measured", f"{RECORD} call 1"),
    "the sums": ("explorer.layers.Sums.finish", f"{RECORD} backward calls stopped"),
    "the journal": ("explorer.light.Journal", f"{RECORD} backward calls stopped"),
    "a line of the journal": ("explorer.journal._plain", f"{RECORD} backward calls stopped"),
    "the last line": ("explorer.light.Light.summary", "the run could not be told in a line"),
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_fault_in_a_stage(
    stage: str, explore: Explore, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, words = STAGES[stage]
    assert anomaly_reaches_us()  # tried once a process: not while the fault is planted
    monkeypatch.setattr(target, fails)
    code, out, err = explore(SCRIPT)
    assert (code, out) == (7, plain)
    assert "Traceback" not in err
    assert words in err
    assert "PlantedError: planted" in err


@pytest.mark.parametrize("stage", LIGHT_STAGES)
def test_a_fault_in_the_light_record(
    stage: str, explore: Explore, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script goes on, and so does the exploring of the calls that are explored."""
    target, words = LIGHT_STAGES[stage]
    monkeypatch.setattr(target, fails)
    code, out, err = explore(SCRIPT, "--every", "1", "-o", "a.json", "-o", "a.jsonl")
    assert (code, out) == (7, plain)
    assert "Traceback" not in err
    assert words in err
    assert "PlantedError: planted" in err
    reports = json.loads(Path("a.json").read_text())["reports"]
    assert [report["check"]["statuses"] for report in reports] == [{"match": 11}, {"match": 11}]


def test_a_fault_in_a_diagnosis_leaves_the_others(
    explore: Explore, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIAGNOSES, "cut-graph", fails)
    code, out, err = explore(SCRIPT, "-o", "a.json")
    assert (code, out) == (7, plain)
    assert "the diagnosis cut-graph failed: PlantedError: planted" in err
    (report,) = json.loads(Path("a.json").read_text())["reports"]
    assert report["problems"] == ["the diagnosis cut-graph failed: PlantedError: planted"]


@pytest.mark.parametrize(
    ("target", "path"),
    [
        ("explorer.render.picture.layout", "a.svg"),
        ("explorer.render.json.dumps", "a.json"),
        ("explorer.render.html.page", "a.html"),
    ],
)
def test_a_fault_in_a_writer_leaves_the_other_outputs(
    target: str, path: str, explore: Explore, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, fails)
    code, out, err = explore(SCRIPT, "-o", path, "-o", "b.txt")
    assert (code, out) == (7, plain)
    assert f"could not write {path}: PlantedError: planted" in err
    assert not Path(path).exists()
    assert "11 nodes" in Path("b.txt").read_text()


def test_a_full_disk(explore: Explore, plain: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there before stays, and no partial file is left behind."""
    Path("a.json").write_text("before")

    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as planted:
        planted.setattr("os.replace", full)
        code, out, err = explore(SCRIPT, "-o", "a.json")
    assert (code, out) == (7, plain)
    assert "could not write a.json" in err
    assert "No space left on device" in err
    assert "11 nodes" in err
    assert Path("a.json").read_text() == "before"
    assert sorted(os.listdir()) == ["a.json", "user.py"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
def test_a_device_without_room(explore: Explore, plain: str) -> None:
    """A disk that is really full, in every format, while the other outputs are written."""
    names = ("a.json", "b.svg", "c.html", "d.txt")
    for name in names:
        os.symlink("/dev/full", name)
    code, out, err = explore(SCRIPT, *(word for name in names for word in ("-o", name)), "-o", "e.json")
    assert (code, out) == (7, plain)
    for name in names:
        assert f"could not write {name}" in err
    assert err.count("No space left on device") == len(names)
    assert len(json.loads(Path("e.json").read_text())["reports"]) == 1


@pytest.mark.parametrize("kind", [MemoryError, RecursionError, ZeroDivisionError, PlantedError])
def test_a_rule_that_raises(
    kind: type[Exception], explore: Explore, plain: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rule(*args: Any) -> Any:
        raise kind("planted")

    monkeypatch.setattr("explorer.check.apply_rule", rule)
    code, out, err = explore(SCRIPT)
    assert (code, out) == (7, plain)
    assert f"raised {kind.__name__}: planted" in err
    assert "11 nodes" in err


def test_an_output_folder_removed_meanwhile(explore: Explore, plain: str) -> None:
    """What cannot be written any more is told, in every format; the rest is written."""
    os.mkdir("gone")
    names = ("gone/a.json", "gone/b.svg", "gone/c.html", "gone/d.txt")
    script = "import shutil\nshutil.rmtree('gone')\n" + SCRIPT
    code, out, err = explore(script, *(word for name in names for word in ("-o", name)), "-o", "e.json")
    assert (code, out) == (7, plain)
    for name in names:
        assert f"could not write {name}" in err
    assert len(json.loads(Path("e.json").read_text())["reports"]) == 1


def test_a_repr_without_end_is_never_asked_for(explore: Explore) -> None:
    script = """
    import torch
    class Endless:
        def __repr__(self): return repr(self)
        def __getattr__(self, name): raise RecursionError(name)
        def __bool__(self): raise RecursionError("bool")
        def __eq__(self, other): raise RecursionError("eq")
        __hash__ = None
    class Scale(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, by):
            ctx.by, ctx.owner = by, Endless()
            return x * 2
        @staticmethod
        def backward(ctx, grad):
            return grad * 2, None
    endless = Endless()
    listed = [endless, {"a": endless}, Endless]
    x = torch.ones(3, requires_grad=True)
    loss = Scale.apply(x, endless).sum()
    loss.backward()
    print(x.grad)
    """
    code, out, err = explore(script, "-o", "a.json")
    assert (code, out) == (0, "tensor([2., 2., 2.])\n"), err
    (report,) = json.loads(Path("a.json").read_text())["reports"]
    assert report["problems"] == []


def test_at_the_recursion_limit_the_script_goes_on(explore: Explore) -> None:
    """A hook of ours that finds no stack left gives up; the user's own operation succeeds as before."""
    script = """
    import sys, torch
    x = torch.ones(2, requires_grad=True)
    reached = 0
    def down():
        global reached
        y = x * 2
        reached += 1
        down()
    try:
        down()
    except RecursionError:
        pass
    print(reached > 900)
    (x * 3).sum().backward()
    print(x.grad.tolist())
    """
    code, out, err = explore(script)
    assert (code, out) == (0, "True\n[3.0, 3.0]\n")
    assert "3 nodes" in err


SIGNALLED = """
import os, signal, sys, torch
class Signals(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x * 1
    @staticmethod
    def backward(ctx, grad):
        os.kill(os.getpid(), signal.{name})
        for _ in range(10**7): pass
        return grad
x = torch.ones(2, requires_grad=True)
loss = Signals.apply(x * 2).sum()
print("before", flush=True)
loss.backward()
print("after")
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_during_backward(name: str, tmp_path: Path) -> None:
    script = tmp_path / "user.py"
    script.write_text(SIGNALLED.format(name=name))
    plain = subprocess.run([sys.executable, "user.py"], cwd=tmp_path, capture_output=True, text=True)
    ended = subprocess.run(
        [*COMMAND, "-o", "a.json", "user.py"], cwd=tmp_path, capture_output=True, text=True
    )
    assert ended.returncode == plain.returncode == -getattr(signal, name)
    assert ended.stdout == plain.stdout == "before\n"
    assert "/explorer/" not in ended.stderr
    if name == "SIGINT":
        (report,) = json.loads((tmp_path / "a.json").read_text())["reports"]
        assert len(report["nodes"]) == 4
        assert report["error"].startswith("KeyboardInterrupt")


def test_a_fault_is_told_in_python_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same through Python: `Report.problems`, and the gradients are right."""
    monkeypatch.setattr("explorer.check.Checker.observe", fails)
    x = torch.ones(2, requires_grad=True)
    with explorer.watch() as watch:
        (x * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]
    assert watch.report.problems == ("the check stopped: PlantedError: planted",)
    assert watch.report.gradient(0) is not None


def test_a_beginning_that_fails_leaves_the_backward_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def planted(*_: object, **__: object) -> None:
        raise LookupError("planted")

    monkeypatch.setattr(explorer.Watch, "_exploring", planted)
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with explorer.watch() as watch:
        (x * 3).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [3.0, 3.0]
    assert watch.problems == ["exploring failed to begin: LookupError: planted"]
