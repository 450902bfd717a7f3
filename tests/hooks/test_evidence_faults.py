"""A fault in the collector of evidence is told, and never reaches the user's step or backward."""

from __future__ import annotations

import pytest
import torch

import explorer
from hooks import steps
from hooks.evidence import Collector


class PlantedError(Exception):
    pass


def train() -> list[float]:
    torch.manual_seed(0)
    model = torch.nn.Linear(2, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.ones(3, 2)).square().sum().backward()
        optimizer.step()
    return [float(value) for value in model.weight.detach().flatten()]


def planted(*_: object) -> None:
    raise PlantedError("planted")


@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (steps, "_follow"),
        (steps, "_parameters"),
        (steps.Steps, "before_backward"),
        (steps.Steps, "after_backward"),
        (Collector, "reached"),
    ],
)
def test_the_training_goes_on(owner: object, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train()
    monkeypatch.setattr(owner, name, planted)
    with explorer.watch() as watch:
        found = train()
    assert found == expected
    told = [problem for report in watch.reports for problem in report.problems]
    assert any("PlantedError: planted" in problem for problem in told) or name == "reached"
