"""Healthy mathematics that once raised a false alarm, stopped a check, or had no rule."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import explorer
from explorer.report import Report

HALVES = (torch.float16, torch.bfloat16)


def statuses(report: Report) -> set[str]:
    """What the check says of the nodes."""
    assert report.problems == ()
    return {verdict.status for verdict in report.verdicts}


def sparse_rows(dtype: torch.dtype, seed: int) -> Tensor:
    """Rows whose products become subnormal in float16, or overflow; some hold a zero or two."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(12, 9, dtype=torch.float64, generator=generator) * (1, 0.05, 4, 1e-3)[seed % 4]
    if seed % 3 == 0:
        x[seed % 12, seed % 9] = 0
    if seed % 6 == 0:
        x[seed % 12, (seed + 2) % 9] = 0
    return x.to(dtype).requires_grad_()


PRODUCTS: dict[str, Callable[[Tensor], Tensor]] = {
    "prod of rows": lambda x: x.prod(1).sum(),
    "prod of columns": lambda x: x.prod(0, keepdim=True).square().sum(),
    "prod": lambda x: x.prod(),
    "cumprod": lambda x: x.cumprod(1).sum(),
}


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32])
@pytest.mark.parametrize("name", PRODUCTS)
def test_products_that_the_dtype_hardly_holds(name: str, dtype: torch.dtype) -> None:
    for seed in range(24):
        found = statuses(explorer.explore(PRODUCTS[name](sparse_rows(dtype, seed)), check="full"))
        assert found <= {"match", "overflow", "unchecked"}, seed


def test_a_wrong_product_in_half_precision_is_still_found() -> None:
    x = torch.tensor([[1.5, -2.0, 0.5, 0.25]], dtype=torch.float16, requires_grad=True)
    y = x.prod(1)
    y.grad_fn.register_hook(lambda sent, _: (sent[0] * 1.01,))  # type: ignore[union-attr]  # y has one
    assert "mismatch" in statuses(explorer.explore(y.sum(), check="full"))


@pytest.mark.parametrize("spread", [torch.std, lambda x: torch.std_mean(x)[0]])
def test_a_deviation_whose_double_overflows(spread: Callable[[Tensor], Tensor]) -> None:
    x = torch.tensor([6e4, -6e4, 0.0, 0.0, 1.0], dtype=torch.float16, requires_grad=True)
    assert statuses(explorer.explore(spread(x), check="full")) <= {"match", "overflow"}
    assert float(x.detach().float().std()) * 2 > 65504


def test_the_logarithm_of_an_empty_sum() -> None:
    z = torch.zeros(3, 0, requires_grad=True)
    loss = z.logsumexp(1).nan_to_num(neginf=0.0).sum()
    assert statuses(explorer.explore(loss, check="full")) <= {"match", "unchecked"}


@pytest.mark.parametrize("function", [torch.igamma, torch.igammac])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_incomplete_gamma(function: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype) -> None:
    order = torch.tensor([0.2, 0.5, 1.0, 2.0, 7.5, 40.0], dtype=dtype)[:, None]
    x = torch.tensor([1e-3, 0.4, 1.0, 3.0, 20.0, 60.0], dtype=dtype, requires_grad=True)
    assert statuses(explorer.explore(function(order, x).sum(), check="full")) == {"match"}


@pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated"
)  # forward_ad compiles its decompositions
def test_backward_through_a_forward_derivative() -> None:
    x, w = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3, requires_grad=True)
    with forward_ad.dual_level():
        out = F.linear(forward_ad.make_dual(x, torch.ones_like(x)), w).sin()
        tangent = forward_ad.unpack_dual(out).tangent
        assert tangent is not None
        report = explorer.explore(tangent.square().sum(), check="full")
    assert "Identity" in {node.name for node in report.graph.nodes}
    assert statuses(report) == {"match"}
