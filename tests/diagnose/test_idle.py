"""Gradients that nobody uses: what was planted is told, and what merely looks like it is not.

No line here may read a gradient by its name: a file that does is given the benefit of the doubt.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional

import explorer
from explorer.report import Finding

Loop = Callable[[], None]
CODES = {"unoptimized-parameter", "step-never-called"}


def said(loop: Loop) -> list[Finding]:
    torch.manual_seed(0)
    with explorer.watch(check="off") as watch:
        loop()
    assert watch.problems == []
    return [one for report in watch.reports for one in report.findings if one.code in CODES]


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, calls: int = 5) -> None:
    for _ in range(calls):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).pow(2).mean().backward()
        optimizer.step()


def sgd(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD([one for module in modules for one in module.parameters()], lr=0.01)


HEALTHY: dict[str, Loop] = {}


def healthy(loop: Loop) -> Loop:
    HEALTHY[loop.__name__] = loop
    return loop


@healthy
def a_generator_step_reaches_the_critic() -> None:
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    of_generator, of_critic = sgd(generator), sgd(critic)
    for _ in range(5):
        fake = generator(torch.randn(8, 2))
        of_critic.zero_grad()
        (critic(fake.detach()) - critic(torch.randn(8, 4))).mean().backward()
        of_critic.step()
        of_generator.zero_grad()
        (-critic(fake)).mean().backward()
        of_generator.step()


@healthy
def a_critic_trained_for_longer_than_the_run() -> None:
    """The generator's optimizer clears what the critic's loss sent it, and its first step is yet to come."""
    generator, critic = nn.Linear(2, 4), nn.Linear(4, 1)
    of_generator, of_critic = sgd(generator), sgd(critic)
    for _ in range(5):
        of_critic.zero_grad()
        of_generator.zero_grad()
        critic(generator(torch.randn(8, 2))).mean().backward()
        of_critic.step()


@healthy
def a_teacher_frozen_only_by_detach() -> None:
    student = nn.Linear(4, 1)
    teacher = copy.deepcopy(student)
    optimizer = sgd(student)
    for _ in range(5):
        x = torch.randn(8, 4)
        optimizer.zero_grad()
        functional.mse_loss(student(x), teacher(x).detach()).backward()
        optimizer.step()


@healthy
def the_backbone_unfrozen_later() -> None:
    backbone, head = nn.Linear(4, 4), nn.Linear(4, 1)
    model = nn.Sequential(backbone, head)
    fit(model, sgd(head), 5)
    fit(model, sgd(backbone, head), 2)


@healthy
def a_gradient_collected_for_another_purpose() -> None:
    """Gradient norms of a part that is not trained: whoever reads them clears them."""
    watched, held = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = sgd(held)
    norms = []
    for _ in range(5):
        optimizer.zero_grad()
        watched.zero_grad()
        held(watched(torch.randn(8, 4))).pow(2).mean().backward()
        norms.append(nn.utils.clip_grad_norm_(watched.parameters(), 1e9))
        optimizer.step()


@healthy
def adversarial_examples() -> None:
    model = nn.Linear(4, 2)
    optimizer = sgd(model)
    for _ in range(5):
        x = torch.randn(8, 4, requires_grad=True)
        optimizer.zero_grad()
        functional.cross_entropy(model(x), torch.zeros(8, dtype=torch.long)).backward()


@healthy
def a_scaler_that_skips_every_step() -> None:
    model = nn.Linear(4, 1)
    optimizer = sgd(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)
    for _ in range(5):
        optimizer.zero_grad()
        scaler.scale(model(torch.randn(8, 4) * 100).pow(2).mean()).backward()
        scaler.step(optimizer)
        scaler.update()


@healthy
def accumulation_over_the_whole_run() -> None:
    model = nn.Linear(4, 1)
    optimizer = sgd(model)
    optimizer.zero_grad()
    for _ in range(6):
        model(torch.randn(8, 4)).pow(2).mean().backward()


@healthy
def a_head_that_the_optimizer_keeps_for_later() -> None:
    """One head is in use, the other waits: both belong to the model."""
    trunk = nn.ModuleDict({"body": nn.Linear(4, 4), "first": nn.Linear(4, 1), "second": nn.Linear(4, 1)})
    optimizer = sgd(trunk)
    for _ in range(5):
        optimizer.zero_grad()
        trunk["first"](trunk["body"](torch.randn(8, 4))).pow(2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler")
def test_nothing_is_said_where_gradients_are_used(name: str) -> None:
    assert said(HEALTHY[name]) == []


def test_a_network_that_only_judges_is_an_info() -> None:
    """A perceptual loss whose network was put in eval mode and not frozen: true, and meant."""
    judge, model = nn.Sequential(nn.Linear(4, 4)).eval(), nn.Linear(4, 4)
    (finding,) = said(lambda: fit(nn.Sequential(model, judge), sgd(model)))
    assert (finding.code, finding.severity) == ("unoptimized-parameter", "info")
    assert "requires_grad_(False)" in finding.advice


def test_an_optimizer_of_an_earlier_model() -> None:
    def loop() -> None:
        model = nn.Linear(4, 1)
        optimizer = sgd(model)
        model = nn.Linear(4, 1)
        fit(model, optimizer)

    (finding,) = said(loop)
    assert (finding.code, finding.severity) == ("unoptimized-parameter", "error")
    assert finding.message == (
        "`weight`, `bias` get gradients, but no optimizer holds them: "
        "instead it holds 2 tensors that belong to no module."
    )


def test_a_single_parameter_left_out() -> None:
    temperature = nn.Parameter(torch.tensor(1.0))
    model = nn.Linear(4, 1)
    optimizer = sgd(model)

    def loop() -> None:
        for _ in range(5):
            optimizer.zero_grad()
            (model(torch.randn(8, 4)) * temperature.exp()).pow(2).mean().backward()
            optimizer.step()

    (finding,) = said(loop)
    assert (finding.severity, finding.message.partition(":")[0]) == (
        "warning",
        "`temperature` gets a gradient, but no optimizer holds it",
    )


def test_zero_grad_is_put_back() -> None:
    original = torch.optim.Optimizer.zero_grad
    with explorer.watch():
        assert torch.optim.Optimizer.zero_grad is not original
    assert torch.optim.Optimizer.zero_grad is original


def forgetful(model: nn.Module, optimizer: torch.optim.Optimizer, calls: int) -> None:
    for _ in range(calls):
        optimizer.zero_grad()
        model(torch.randn(8, 4)).pow(2).mean().backward()


@pytest.mark.parametrize(("calls", "count"), [(4, 1), (3, 0)])
def test_nobody_steps(calls: int, count: int) -> None:
    """The first call finds nothing to clear: four of them throw gradients away three times."""
    model = nn.Linear(4, 1)
    found = said(lambda: forgetful(model, sgd(model), calls))
    assert [(one.code, one.severity) for one in found] == [("step-never-called", "warning")] * count


def test_another_optimizer_that_steps_is_doubt_enough() -> None:
    model, other = nn.Linear(4, 1), nn.Linear(4, 1)

    def loop() -> None:
        forgetful(model, sgd(model), 5)
        fit(other, sgd(other))

    assert said(loop) == []
