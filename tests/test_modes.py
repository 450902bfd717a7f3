"""Modes of the user's around a watched training see what they see without the watch, in the same order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

import explorer
from hooks.unseen import unseen


class Operations(TorchDispatchMode):
    """Every operation below autograd."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(str(func))
        return func(*args, **(kwargs or {}))


class Calls(TorchFunctionMode):
    """Every call of torch's Python functions, the reading of attributes included."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.seen.append(getattr(func, "__name__", str(func)))
        return func(*args, **(kwargs or {}))


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 2


def train() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    average, optimizer = torch.zeros(4, 3), torch.optim.Adam(model.parameters())
    weight: Any = next(model.parameters())
    for _ in range(4):
        optimizer.zero_grad()
        inputs = torch.randn(20, 3)
        few = model(inputs[:1])
        few.register_hook(lambda gradient: gradient)
        total = Twice.apply(few.sum())  # type: ignore[no-untyped-call] # torch leaves it untyped
        assert total.data is not total
        with torch.no_grad():
            average.mul_(0.9).add_(weight, alpha=0.1)
            target = model(inputs)
        loss = functional.mse_loss(model(inputs), target + few.detach()) + total * total
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        torch.autograd.grad(model(inputs).sum(), weight)


@pytest.mark.parametrize("mode", [Operations, Calls])
def test_a_backward_of_our_own_is_not_seen_either(mode: Any) -> None:
    x = torch.randn(5, 3, requires_grad=True)
    loss = (x.tanh() @ torch.randn(3, 2)).square().mean()
    with mode() as around:
        report = explorer.explore(loss)
        graph = explorer.walk(loss)
        words = str(explorer.why(x, loss))
    assert around.seen == []
    assert len(report.graph.nodes) == len(graph.nodes) == 5
    assert report.check.statuses == {"match": 5}
    assert words


def test_an_interrupt_leaves_the_modes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted() -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("hooks.unseen._disable_current_modes", interrupted)
    with Operations() as operations, Calls() as calls:
        with pytest.raises(KeyboardInterrupt), unseen():
            pass
        torch.ones(2).neg()
    assert "aten.neg.default" in operations.seen
    assert "neg" in calls.seen


WATCHES: dict[str, Callable[[Path], Any]] = {
    "sample": lambda folder: explorer.watch(),
    "off": lambda folder: explorer.watch(check="off"),
    "full": lambda folder: explorer.watch(check="full"),
    "every": lambda folder: explorer.watch(every=3, log=folder / "run.jsonl"),
}


@pytest.mark.parametrize("mode", [Operations, Calls])
@pytest.mark.parametrize("name", WATCHES)
@pytest.mark.parametrize("outside", [True, False])
def test_a_mode_sees_nothing_of_ours(name: str, mode: Any, outside: bool, tmp_path: Path) -> None:
    with mode() as plain:
        train()
    watched = mode()
    around, within = (watched, nullcontext()) if outside else (nullcontext(), watched)
    with around, WATCHES[name](tmp_path) as watch, within:
        train()
    assert watched.seen == plain.seen
    assert watch.problems == []
    assert watch.reports
    assert all(not report.problems for report in watch.reports)


def test_fake_tensors_are_walked_and_never_read() -> None:
    """``data_ptr()`` of a fake tensor's slice is not 0: reading there ended the process."""
    with FakeTensorMode(), warnings.catch_warnings():
        warnings.simplefilter("error")
        embedding, cell = nn.Embedding(10, 6), nn.LSTM(6, 5, batch_first=True)
        hidden, _ = cell(embedding(torch.randint(10, (3, 8))))
        loss = hidden[:, 1:].relu().cumsum(1).sum() + hidden[1:, 2:, 3:].square().mean()
        report = explorer.explore(loss)
        with explorer.watch() as watch:
            (loss * 2).backward()
    for one in (report, watch.report):
        assert one.problems == ()
        assert one.error == ""
        assert one.check.statuses == {"unchecked": len(one.graph.nodes)}
        assert all(ran is not None for ran in one.gradients)
    assert watch.problems == []
