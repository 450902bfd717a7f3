"""Finite differences of the user's Functions: wrong ones are told, deliberate ones are left alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from hooks.evidence import Collector
from hooks.functions import WrongFunction


def function(forward: Any, backward: Any) -> Any:
    def run(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        out: torch.Tensor = forward(x)
        return out

    def back(ctx: Any, grad: torch.Tensor) -> Any:
        return backward(grad, *ctx.saved_tensors)

    members = {"forward": staticmethod(run), "backward": staticmethod(back)}
    return type("Planted", (torch.autograd.Function,), members)


def compare(kind: Any) -> list[WrongFunction]:
    with Collector() as collector:
        kind.apply(torch.tensor([0.3, -1.2, 2.5], requires_grad=True)).sum().backward()
    return collector.functions.compare()


def test_a_wrong_factor() -> None:
    (wrong,) = compare(function(lambda x: x * x, lambda g, x: g * 3 * x))
    assert wrong.factor == pytest.approx(1.5)


def test_a_missing_gradient() -> None:
    (wrong,) = compare(function(lambda x: x * x, lambda g, x: None))
    assert wrong.missing


@pytest.mark.parametrize(
    ("forward", "backward"),
    [
        (lambda x: x * x, lambda g, x: g * 2 * x),
        (lambda x: x.round(), lambda g, x: g),  # straight through
        (lambda x: (x > 0).to(x.dtype), lambda g, x: g / (1 + x.abs()) ** 2),  # a surrogate gradient
        (lambda x: x.view_as(x), lambda g, x: -g),  # reversal
        (lambda x: x.clone(), lambda g, x: g.clamp(-1, 1)),  # clipping
        (lambda x: x.relu(), lambda g, x: g * (x > 0)),
        (lambda x: x * torch.rand(()), lambda g, x: g),  # does not repeat itself
    ],
)
def test_right_and_deliberate_ones(forward: Any, backward: Any) -> None:
    assert compare(function(forward, backward)) == []


def test_everything_is_put_back_even_when_the_block_raises() -> None:
    before = (vars(torch.autograd.Function)["apply"], torch.Tensor.detach, "detach" in vars(torch.Tensor))
    with pytest.raises(KeyError):
        _raise_inside()
    assert before == (
        vars(torch.autograd.Function)["apply"],
        torch.Tensor.detach,
        "detach" in vars(torch.Tensor),
    )


def _raise_inside() -> None:
    with Collector():
        assert "detach" in vars(torch.Tensor)
        raise KeyError
