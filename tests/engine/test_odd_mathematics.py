"""Healthy mathematics that once raised a false alarm, stopped a check, or had no rule."""

from __future__ import annotations

import cmath
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import explorer
from explorer.convert import leaf_of
from explorer.engine.rounding import rounding_of
from explorer.engine.rules.spectral import fourier, transformed_all
from explorer.engine.run import Run
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


@pytest.mark.parametrize("size", [1, 2, 3, 4, 6, 8, 12, 25, 30, 49, 64, 97, 210, 512])
@pytest.mark.parametrize("sign", [1, -1])
def test_fourier_sums_of_any_length(size: int, sign: int) -> None:
    torch.manual_seed(size)
    x = torch.randn(size, dtype=torch.complex128)
    roots = [cmath.exp(sign * 2j * cmath.pi * k / size) for k in range(size)]
    found = torch.tensor(fourier(x.tolist(), roots), dtype=torch.complex128)
    places = torch.outer(torch.arange(size), torch.arange(size)) % size
    summed = torch.tensor(roots, dtype=torch.complex128)[places] @ x
    assert torch.allclose(found, summed, rtol=0, atol=1e-13 * float(x.norm()))


def test_large_transforms_take_no_step_for_each_pair_of_elements() -> None:
    """256 x 256: pairs along lines would be 33 million steps for one element."""
    g = torch.fft.fft2(torch.randn(2, 256, 256)).to(torch.complex64)
    run = Run(rounding_of(["float32"]))
    values = transformed_all(leaf_of(g), (1, 2), 1).at([(1,), (3,), (7,)], 1, run)[0]
    assert run.work < 3_000_000
    expected = torch.fft.ifft2(g, norm="forward")[1, 3, 7]
    assert abs(values[0] - complex(expected)) < 1e-4 * float(g[1].norm())


@pytest.mark.parametrize("size", [(8191,), (3, 2048, 2048)])
def test_transforms_too_long_for_pure_python_are_unchecked(size: tuple[int, ...]) -> None:
    x = torch.randn(size, requires_grad=True)
    report = explorer.explore(torch.fft.fftn(x).real.sum())
    (node,) = (one.id for one in report.graph.nodes if one.name.startswith("Fft"))
    assert report.verdicts[node].status == "unchecked"
    assert "takes too long in pure Python" in report.verdicts[node].reason
