"""Training as people write it past ``torch.optim``: whose gradients are used is not told of as unused.

This file reads gradients by name, so `step-never-called` has its cases in `test_idle`.
"""

from __future__ import annotations

import copy
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim.sgd import sgd as functional_sgd
from torch.optim.swa_utils import AveragedModel

import explorer
from explorer.report import Finding

Loop = Callable[[], None]
CODES = {"unoptimized-parameter", "step-never-called"}
HEALTHY: dict[str, Loop] = {}


def healthy(loop: Loop) -> Loop:
    HEALTHY[loop.__name__] = loop
    return loop


def said(loop: Loop) -> list[Finding]:
    torch.manual_seed(0)
    with explorer.watch(check="off") as watch:
        loop()
    assert watch.problems == []
    return [one for report in watch.reports for one in report.findings if one.code in CODES]


def sgd(*modules: nn.Module, lr: float = 0.01) -> torch.optim.Optimizer:
    return torch.optim.SGD([one for module in modules for one in module.parameters()], lr=lr)


def loss_of(*modules: nn.Module) -> torch.Tensor:
    result: torch.Tensor = nn.Sequential(*modules)(torch.randn(8, 4))
    return result.pow(2).mean()


def manual(parameters: Iterable[torch.Tensor], lr: float = 0.01) -> None:
    for parameter in parameters:
        if parameter.grad is not None:
            parameter.data -= lr * parameter.grad


@healthy
def optimizers_in_a_cycle() -> None:
    """One of four has not had its turn when the run is over."""
    layers = [nn.Linear(4, 4) for _ in range(4)]

    class Turns:
        def __init__(self) -> None:
            self.optimizers = [sgd(layer) for layer in layers]

    turns = Turns()
    for _, optimizer in zip(range(3), itertools.cycle(turns.optimizers), strict=False):
        loss_of(*layers).backward()
        optimizer.step()


