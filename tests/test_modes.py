"""Modes of the user's around a watched training see what they see without the watch, in the same order."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, ClassVar

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


class Own(torch.Tensor):
    """A class of the user's that is told of every call on its tensors, the reading of attributes included."""

    seen: ClassVar[list[str]] = []

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(getattr(func, "__name__", str(func)))
        return super().__torch_function__(func, types, args, kwargs or {})  # type: ignore[no-untyped-call] # torch leaves it untyped


def train(kind: type[torch.Tensor] = torch.Tensor) -> None:
    """A little of everything, on inputs and a weight of class `kind`."""
    torch.manual_seed(0)
    first = nn.Linear(3, 4)
    first.weight = nn.Parameter(first.weight.detach().as_subclass(kind))
    model = nn.Sequential(first, nn.ReLU(), nn.Linear(4, 1))
    average, optimizer = torch.zeros(4, 3), torch.optim.Adam(model.parameters())
    weight: Any = next(model.parameters())
    for _ in range(4):
        optimizer.zero_grad()
        inputs = torch.randn(20, 3).as_subclass(kind)
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


def test_a_class_of_tensors_is_not_asked_by_a_backward_of_our_own() -> None:
    x = nn.Parameter(torch.randn(5, 3).as_subclass(Own))
    loss = (x.tanh() @ torch.randn(3, 2)).square().mean()
    Own.seen.clear()
    report = explorer.explore(loss)
    graph = explorer.walk(loss)
    words = str(explorer.why(x, loss)) + str(explorer.paths(loss, x))
    assert Own.seen == []
    assert len(report.graph.nodes) == len(graph.nodes) == 9  # torch makes an alias of each result
    assert report.check.statuses == {"match": 9}
    assert words


class Doubled(torch.Tensor):
    """Products with it are twice as large."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            return result * 2 if func in {torch.Tensor.mul, torch.Tensor.__mul__} else result


class ByDoubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        ctx.scale = scale
        return x * 1.0

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return (ctx.scale * gradients[0]).as_subclass(torch.Tensor), None


def test_a_class_of_tensors_is_asked_by_the_users_own_formulas() -> None:
    """A backward of our own runs his Functions as his backward does."""
    x = torch.ones(3, requires_grad=True)
    scale = torch.full((3,), 5.0).as_subclass(Doubled)
    loss = ByDoubled.apply(x, scale).sum()  # type: ignore[no-untyped-call] # torch leaves it untyped
    (plain,) = torch.autograd.grad(loss, x, retain_graph=True)
    report = explorer.explore(loss, check="off")
    leaf = next(node.id for node in report.graph.nodes if node.kind == "leaf")
    record = report.gradient(leaf)
    assert record is not None
    assert record.values == tuple(plain.tolist()) == (10.0, 10.0, 10.0)


class Scaled(torch.autograd.Function):
    """Correct: a doubled 5 makes 10 of every 1."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return (torch.full((3,), 5.0, dtype=x.dtype).as_subclass(Doubled) * x).as_subclass(torch.Tensor)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        return gradients[0] * 10


@pytest.mark.parametrize("watched", [True, False])
def test_a_function_that_uses_a_class_of_the_users_is_not_accused(watched: bool) -> None:
    """Its forward is run again for finite differences, and has to compute what it computed."""
    x = torch.ones(3, requires_grad=True, dtype=torch.float64)
    if watched:
        with explorer.watch() as watch:
            Scaled.apply(x).sum().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        report = watch.report
    else:
        report = explorer.explore(Scaled.apply(x).sum())  # type: ignore[no-untyped-call] # torch leaves it untyped
    assert report.check.statuses == {"match": 3}
    assert report.findings == ()


@pytest.mark.parametrize("name", WATCHES)
def test_a_class_of_tensors_is_not_asked_by_us(name: str, tmp_path: Path) -> None:
    Own.seen.clear()
    train(Own)
    plain = list(Own.seen)
    Own.seen.clear()
    with WATCHES[name](tmp_path) as watch:
        train(Own)
    assert Own.seen == plain
    assert len(plain) > 100
    assert watch.reports
    assert Own.seen == plain
    assert watch.problems == []
    assert all(not report.problems for report in watch.reports)


def test_an_interrupt_leaves_classes_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    guard = torch._C.DisableTorchFunctionSubclass

    class Interrupted:
        """As if Ctrl-C came right after the guard was entered."""

        def __init__(self) -> None:
            self.guard = guard()

        def __enter__(self) -> None:
            self.guard.__enter__()
            raise KeyboardInterrupt

        def __exit__(self, *raised: object) -> None:
            self.guard.__exit__(None, None, None)

    Own.seen.clear()
    with monkeypatch.context() as patches:
        patches.setattr(torch._C, "DisableTorchFunctionSubclass", Interrupted)
        with pytest.raises(KeyboardInterrupt), unseen():
            pass
    torch.ones(2).as_subclass(Own).neg()
    assert Own.seen == ["neg"]


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
