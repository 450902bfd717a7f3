"""The light record of every backward call: right by layer, bounded, and what was bad told at the end."""

from __future__ import annotations

import gc
import math
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import explorer
from explorer import journal, progress
from explorer.evidence import Looked
from explorer.graph import Graph, Node
from explorer.journal import LayerGradient, Step
from explorer.kept import FEWEST, WRONG, Kept
from explorer.layers import Sums, _on_device
from explorer.light import Light
from explorer.progress import ProgressLine, line
from explorer.report import CheckSummary, Report
from explorer.watching import Watch


def network() -> nn.Module:
    """A small network with layers of several kinds, one of them not trained."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 40), nn.Linear(40, 3)
    )
    for parameter in model[1].parameters():
        parameter.requires_grad_(False)
    return model


def train(model: nn.Module, steps: int, broken: int = 0) -> list[dict[str, torch.Tensor]]:
    """Steps of training; the gradients of each, by parameter. Loss number `broken` is infinite."""
    seen = []
    for step in range(1, steps + 1):
        model.zero_grad()
        loss = functional.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.randint(3, (4,)))
        if step == broken:
            loss = loss * math.inf
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        seen.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
    return seen


LINE = next(
    number
    for number, line in enumerate(Path(__file__).read_text().splitlines(), 1)
    if "loss.backward()" in line
)
"""Where `train` calls backward."""


def recorded(path: Path) -> tuple[Step, ...]:
    (run,) = journal.read(path)
    return run.steps


def test_the_numbers_are_those_of_the_gradients(tmp_path: Path) -> None:
    """Against the gradients themselves, in double precision, layer by layer and call by call."""
    torch.manual_seed(0)
    model = network()
    with explorer.watch(model, every=4, log=tmp_path / "a.jsonl") as watch:
        truth = train(model, 6, broken=5)
    steps = recorded(tmp_path / "a.jsonl")
    assert [step.call for step in steps] == [1, 2, 3, 4, 5, 6]
    assert [step.explored for step in steps] == [True, False, False, False, True, False]
    assert [report.call for report in watch.reports] == [1, 5]
    for step, gradients in zip(steps, truth, strict=True):
        assert set(step.layers) == {"0", "4", "5"}
        for layer, found in step.layers.items():
            whole = torch.cat(
                [g.double().flatten() for n, g in gradients.items() if n.startswith(f"{layer}.")]
            )
            assert found.elements == whole.numel()
            assert found.zeros == int((whole == 0).sum())
            assert found.nonfinite == int((~whole.isfinite()).sum())
            assert found.norm == pytest.approx(float(whole.norm()), rel=1e-5, nan_ok=True)
            assert found.largest == pytest.approx(float(whole.abs().max()), rel=1e-6, nan_ok=True)
    assert [bool(step.nonfinite) for step in steps] == [False] * 4 + [True, False]
    assert all(step.loss is not None and step.seconds > 0 for step in steps)
    assert all(step.where.endswith(f"test_light.py:{LINE}") for step in steps)


def test_a_call_is_told_its_own_gradient_not_what_has_gathered(tmp_path: Path) -> None:
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    with explorer.watch(log=tmp_path / "a.jsonl") as watch:
        for _ in range(3):
            (w * w).sum().div(2).backward()
    assert [step.layers["w"].norm for step in recorded(tmp_path / "a.jsonl")] == [5.0, 5.0, 5.0]
    assert len(watch.reports) == 3


def test_what_grad_returns_is_recorded(tmp_path: Path) -> None:
    w = torch.tensor([3.0, 4.0], requires_grad=True)
    with explorer.watch(every=2, log=tmp_path / "a.jsonl"):
        w.sum().backward()
        torch.autograd.grad((w * w).sum() / 2, w)
    assert [step.layers["w"].norm for step in recorded(tmp_path / "a.jsonl")] == [1.414214, 5.0]


@pytest.mark.parametrize(
    "tensor",
    [
        torch.tensor([[0.0, -3.0], [4.0, 0.0]]),
        torch.tensor([0.0, -3.0, 4.0] * 100),
        torch.tensor([0.0, -3.0, 4.0] * 100, dtype=torch.bfloat16),
        torch.tensor([0.0, -3.0, 4.0] * 100, dtype=torch.float16) * 1000,
        torch.tensor([1e30, 0.0] * 100),
        torch.tensor([math.inf, 1.0, -math.inf] * 50),
        torch.tensor([math.nan, 1.0, -math.inf] * 50),
        torch.tensor([math.nan, 1.0, -math.inf]),
        torch.zeros(0),
        torch.randn(30, 40).t(),
        torch.ones(1).expand(500),
    ],
)
def test_one_tensor(tensor: torch.Tensor) -> None:
    sums = Sums()
    sums.add("a", tensor)
    found = sums.finish()["a"]
    exact = tensor.double().flatten()
    assert found.elements == exact.numel()
    assert found.zeros == int((exact == 0).sum())
    assert found.nonfinite == int((~exact.isfinite()).sum())
    assert found.norm == pytest.approx(float(exact.norm()), rel=1e-5, nan_ok=True)
    largest = float(exact.abs().max()) if exact.numel() else 0.0
    assert found.largest == pytest.approx(largest, nan_ok=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_what_is_computed_on_a_device(dtype: torch.dtype) -> None:
    """The same numbers by the operations that run there; here they run in memory."""
    for tensor in (torch.tensor([0.0, -3.0, 4.0] * 100), torch.tensor([math.nan, -math.inf, 0.0, 2.0])):
        sums, other = Sums(), Sums()
        sums.add("a", tensor.to(dtype))
        other._device.append(("a", tensor.numel(), _on_device(tensor.to(dtype))))
        there, here = other.finish()["a"], sums.finish()["a"]
        assert there.norm == pytest.approx(here.norm, rel=1e-6, nan_ok=True)
        assert (there.zeros, there.nonfinite, there.elements) == (here.zeros, here.nonfinite, here.elements)
        assert there.largest == pytest.approx(here.largest, nan_ok=True)


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
@pytest.mark.parametrize("columns", [False, True])
def test_zeros_of_a_large_tensor_are_estimated(share: float, columns: bool) -> None:
    """Dead units (whole rows) and dead inputs (whole columns) alike; all and none exactly."""
    tensor = torch.ones(512, 512)
    dead = int(512 * share)
    (tensor.t() if columns else tensor)[:dead] = 0
    sums = Sums()
    sums.add("a", tensor)
    sums.add("b", tensor.t())
    found = sums.finish()
    assert found["a"].zeros == pytest.approx(512 * dead, rel=0.03)
    assert found["b"].zeros == 512 * dead


def test_sparse_and_complex_tensors() -> None:
    numbers = torch.tensor([1.0, 4.0, 2.0])
    sparse = torch.sparse_coo_tensor(torch.tensor([[0, 1, 0]]), numbers, (5,), check_invariants=True)
    sums = Sums()
    sums.add("sparse", sparse)
    sums.add("complex", torch.tensor([3 + 4j, 0j]))
    found = sums.finish()
    assert found["sparse"] == LayerGradient(5.0, 4.0, 3, 0, 5)
    assert (found["complex"].norm, found["complex"].largest) == (5.0, 4.0)


@pytest.mark.parametrize(("broken", "severity"), [(3, "warning"), (6, "error")])
def test_a_bad_gradient_in_a_light_step_is_in_the_last_report(broken: int, severity: str) -> None:
    """The first call that brought it, its layers and its line; an error where it stays bad to the end."""
    model = network()
    with explorer.watch(every=4) as watch:
        train(model, 6, broken)
    assert all(not report.findings for report in watch.reports[:-1])
    (finding,) = watch.report.findings
    assert (finding.code, finding.severity) == ("non-finite-gradient", severity)
    assert f"Backward call {broken} brought" in finding.message
    assert "`5`" in finding.message
    assert f"--call {broken}" in finding.advice
    assert finding.where is not None
    assert finding.where.line == LINE
    assert ("they were finite" in finding.message) == (severity == "warning")


def test_a_healthy_run_has_no_such_finding() -> None:
    with explorer.watch(every=4) as watch:
        train(network(), 6)
    assert watch.report.findings == ()
    assert watch.problems == []


@pytest.mark.parametrize(
    "part", ["explorer.light.collect", "explorer.layers._measured", "explorer.light._loss"]
)
def test_a_fault_of_ours_stays_ours(part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise ArithmeticError("planted")

    monkeypatch.setattr(part, fails)
    w = torch.tensor([1.0, 2.0], requires_grad=True)
    with explorer.watch(every=2) as watch:
        for _ in range(3):
            (w * 3).sum().backward()
    assert w.grad is not None
    assert w.grad.tolist() == [9.0, 9.0]
    assert [report.call for report in watch.reports] == [1, 3]
    assert any("ArithmeticError: planted" in problem for problem in watch.problems)


def test_a_long_run_grows_nothing(tmp_path: Path) -> None:
    """Neither objects nor hooks, from the hundredth call to the four hundredth."""
    model, counts = network(), []
    with explorer.watch(check="off", every=10_000, log=tmp_path / "a.jsonl") as watch:
        for _ in range(8):
            train(model, 50)
            gc.collect()
            counts.append(len(gc.get_objects()))
    assert counts[-1] - counts[1] < 60
    assert watch.calls == 400
    assert all(not parameter._backward_hooks for parameter in model.parameters())
    assert len(recorded(tmp_path / "a.jsonl")) == 400


def test_parameters_that_come_later_are_learnt(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with explorer.watch(every=3, log=tmp_path / "a.jsonl"):
        for call in range(1, 8):
            if call == 3:
                model.append(nn.Linear(2, 1))
            model(torch.ones(1, 2)).sum().backward()
    layers = [set(step.layers) for step in recorded(tmp_path / "a.jsonl")]
    assert layers[0] == {"0"}
    assert layers[-1] == {"0", "1"}


def test_what_cannot_be_asked_for(tmp_path: Path) -> None:
    with pytest.raises(explorer.UsageError, match="whole number from 1"):
        explorer.watch(every=0)
    (tmp_path / "a.jsonl").write_text("mine")
    with pytest.raises(explorer.UsageError, match="no journal"):
        explorer.watch(log=tmp_path / "a.jsonl")


def report_of(call: int, nodes: int = 10, error: str = "") -> Report:
    graph = Graph(tuple(Node(i, "A") for i in range(nodes)), (), ((0, 0),))
    return Report(graph, (None,) * nodes, call=call, error=error)


def test_reports_are_kept_over_the_whole_run() -> None:
    kept = Kept(limit=200)
    for call in range(1, 1001):
        kept.add(report_of(call, error="bad" if call == 77 else ""), Looked())
        assert sum(len(report.graph.nodes) for report, _ in kept.pairs) <= 200
    calls = [report.call for report, _ in kept.pairs]
    assert calls == sorted(calls)
    assert (calls[0], calls[-1], kept.explored) == (1, 1000, 1000)
    assert 77 in calls
    assert len(calls) > 8
    mismatched = Kept(limit=10)
    for call in range(1, 30):
        check = CheckSummary(statuses={"mismatch": 1} if call == 5 else {})
        mismatched.add(replace(report_of(call), check=check), Looked())
    assert 5 in [report.call for report, _ in mismatched.pairs]


def test_few_reports_are_kept_however_large_and_without_a_bound_all() -> None:
    large, all_of_them = Kept(limit=10), Kept()
    for call in range(1, 41):
        large.add(report_of(call, 1000), Looked())
        all_of_them.add(report_of(call, 1000), Looked())
    assert FEWEST // 2 < len(large.pairs) <= FEWEST + WRONG
    assert len(all_of_them.pairs) == 40


def test_a_long_watch_keeps_few_reports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explorer.watching.KEPT_NODES", 60)
    w = torch.ones(2, requires_grad=True)
    with explorer.watch(every=1, check="off") as watch:
        for _ in range(50):
            (w * 2).sum().backward()
    assert watch.explored == 50
    assert [watch.reports[0].call, watch.report.call] == [1, 50]
    assert len(watch.reports) <= 20


def test_the_run_in_one_line() -> None:
    light = Light()
    assert light.summary() == ""
    for call, loss, bad in [(1, 4.0, 0), (2, 3.0, 5), (3, 2.0, 0)]:
        light._note(Step(call, 0, 0, loss, "", False, {"0": LayerGradient(call, 1, 0, bad, 9)}), None, None)
    assert (
        light.summary()
        == "3 backward calls · loss 4 to 2 · gradient 1 to 3 · not finite in 1, first in call 2"
    )


def test_the_progress_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing for a second; then a line that is wiped before the next, and in the end."""
    now = 100.0
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    stream = StringIO()
    shown = ProgressLine(stream)
    step = Step(1234, 0, 0, 0.25, "", False, {"0": LayerGradient(2.0, 1.0, 0, 0, 9)})
    shown.told(step)
    assert stream.getvalue() == ""
    shown.close()
    assert stream.getvalue() == ""
    now = 102.0
    shown.told(step)
    shown.told(step)
    said = "explore: backward call 1,234, loss 0.25, gradient 2, 617/s"
    assert stream.getvalue() == f"\x1b[2K{said}\r"
    shown.close()
    assert stream.getvalue().endswith("\r\x1b[2K")
    assert "NOT FINITE" in line(Step(1, 0, 0, None, "", False, {"0": LayerGradient(math.nan, 1, 0, 1, 9)}), 1)
    stream.close()
    now = 110.0
    shown.told(step)  # a terminal that is gone


def test_light_is_off_unless_asked_for() -> None:
    assert Watch().light is None
    assert Watch(every=2).light is not None
    assert Watch(log="a.jsonl").light is not None