@healthy
def thawed_bit_by_bit() -> None:
    layers = [nn.Linear(4, 4) for _ in range(3)]
    optimizer = sgd(layers[-1])
    for step in range(9):
        if step % 4 == 3:
            optimizer.add_param_group({"params": list(layers[1 - step // 4].parameters())})
        optimizer.zero_grad()
        loss_of(*layers).backward()
        optimizer.step()


@healthy
def part_of_it_by_hand_and_never_cleared() -> None:
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = sgd(head)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(body, head).backward()
        optimizer.step()
        manual(body.parameters())


@healthy
def an_embedding_by_hand_whose_first_rows_never_occur() -> None:
    table, head = nn.Embedding(50, 32), nn.Linear(32, 1)
    optimizer = sgd(head)
    for _ in range(5):
        optimizer.zero_grad()
        head(table(torch.tensor([30, 31, 40]))).pow(2).mean().backward()
        optimizer.step()
        manual(table.parameters())


@healthy
def an_update_without_gradient_tracking() -> None:
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = sgd(head)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(body, head).backward()
        optimizer.step()
        with torch.no_grad():
            body.weight[3] -= 1e-12 * (body.weight.grad[3] if body.weight.grad is not None else 0)
            body.bias -= 0


class Orthogonal:
    """An optimizer of somebody's own that is no torch.optim.Optimizer."""

    def __init__(self, parameters: Iterable[torch.Tensor], every: int = 1) -> None:
        self.groups = [{"params": list(parameters), "lr": 0.01}]
        self.every, self.seen = every, 0

    def step(self) -> None:
        self.seen += 1
        if self.seen % self.every == 0:
            for group in self.groups:
                manual(group["params"])  # type: ignore[arg-type]  # a list of tensors


@healthy
def an_optimizer_of_ones_own_for_the_matrices() -> None:
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    matrices, rest = Orthogonal([body.weight]), torch.optim.Adam([body.bias, *head.parameters()])
    for _ in range(5):
        rest.zero_grad()
        loss_of(body, head).backward()
        rest.step()
        matrices.step()


@healthy
def an_optimizer_of_ones_own_that_accumulates_for_longer() -> None:
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    slow, fast = Orthogonal(body.parameters(), every=8), sgd(head)
    for _ in range(5):
        fast.zero_grad()
        loss_of(body, head).backward()
        fast.step()
        slow.step()


class Wrapped:
    """As accelerate and apex have it: another object's step, skipped while gradients accumulate."""

    def __init__(self, optimizer: torch.optim.Optimizer, every: int) -> None:
        self.optimizer, self.every, self.calls = optimizer, every, 0

    def step(self) -> None:
        self.calls += 1
        if self.calls % self.every == 0:
            self.optimizer.step()
            self.optimizer.zero_grad()


@healthy
def wrapped_optimizers_of_different_pace() -> None:
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    wrapped = [Wrapped(sgd(head), 1), Wrapped(sgd(body), 16)]
    for _ in range(6):
        loss_of(body, head).backward()
        for one in wrapped:
            one.step()


@pytest.mark.parametrize("rate", [0.01, 0.0])
def test_master_weights(rate: float) -> None:
    """Steps too small for bfloat16, at the beginning of a warm-up, leave the model as it was."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1)).to(torch.bfloat16)

    def loop() -> None:
        masters = [one.detach().float().requires_grad_() for one in model.parameters()]
        optimizer = torch.optim.SGD(masters, lr=rate)
        for _ in range(5):
            model(torch.randn(8, 4, dtype=torch.bfloat16)).float().pow(2).mean().backward()
            for master, one in zip(masters, model.parameters(), strict=True):
                master.grad = one.grad.float() if one.grad is not None else None
                one.grad = None
            optimizer.step()
            optimizer.zero_grad()
            for master, one in zip(masters, model.parameters(), strict=True):
                one.data = master.detach().to(torch.bfloat16)

    assert said(loop) == []


@healthy
def averaged_weights() -> None:
    model = nn.Linear(4, 1)
    average = AveragedModel(model)
    optimizer = sgd(model)
    for _ in range(5):
        optimizer.zero_grad()
        (loss_of(model) + loss_of(average)).backward()
        optimizer.step()
        average.update_parameters(model)


@healthy
def a_teacher_that_follows_and_still_requires_gradients() -> None:
    student = nn.Linear(4, 1)
    teacher = copy.deepcopy(student)
    optimizer = sgd(student)
    for _ in range(5):
        optimizer.zero_grad()
        x = torch.randn(8, 4)
        (student(x) - teacher(x)).pow(2).mean().add(student(x).mean()).backward()
        optimizer.step()
        with torch.no_grad():
            for slow, fast in zip(teacher.parameters(), student.parameters(), strict=True):
                slow.lerp_(fast, 0.01)


@healthy
def federated_clients() -> None:
    server = nn.Linear(4, 1)
    clients = [copy.deepcopy(server) for _ in range(2)]
    optimizer = sgd(server)
    for _ in range(5):
        for client in clients:
            client.load_state_dict(server.state_dict())
            loss_of(client).backward()
        for place, parameter in enumerate(server.parameters()):
            grads = [list(client.parameters())[place].grad for client in clients]
            parameter.grad = torch.stack([one for one in grads if one is not None]).mean(0)
        optimizer.step()


@healthy
def fisher_information_between_two_tasks() -> None:
    model = nn.Linear(4, 1)
    optimizer = sgd(model)
    for _ in range(4):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
    fisher = [torch.zeros_like(one) for one in model.parameters()]
    for _ in range(6):
        model.zero_grad()
        loss_of(model).backward()
        for total, one in zip(fisher, model.parameters(), strict=True):
            total += one.grad.pow(2) if one.grad is not None else 0


@healthy
def optimizers_in_the_backward() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    optimizers = {one: torch.optim.SGD([one], lr=0.01) for one in model.parameters()}

    def hook(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()  # type: ignore[index]  # what it was registered on
        optimizers[parameter].zero_grad()  # type: ignore[index]  # the same

    for one in model.parameters():
        one.register_post_accumulate_grad_hook(hook)
    for _ in range(5):
        loss_of(model).backward()


@healthy
def a_closure() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        return loss.item()

    for _ in range(2):
        optimizer.step(closure)


@healthy
def workers_that_take_turns() -> None:
    """Without the lock torch itself crashes: the engine sets ``.grad`` without the interpreter's."""
    model, turn = nn.Linear(4, 1), threading.Lock()

    def work() -> None:
        optimizer = sgd(model)
        for _ in range(4):
            with turn:
                optimizer.zero_grad()
                loss_of(model).backward()
                optimizer.step()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()


@healthy
def a_shard_of_the_optimizer() -> None:
    """As ZeRO has it: this rank steps its own shard, the others come over the wire."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 1))
    mine, others = list(model.parameters())[::2], list(model.parameters())[1::2]
    optimizer = torch.optim.SGD(mine, lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()
        for one in others:
            one.data.copy_(one.data - 1e-3)


@healthy
def a_step_that_was_patched() -> None:
    body, head = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer, other = sgd(body), sgd(head)
    optimizer.step = lambda: manual(body.parameters())  # type: ignore[method-assign,assignment]  # as users do
    for _ in range(5):
        optimizer.zero_grad()
        other.zero_grad()
        loss_of(body, head).backward()
        optimizer.step()
        other.step()


@healthy
def a_functional_optimizer() -> None:
    model = nn.Linear(4, 1)
    for _ in range(5):
        loss_of(model).backward()
        parameters = list(model.parameters())
        gradients = [p.grad for p in parameters if p.grad is not None]
        rates = {"lr": 0.01, "momentum": 0.0, "weight_decay": 0.0, "dampening": 0.0}
        with torch.no_grad():
            functional_sgd(parameters, gradients, [None] * 2, nesterov=False, maximize=False, **rates)  # type: ignore[arg-type]


@healthy
def a_profiled_loop_of_a_generator() -> None:
    model = nn.Linear(4, 1)
    optimizer = sgd(model)

    def losses() -> Iterator[float]:
        while True:
            optimizer.zero_grad()
            loss = loss_of(model)
            loss.backward()
            with torch.profiler.record_function("step"):
                optimizer.step()
            yield loss.item()

    with torch.profiler.profile():
        assert len(list(itertools.islice(losses(), 5))) == 5


@healthy
def a_part_of_a_run_without_its_steps() -> None:
    """A watch that sees only what is measured, in a training that went on before."""
    model = nn.Linear(4, 1)
    optimizer = torch.optim.Adam(model.parameters())
    for _ in range(5):
        optimizer.zero_grad()
        loss_of(model).backward()
        optimizer.step()


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.filterwarnings("ignore:Profiler")
def test_nothing_is_said_where_gradients_are_used(name: str) -> None:
    assert said(HEALTHY[name]) == []


def test_heads_without_an_optimizer_are_told_with_true_words() -> None:
    trunk, heads = nn.Linear(4, 4), nn.ModuleList(nn.Linear(4, 1) for _ in range(2))
    optimizer = sgd(trunk)

    def loop() -> None:
        for _ in range(5):
            optimizer.zero_grad()
            middle = trunk(torch.randn(8, 4))
            total: Any = sum(head(middle).pow(2).mean() for head in heads)
            total.backward()
            optimizer.step()

    (finding,) = said(loop)
    assert (finding.code, finding.severity) == ("unoptimized-parameter", "warning")
    assert finding.message.endswith("they never change, and their gradients only add up.")
