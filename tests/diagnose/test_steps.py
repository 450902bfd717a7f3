"""What is told when the run is over: steps without gradients, and what died inside a function before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn

import explorer
from explorer.report import Finding
from hooks import steps as module
from hooks.steps import Steps

Loop = Callable[[], None]


def said(loop: Loop) -> list[Finding]:
    torch.manual_seed(0)
    with explorer.watch(check="off") as watch:
        loop()
    assert watch.problems == []
    return [finding for report in watch.reports for finding in report.findings]


def train(model: nn.Module, between: Callable[[torch.optim.Optimizer], object], steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).pow(2).mean().backward()
        between(optimizer)
        optimizer.step()


def test_gradients_cleared_before_each_step() -> None:
    (finding,) = said(lambda: train(nn.Linear(3, 1), lambda optimizer: optimizer.zero_grad()))
    assert (finding.code, finding.severity) == ("step-without-gradient", "error")
    assert finding.message.endswith(
        "was taken 3 times and never met a gradient: `weight.grad` was None each time, "
        "though backward reaches `weight`."
    )
    assert finding.where is not None
    assert finding.where.code == "optimizer.step()"


@pytest.mark.parametrize("held", [True, False])
def test_a_lazy_module_that_never_ran(held: bool) -> None:
    """Its parameters have no shape yet, and torch raises when asked: they are told like any others."""
    model = nn.ModuleDict({"used": nn.Linear(3, 1), "lazy": nn.LazyLinear(2)})
    optimizer = torch.optim.SGD((model if held else model["used"]).parameters(), lr=0.1)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = model

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            found: torch.Tensor = self.parts["used"](x)
            return found

    net = Net()

    def loop() -> None:
        for _ in range(3):
            optimizer.zero_grad()
            net(torch.randn(8, 3)).pow(2).mean().backward()
            optimizer.step()

    (finding,) = said(loop)
    assert (finding.code, finding.severity) == ("unreached-parameter", "error" if held else "warning")
    assert "`parts.lazy` never ran" in finding.message


def test_a_parameter_whose_memory_was_given_back_is_not_read() -> None:
    """As FSDP does between uses: the steps of others are followed all the same, and nobody is accused."""
    other, model = nn.Linear(3, 1), nn.Linear(3, 1)
    other.weight.untyped_storage().resize_(0)
    idle = torch.optim.SGD([other.weight], lr=0.1)
    parted = torch.optim.SGD([other.bias], lr=0.1)

    def step(optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        idle.step()
        parted.step()
        other.bias.untyped_storage().resize_(0)

    assert "step-without-gradient" in [one.code for one in said(lambda: train(model, step))]


def closures() -> None:
    model, x = nn.Linear(3, 1), torch.randn(8, 3)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=2)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss: torch.Tensor = model(x).pow(2).mean()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.zero_grad()
        optimizer.step(closure)


def stepped_by_hand() -> None:
    """An optimizer that only clears: the parameters are changed by hand."""
    model = nn.Linear(3, 1)

    def update(optimizer: torch.optim.Optimizer) -> None:
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter.data -= 0.1 * parameter.grad
        optimizer.zero_grad()

    train(model, update)


def first_step_without() -> None:
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.step()
    optimizer.step()
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(8, 3)).pow(2).mean().backward()
        optimizer.step()


def skipped_once() -> None:
    steps: list[int] = []

    def clear_the_first(optimizer: torch.optim.Optimizer) -> None:
        steps.append(0)
        if len(steps) == 1:
            optimizer.zero_grad()

    train(nn.Linear(3, 1), clear_the_first)


@pytest.mark.parametrize("loop", [closures, stepped_by_hand, first_step_without, skipped_once])
def test_healthy_steps(loop: Loop) -> None:
    assert [finding for finding in said(loop) if finding.severity != "info"] == []


class Cut(nn.Module):
    def __init__(self, cut: bool) -> None:
        super().__init__()
        self.encoder, self.head, self.cut = nn.Linear(3, 4), nn.Linear(4, 1), cut

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.encoder(x)
        if self.cut:
            h = torch.tanh(h.detach() * 2)
        out: torch.Tensor = self.head(h)
        return out


def test_a_model_that_is_gone_when_the_run_is_over_is_judged_all_the_same() -> None:
    (finding,) = said(lambda: train(Cut(True), lambda optimizer: None, steps=6))
    assert finding.code == "unreached-parameter"
    assert finding.message.startswith("`encoder.weight`, `encoder.bias` are not in the graph of ")
    assert finding.where is not None
    assert finding.where.code == "h = torch.tanh(h.detach() * 2)"
    assert said(lambda: train(Cut(False), lambda optimizer: None, steps=6)) == []


def test_what_is_reached_late_and_then_gone_is_innocent() -> None:
    """The second of two models is reached by the sixth call only, after the notes of the first four."""

    def loop() -> None:
        first, second = nn.Linear(3, 1), nn.Linear(3, 1)
        optimizer = torch.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
        for step in range(6):
            optimizer.zero_grad()
            x = torch.randn(8, 3)
            second(x)
            (first(x) + (second(x) if step == 5 else 0)).pow(2).mean().backward()
            optimizer.step()

    assert said(loop) == []


def test_a_teacher_stays_innocent_when_all_models_are_gone() -> None:
    def loop() -> None:
        student, teacher = nn.Linear(3, 1), nn.Linear(3, 1)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        for _ in range(6):
            x = torch.randn(8, 3)
            optimizer.zero_grad()
            (student(x) - teacher(x).detach()).pow(2).mean().backward()
            optimizer.step()

    assert [finding for finding in said(loop) if finding.severity == "error"] == []
    assert [finding.code for finding in said(loop) if finding.code == "cut-graph"] == []


def test_stale_gradients_of_a_model_that_is_gone_keep_their_name() -> None:
    def loop() -> None:
        model = nn.Linear(3, 1)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        for _ in range(3):
            model(torch.randn(8, 3)).pow(2).mean().backward()
            optimizer.step()

    (finding,) = said(loop)
    assert finding.message.startswith("`weight.grad` still holds")


class Listed(nn.Module):
    """Two layers kept as `keep` says, and a head."""

    def __init__(self, keep: Callable[[list[nn.Module]], object]) -> None:
        super().__init__()
        self.layers, self.head = keep([nn.Linear(3, 3) for _ in range(2)]), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        layers: list[nn.Module] = list(self.layers)  # type: ignore[call-overload]  # a list of either kind
        for layer in layers:
            x = torch.tanh(layer(x))
        out: torch.Tensor = self.head(x)
        return out


def test_layers_in_a_plain_list_are_never_trained() -> None:
    (finding,) = said(lambda: train(Listed(list), lambda optimizer: None))
    assert (finding.code, finding.severity) == ("unlisted-module", "warning")
    assert finding.message.startswith(
        "2 `Linear` modules inside `Listed`, with 4 parameters that get gradients"
    )
    assert finding.where is not None
    assert finding.where.code == "x = torch.tanh(layer(x))"
    assert said(lambda: train(Listed(nn.ModuleList), lambda optimizer: None)) == []


def test_unlisted_layers_that_an_optimizer_holds_or_that_are_frozen_are_innocent() -> None:
    def loop(frozen: bool) -> None:
        model = Listed(list)
        hidden = [p for layer in list(model.layers) for p in layer.parameters()]  # type: ignore[arg-type, attr-defined]  # plain
        for parameter in hidden:
            parameter.requires_grad_(not frozen)
        optimizer = torch.optim.SGD([*model.parameters(), *([] if frozen else hidden)], lr=0.1)
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.randn(8, 3)).pow(2).mean().backward()
            optimizer.step()

    assert said(lambda: loop(False)) == []
    assert said(lambda: loop(True)) == []


def test_one_step_is_not_judged() -> None:
    assert said(lambda: train(nn.Linear(3, 1), lambda optimizer: optimizer.zero_grad(), steps=1)) == []


def test_another_thread_may_end_what_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = Steps()
    gradient = module._gradient

    def meanwhile(used: module._Used) -> torch.Tensor | None:
        steps._used.clear()
        gradient(used)
        return None

    monkeypatch.setattr(module, "_gradient", meanwhile)
    weight = torch.ones(2, requires_grad=True)
    weight.sum().backward()
    for look in (steps.before_backward, steps.after_backward):
        followed = module._follow(weight)
        assert followed is not None
        steps._used[id(weight)] = followed
        look()
        assert not steps._used
