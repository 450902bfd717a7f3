"""The healthy zoo: no error and no warning, for every kind of model and training loop people use."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import explorer
from explorer.report import BAD_STATUSES

Loop = Callable[[], None]
ZOO: dict[str, Loop] = {}


def healthy(loop: Loop) -> Loop:
    ZOO[loop.__name__] = loop
    return loop


def train(model: nn.Module, x: torch.Tensor, y: torch.Tensor, steps: int = 3) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        functional.mse_loss(model(x), y).backward()
        optimizer.step()


def stack(activation: type[nn.Module], depth: int, init: Callable[[torch.Tensor], object]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for _ in range(depth):
        linear = nn.Linear(32, 32)
        init(linear.weight)
        layers += [linear, activation()]
    return nn.Sequential(*layers, nn.Linear(32, 1))


class Residual(nn.Module):
    def __init__(self, norm: bool = False) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(32, 32), nn.Linear(32, 32)
        self.norm = nn.LayerNorm(32) if norm else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(torch.relu(self.first(self.norm(x))))


class ConvBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.conv2, self.bn2 = nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.relu(x + self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x))))))


@healthy
def kaiming_relu() -> None:
    train(stack(nn.ReLU, 20, nn.init.kaiming_normal_), torch.randn(64, 32), torch.randn(64, 1))


@healthy
def tanh() -> None:
    train(stack(nn.Tanh, 20, nn.init.xavier_normal_), torch.randn(64, 32), torch.randn(64, 1))


@healthy
def residual() -> None:
    model = nn.Sequential(*[Residual() for _ in range(10)], nn.Linear(32, 1))
    train(model, torch.randn(64, 32), torch.randn(64, 1))


@healthy
def transformer() -> None:
    layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(32, 1))
    train(model, torch.randn(8, 6, 32), torch.randn(8, 6, 1))


@healthy
def resnet() -> None:
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
    model = nn.Sequential(nn.Conv2d(3, 8, 3), *[ConvBlock() for _ in range(6)], head)
    train(model, torch.randn(8, 3, 32, 32), torch.randn(8, 4))


@healthy
def lstm() -> None:
    rnn, head = nn.LSTM(8, 16), nn.Linear(16, 1)
    optimizer = torch.optim.Adam([*rnn.parameters(), *head.parameters()])
    for _ in range(3):
        optimizer.zero_grad()
        out, _ = rnn(torch.randn(20, 16, 8))
        head(out[-1]).pow(2).mean().backward()
        optimizer.step()


@healthy
def truncated_recurrence() -> None:
    cell, head = nn.GRUCell(4, 8), nn.Linear(8, 1)
    optimizer = torch.optim.SGD([*cell.parameters(), *head.parameters()], lr=0.1)
    state = torch.zeros(16, 8)
    for _ in range(6):
        state = cell(torch.randn(16, 4), state.detach())
        optimizer.zero_grad()
        head(state).pow(2).mean().backward()
        optimizer.step()


@healthy
def gan() -> None:
    generator = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 8))
    critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Linear(16, 1))
    of_generator = torch.optim.Adam(generator.parameters())
    of_critic = torch.optim.Adam(critic.parameters())
    ones, zeros = torch.ones(16, 1), torch.zeros(16, 1)
    for _ in range(4):
        fake = generator(torch.randn(16, 4))
        of_critic.zero_grad()
        loss = functional.binary_cross_entropy_with_logits
        (loss(critic(torch.randn(16, 8)), ones) + loss(critic(fake.detach()), zeros)).backward()
        of_critic.step()
        of_generator.zero_grad()
        loss(critic(fake), ones).backward()
        of_generator.step()


@healthy
def accumulation() -> None:
    model = nn.Linear(4, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    running = 0.0
    for step in range(12):
        loss = model(torch.randn(8, 4)).pow(2).mean() / 4
        loss.backward()
        running += loss.item()
        if step % 4 == 3:
            optimizer.step()
            optimizer.zero_grad(set_to_none=step > 6)


@healthy
def clearing_by_data() -> None:
    w = torch.randn(3, requires_grad=True)
    optimizer = torch.optim.SGD([w], lr=0.1)
    for _ in range(4):
        w.pow(2).sum().backward()
        optimizer.step()
        assert w.grad is not None
        w.grad.data.zero_()


@healthy
def frozen_backbone() -> None:
    backbone, head = nn.Sequential(nn.Linear(8, 16), nn.ReLU()), nn.Linear(16, 2)
    backbone.requires_grad_(False)
    optimizer = torch.optim.SGD(head.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        functional.cross_entropy(head(backbone(torch.randn(16, 8))), torch.randint(0, 2, (16,))).backward()
        optimizer.step()


@healthy
def masked_loss() -> None:
    model = nn.Linear(4, 6)
    mask = torch.rand(16, 6) > 0.5
    for _ in range(2):
        model.zero_grad()
        (model(torch.randn(16, 4)).pow(2) * mask).sum().div(mask.sum()).backward()


@healthy
def scaled_precision() -> None:
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    scaler = torch.amp.GradScaler("cpu")
    for _ in range(3):
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.float16):
            loss = model(torch.randn(32, 8)).float().pow(2).mean()
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()


@healthy
def checkpointing() -> None:
    block, head = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)), nn.Linear(8, 1)
    optimizer = torch.optim.SGD([*block.parameters(), *head.parameters()], lr=0.1)
    for reentrant in (False, True):
        optimizer.zero_grad()
        x = torch.randn(16, 8, requires_grad=True)
        head(checkpoint(block, x, use_reentrant=reentrant)).pow(2).mean().backward()
        optimizer.step()


@healthy
def weight_tying() -> None:
    table = nn.Embedding(20, 8)
    decoder = nn.Linear(8, 20, bias=False)
    decoder.weight = table.weight
    optimizer = torch.optim.SGD(table.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        tokens = torch.randint(0, 20, (16,))
        functional.cross_entropy(decoder(table(tokens)), tokens).backward()
        optimizer.step()


@healthy
def multi_task() -> None:
    trunk, first, second = nn.Linear(8, 16), nn.Linear(16, 1), nn.Linear(16, 3)
    optimizer = torch.optim.SGD([*trunk.parameters(), *first.parameters(), *second.parameters()], lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        h = torch.tanh(trunk(torch.randn(16, 8)))
        losses = [first(h).pow(2).mean(), functional.cross_entropy(second(h), torch.randint(0, 3, (16,)))]
        for loss in losses:
            loss.backward(retain_graph=True)
        total = sum(losses)
        assert isinstance(total, torch.Tensor)
        optimizer.step()


@healthy
def teacher_and_straight_through() -> None:
    student = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    teacher = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
    for _ in range(3):
        x = torch.randn(32, 4)
        with torch.no_grad():
            target = teacher(x)
        out = student(x)
        out = out + (out.round() - out).detach()
        optimizer.zero_grad()
        functional.mse_loss(out, target).backward()
        optimizer.step()


@healthy
def value_learning() -> None:
    online = nn.Linear(4, 2)
    target = copy.deepcopy(online)
    optimizer = torch.optim.SGD(online.parameters(), lr=0.1)
    for _ in range(3):
        wanted = target(torch.randn(16, 4)).max(dim=1).values.detach()
        optimizer.zero_grad()
        functional.mse_loss(online(torch.randn(16, 4)).max(dim=1).values, wanted).backward()
        optimizer.step()


@healthy
def closures() -> None:
    model = nn.Linear(3, 1)
    x, y = torch.randn(16, 3), torch.randn(16, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = functional.mse_loss(model(x), y)
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)


@healthy
def second_order() -> None:
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(4):
        x = torch.randn(16, 3, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        optimizer.zero_grad()
        (slope.norm(dim=1) - 1).pow(2).mean().backward()
        optimizer.step()


@healthy
def optimizer_in_backward() -> None:
    model = nn.Linear(4, 1)
    optimizers = {p: torch.optim.SGD([p], lr=0.1) for p in model.parameters()}

    def step(parameter: torch.Tensor) -> None:
        optimizers[parameter].step()
        optimizers[parameter].zero_grad()

    handles = [p.register_post_accumulate_grad_hook(step) for p in model.parameters()]
    for _ in range(4):
        model(torch.randn(8, 4)).pow(2).mean().backward()
    for handle in handles:
        handle.remove()


@healthy
def trained_then_loaded() -> None:
    """A second model is given the trained weights, and asked with gradients enabled."""
    model, loaded = nn.Linear(3, 1), nn.Linear(3, 1)
    train(model, torch.randn(8, 3), torch.randn(8, 1))
    loaded.load_state_dict(model.state_dict())
    assert loaded(torch.ones(1, 3)).requires_grad
    model(torch.randn(8, 3)).pow(2).mean().backward()


@healthy
def sparse_adjacency() -> None:
    """Gradients of several layouts pass through one graph."""
    places, values = torch.randint(0, 20, (2, 60)), torch.rand(60, requires_grad=True)
    features = torch.randn(20, 6)
    adjacency = torch.sparse_coo_tensor(places, values, (20, 20))
    (torch.sparse.mm(adjacency, features).pow(2).sum() + torch.sparse.sum(adjacency)).backward()


@healthy
def forces_only() -> None:
    """The energy's own offset drops out of its derivative: the last bias never gets a gradient."""
    energy = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(energy.parameters())
    for _ in range(3):
        x = torch.randn(20, 3, requires_grad=True)
        (force,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
        optimizer.zero_grad()
        (force + x.detach()).pow(2).mean().backward()
        optimizer.step()


@healthy
def hessian_of_a_network() -> None:
    """torch.func's forward mode makes zeros without memory; the outer backward runs through them."""
    model = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1))
    second = torch.func.vmap(torch.func.hessian(lambda point: model(point).squeeze()))
    second(torch.randn(5, 3)).diagonal(dim1=1, dim2=2).sum(-1).pow(2).mean().backward()


