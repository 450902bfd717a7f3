"""No false alarm on the custom Functions that people write: layers, surrogates, reversed gradients."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.autograd import Function

import explorer


class HandRelu(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        found = g.clone()
        found[x < 0] = 0
        return found


class HandLinear(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        found = x.mm(weight.t())
        if bias is not None:
            found += bias
        return found

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        x, weight, bias = ctx.saved_tensors
        return g.mm(weight), g.t().mm(x), None if bias is None else g.sum(0)


class HandNorm(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        scale = (x.var(-1, keepdim=True, unbiased=False) + 1e-5).rsqrt()
        normal = (x - x.mean(-1, keepdim=True)) * scale
        ctx.save_for_backward(normal, weight, scale)
        return normal * weight

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        y, weight, scale = ctx.saved_tensors
        gw = g * weight
        dx = scale * (gw - gw.mean(-1, keepdim=True) - y * (gw * y).mean(-1, keepdim=True))
        return dx, (g * y).sum(0)


class HandCrossEntropy(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, labels: Tensor) -> Tensor:
        p = x.softmax(-1)
        ctx.save_for_backward(p, labels)
        return -p.gather(1, labels[:, None]).log().mean()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        p, labels = ctx.saved_tensors
        found = p.clone()
        found[torch.arange(len(labels)), labels] -= 1
        return g * found / len(labels), None


class HandSort(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        values, index = x.sort()
        ctx.save_for_backward(index)
        ctx.mark_non_differentiable(index)
        return values, index

    @staticmethod
    def backward(ctx: Any, g: Tensor, _: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        return torch.zeros_like(g).scatter(-1, index, g)


class SineAndCosine(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        ctx.set_materialize_grads(False)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx: Any, a: Tensor | None, b: Tensor | None) -> Tensor | None:
        (x,) = ctx.saved_tensors
        found = None if a is None else a * x.cos()
        part = None if b is None else -b * x.sin()
        return part if found is None else found if part is None else found + part


class Reversed(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:
        return -ctx.factor * g, None


class WithAuxiliaryLoss(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, auxiliary: Tensor) -> Tensor:
        ctx.save_for_backward(auxiliary)
        return x

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        (auxiliary,) = ctx.saved_tensors
        return g, torch.ones_like(auxiliary)


class Spike(Function):
    @staticmethod
    def forward(ctx: Any, v: Tensor) -> Tensor:
        ctx.save_for_backward(v)
        return (v > 1).to(v.dtype)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:
        (v,) = ctx.saved_tensors
        return g / (1 + 10 * (v - 1).abs()) ** 2


class LearntStep(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, step: Tensor) -> Tensor:
        ctx.save_for_backward(x, step)
        return (x / step).round().clamp(-8, 7) * step

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        x, step = ctx.saved_tensors
        q = x / step
        inside = (q >= -8) & (q <= 7)
        return g * inside, (g * torch.where(inside, q.round() - q, q.clamp(-8, 7))).sum().reshape(step.shape)


def normal(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


MATCHING: dict[str, Callable[[], Any]] = {
    "relu": lambda: HandRelu.apply(normal(8, 8)),
    "relu with zeros": lambda: HandRelu.apply(normal(8, 8).round()),
    "linear": lambda: HandLinear.apply(normal(64, 300), normal(20, 300), normal(20)),
    "linear without bias": lambda: HandLinear.apply(normal(64, 300), normal(20, 300)),
    "norm, far from zero": lambda: HandNorm.apply(normal(40, 64) * 100 + 1000, normal(64)),
    "cross entropy": lambda: HandCrossEntropy.apply(normal(64, 100) * 5, torch.arange(64)),
    "sort": lambda: HandSort.apply(normal(50))[0],
    "one of two outputs": lambda: SineAndCosine.apply(normal(9))[1],
}

EXCUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "reversed": (lambda: Reversed.apply(normal(5), 2.0), "returns its input"),
    "auxiliary loss": (lambda: WithAuxiliaryLoss.apply(normal(5), normal(1)), "returns its input"),
    "spike": (lambda: Spike.apply(normal(50)), "is a step"),
    "learnt step": (
        lambda: LearntStep.apply(normal(50), torch.tensor([0.1], requires_grad=True)),
        "is a step",
    ),
}


@pytest.fixture(params=[torch.float32, torch.float64], ids=str, autouse=True)
def _default_dtype(request: pytest.FixtureRequest) -> Any:
    before = torch.get_default_dtype()
    torch.set_default_dtype(request.param)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


def verdict_of(program: Callable[[], Any]) -> Any:
    with explorer.watch() as watch:
        program().square().sum().backward()
    (node,) = (node for node in watch.report.graph.nodes if node.kind == "custom")
    return watch.report.verdicts[node.id]


@pytest.mark.parametrize("name", MATCHING)
def test_a_healthy_function_matches(name: str) -> None:
    found = verdict_of(MATCHING[name])
    assert found.status == "match", found
    assert found.ratio < 0.1


@pytest.mark.parametrize("name", EXCUSED)
def test_a_backward_that_differs_on_purpose_is_excused(name: str) -> None:
    program, reason = EXCUSED[name]
    found = verdict_of(program)
    assert found.status == "unchecked"
    assert reason in found.reason
