"""Scalar graphs as formulas."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import explorer
from explorer.render.expression import expressions

Formula = Callable[[Tensor, Tensor, Tensor], Tensor]


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        (lambda w, x, b: torch.tanh(w * x + b), "tanh(w · x + const)"),
        (lambda w, x, b: torch.tanh(b - w * x), "tanh(const − w · x)"),
        (lambda w, x, b: torch.tanh(b + x) * w, "tanh(const + x) · w"),
        (lambda w, x, b: torch.tanh(1 - w * x), "tanh(const − w · x)"),
        (lambda w, x, b: b / torch.tanh(w - x), "const / tanh(w − x)"),
    ],
    ids=["plus", "from a tensor", "plus, slot by slot", "from a number", "divided"],
)
def test_a_constant_that_was_not_saved_keeps_its_place(formula: Formula, said: str) -> None:
    w, x = (torch.tensor(value, requires_grad=True) for value in (0.3, 0.7))
    report = explorer.explore(formula(w, x, torch.tensor(0.2)))
    assert expressions(report)[report.graph.roots[0][0]] == said
