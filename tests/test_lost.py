"""Where a loss lost its graph, when backward refuses it: the line where that is certain, else nothing."""

from __future__ import annotations

from collections.abc import Callable
from inspect import getsourcelines
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import explorer


def parts() -> tuple[nn.Module, torch.optim.Optimizer, Tensor, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    return model, torch.optim.SGD(model.parameters(), 0.1), torch.randn(6, 4), torch.randint(0, 3, (6,))


def argmax() -> None:
    model, _optimizer, x, y = parts()
    for _ in range(2):
        pred = model(x)
        pred = torch.argmax(pred, dim=1)  # LOST
        loss = ((pred - y).float() ** 2).mean()
        loss.backward()


def argmax_of_what_is_at_hand() -> None:
    model, _optimizer, x, y = parts()
    loss = F.mse_loss(model(x).softmax(1).argmax(1).float(), y.float())  # LOST
    loss.backward()


def accuracy() -> None:
    model, _optimizer, x, y = parts()
    out = model(x)
    _, pred = torch.max(out, 1)  # LOST
    loss = 1 - (pred == y).float().mean()
    loss.backward()


def threshold() -> None:
    model, _optimizer, x, _y = parts()
    logits = model(x)
    wrong = (torch.sigmoid(logits) > 0.5).float()  # LOST
    wrong.mean().backward()


def detached() -> None:
    model, _optimizer, x, _y = parts()
    out = model(x).detach()  # LOST
    loss = out.pow(2).mean()
    loss.backward()


def in_a_block() -> None:
    model, _optimizer, x, _y = parts()
    with torch.no_grad():
        out = model(x)  # LOST
    F.mse_loss(out, torch.zeros(6, 3)).backward()


@torch.no_grad()
def predict(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)  # type: ignore[no-any-return] # a module's call is untyped


def in_another_function() -> None:
    model, _optimizer, x, _y = parts()
    out = predict(model, x)
    loss = out.mean()
    loss.backward()


def numbers() -> None:
    model, _optimizer, x, _y = parts()
    losses = [model(x).mean(), model(x).pow(2).mean()]
    loss = torch.tensor([one.item() for one in losses]).sum()
    loss.backward()


def copied() -> None:
    model, _optimizer, x, _y = parts()
    losses = [model(x).mean(), model(x).pow(2).mean()]
    loss = torch.tensor(losses).sum()  # LOST
    loss.backward()


def a_target_and_the_culprit() -> None:
    model, _optimizer, x, _y = parts()
    target = model(x).detach()
    out = model(x).argmax(1, keepdim=True)
    loss = (out - target).pow(2).mean()
    loss.backward()


def a_teacher_beside_the_culprit() -> None:
    model, optimizer, _x, _y = parts()
    optimizer.zero_grad()
    teacher = nn.Linear(4, 3)
    x = torch.randn(6, 4)
    with torch.no_grad():
        target = teacher(x).argmax(1)
    out = model(x).argmax(1)  # LOST
    loss = (out - target).float().pow(2).mean()
    loss.backward()


def lost_by_a_function_of_the_users() -> None:
    model, _optimizer, x, y = parts()

    def through_numpy(t: Tensor) -> Tensor:
        return torch.from_numpy(np.array(t.tolist(), dtype=np.float32))

    target = model(x).detach()
    out = through_numpy(model(x))
    loss = (out - target).pow(2).mean() + y.sum()
    loss.backward()


def either() -> None:
    model, _optimizer, x, _y = parts()
    out = model(x)
    if len(x) > 100:
        out = out.detach()
    elif len(x) > 2:
        out = out.argmax(1).float()
    out.mean().backward()


def frozen() -> None:
    model, _optimizer, x, y = parts()
    model.requires_grad_(False)
    weights = (y == 1).float()
    loss = (model(x).mean(1) * weights).mean()
    loss.backward()


def all_under_no_grad() -> None:
    model, _optimizer, x, y = parts()
    with torch.no_grad():
        pred = model(x).argmax(1)
        (pred - y).float().mean().backward()


def within_the_model() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return torch.from_numpy(np.array(self.fc(x).tolist(), dtype=np.float32))

    model, x = Net(), torch.randn(6, 4)
    torch.optim.SGD(model.parameters(), 0.1)
    target = model(x).argmax(1)
    out = model(x)
    F.cross_entropy(out, target).backward()


CERTAIN = (
    argmax,
    argmax_of_what_is_at_hand,
    accuracy,
    threshold,
    detached,
    in_a_block,
    copied,
    a_teacher_beside_the_culprit,
)
UNSURE = (
    numbers,
    a_target_and_the_culprit,
    lost_by_a_function_of_the_users,
    either,
    frozen,
    all_under_no_grad,
    within_the_model,
)


def told(step: Callable[[], None]) -> list[str]:
    with explorer.watch() as watch, pytest.raises(RuntimeError, match="does not require grad"):
        step()
    assert not any("failed" in one for one in watch.problems)
    return [one for one in watch.problems if "it was cut" in one]


def marked(step: Callable[[], None]) -> int:
    lines, first = getsourcelines(step)
    (line,) = [first + place for place, line in enumerate(lines) if "# LOST" in line]
    return line


@pytest.mark.filterwarnings(
    "ignore:Converting a tensor with requires_grad=True"
)  # torch's own word on `copied`
@pytest.mark.parametrize("step", CERTAIN, ids=lambda step: step.__name__)
def test_the_line_is_named(step: Callable[[], None]) -> None:
    (sentence,) = told(step)
    assert f"{Path(__file__).name}:{marked(step)} `" in sentence


def test_the_line_of_another_function_is_named() -> None:
    (sentence,) = told(in_another_function)
    assert "`return model(x)" in sentence


@pytest.mark.parametrize("step", UNSURE, ids=lambda step: step.__name__)
def test_what_is_not_certain_is_not_told(step: Callable[[], None]) -> None:
    assert told(step) == []
