"""Numeric gradients of an explored backward: they agree where torch is right, and only there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from explorer import pipeline
from explorer.comparison import agrees, told
from explorer.names import collect
from explorer.quotients import largest
from explorer.render import json
from explorer.report import Quotients
from explorer.script import load
from explorer.watching import Watch
from tests.arithmetic.test_rules import CASES


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        yield


def quotients_of(*roots: Tensor) -> Quotients:
    watch = Watch(numeric=True)
    watch.explore(roots, collect(scopes=[{}]))
    report = watch.report
    assert report.problems == ()
    assert report.quotients is not None
    return report.quotients


def agree(found: Quotients, exact: float = 1e-9, numeric: float = 1e-4) -> bool:
    known = [row for row in found.rows if row.numeric is not None]
    return not found.problem and len(known) > 0 and all(agrees(row, exact, numeric) for row in known)


@pytest.mark.parametrize("name", CASES)
def test_every_operation_is_replayed(name: str) -> None:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        out = CASES[name][2]()
        found = quotients_of((out * torch.randn(out.shape)).sum())
    finally:
        torch.set_default_dtype(before)
    assert found.problem == ""
    assert agree(found), told(found)
    assert sum(row.numeric is not None for row in found.rows) >= 3
    assert all(row.engine is not None for row in found.rows)


MODELS: dict[str, Callable[[], Tensor]] = {
    "a convolutional network": lambda: nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )(torch.randn(5, 1, 8, 8)).logsumexp(1).sum(),
    "a transformer layer": lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)(
        torch.randn(2, 5, 8)
    ).square().mean(),
    "dropout": lambda: nn.Sequential(nn.Linear(6, 6), nn.Dropout(0.5), nn.Tanh())(torch.randn(4, 6)).sum(),
    "a GRU": lambda: nn.GRU(3, 4)(torch.randn(3, 2, 3))[0].square().sum(),
    "an added constant": lambda: (nn.Linear(6, 6)(torch.randn(4, 6)) + torch.randn(4, 6)).sin().prod(),
    "a mask": lambda: (nn.Linear(6, 6)(torch.randn(6, 6)) + torch.full((6, 6), -torch.inf).triu(1))
    .softmax(-1).square().sum(),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_whole_models_in_float32(name: str) -> None:
    found = quotients_of(MODELS[name]())
    assert found.problem == ""
    assert agree(found, 1e-3, 1e-2), told(found)


def test_a_gradient_that_a_hook_changed_differs() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x.exp()
    y.register_hook(lambda gradient: gradient * 1.01)
    found = quotients_of(y.sum())
    assert not agree(found, 1e-3, 1e-3)
    assert "DIFFER" in told(found)


def test_at_a_kink_there_is_no_quotient() -> None:
    x = torch.tensor([0.0, 2.0, -2.0], requires_grad=True)
    found = quotients_of((x.abs() + x).sum())
    rows = {row.name.partition("[")[2]: row.numeric for row in found.rows}
    assert rows["0]"] is None
    assert rows["1]"] == pytest.approx(2.0)
    assert "1 of the quotients did not settle" in found.notes[0]


def test_when_time_runs_out_every_leaf_had_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = torch.randn(5, requires_grad=True), torch.randn(5, requires_grad=True)
    ticks = iter(range(100))
    monkeypatch.setattr("explorer.quotients.perf_counter", lambda: float(next(ticks)))
    monkeypatch.setattr("explorer.quotients.SECONDS", 2.0)
    found = quotients_of((a.sin() * b).sum())
    assert len({row.name.partition("[")[0] for row in found.rows}) == len(found.rows) == 2
    assert any("4 elements were left out" in note for note in found.notes)


def test_what_cannot_be_run_again_is_refused_with_its_reason(tmp_path: Path) -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return 2 * grads[0]

    x = torch.ones(70, requires_grad=True)
    assert "TwiceBackward" in quotients_of(Twice.apply(x).sum()).problem  # type: ignore[no-untyped-call] # torch leaves it untyped
    assert "was not saved" in quotients_of((x * 3 + torch.randn(70)).sum()).problem
    hidden = torch.where(torch.ones(70) > 0, x, torch.randn(70))
    assert "was not saved" in quotients_of(hidden.sum()).problem


def test_a_wrong_guess_of_what_was_not_saved_is_noticed() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    normal = nn.functional.layer_norm(x, (8,), eps=0.5)
    assert "something it depends on was not saved" in quotients_of(normal.square().sum()).problem


def test_a_script_and_its_own_gradient(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import torch\n"
        "w = torch.tensor([1.0, 2.0], requires_grad=True)\n"
        "y = w * w\n"
        "y.backward(torch.tensor([1.0, 10.0]))\n"
        "first = w.grad.clone()\n"
        "state = torch.get_rng_state().sum().item()\n"
    )
    program = load(str(tmp_path / "script.py"))
    exploration = pipeline.explore_script(program, numeric=True)
    (report,) = exploration.session.reports
    assert report.quotients is not None
    assert [(row.name, row.pytorch) for row in report.quotients.rows] == [("w[0]", 2.0), ("w[1]", 40.0)]
    assert [row.numeric for row in report.quotients.rows] == pytest.approx([2.0, 40.0], rel=1e-6)
    assert exploration.outcome.namespace["first"].tolist() == [2.0, 40.0]
    read = json.loads(json.dumps(report)).reports[0]
    assert read.quotients == report.quotients


def test_the_largest_elements_are_chosen() -> None:
    gradient = torch.tensor([[1.0, -5.0], [float("nan"), 3.0]])
    assert largest(gradient) == {(0, 0): 1.0, (0, 1): -5.0, (1, 1): 3.0}
    assert largest(torch.tensor(2.0)) == {(): 2.0}
    assert largest(torch.zeros(0)) == {}