@healthy
def steps_by_hand() -> None:
    by_hand, held = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(held.parameters(), lr=0.01)
    for _ in range(5):
        optimizer.zero_grad()
        held(by_hand(torch.randn(8, 4))).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            for one in by_hand.parameters():
                assert one.grad is not None
                one -= 0.01 * one.grad


@healthy
def gradients_measured_by_a_function_of_autograd() -> None:
    model, held = nn.Linear(4, 4), nn.Linear(4, 1)
    optimizer = torch.optim.SGD(held.parameters(), lr=0.01)
    for _ in range(5):
        torch.autograd.grad(model(torch.randn(8, 4)).sum(), list(model.parameters()))
        optimizer.zero_grad()
        held(torch.randn(8, 4)).pow(2).mean().backward()
        optimizer.step()


@pytest.mark.parametrize("name", ZOO)
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch.func's own, when imported
def test_nothing_is_said_of_a_healthy_model(name: str) -> None:
    torch.manual_seed(0)
    with explorer.watch(check="sample") as watch:
        ZOO[name]()
    said = [
        (report.call, finding.code, finding.severity, finding.message)
        for report in watch.reports
        for finding in report.findings
        if finding.severity != "info"
    ]
    assert said == []
    assert watch.reports
    assert not any(report.check.statuses.get(bad) for report in watch.reports for bad in BAD_STATUSES)
    assert watch.problems == []
    assert [problem for report in watch.reports for problem in report.problems] == []
