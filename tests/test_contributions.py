"""What each path through tensors brings, against the chain rule written out in torch."""

from __future__ import annotations

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import explorer
from explorer import chains
from explorer.errors import ExplorerError


def norms(loss: torch.Tensor, x: torch.Tensor) -> list[float | None]:
    return [path.norm for path in explorer.paths(loss, x)]


def test_each_path_brings_its_own_term() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    found = norms((x * x + torch.sin(x)).sum(), x)
    # d(x·x) is x twice, once per factor, and d(sin x) = cos x
    value = x.detach()
    assert found == pytest.approx([value.norm().item()] * 2 + [value.cos().norm().item()], rel=1e-6)


def test_a_residual_block_has_the_skip_and_the_way_through() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    loss = (x + (x @ w).relu()).sum()
    skip = torch.ones(3, 4)
    through = (x.detach() @ w.detach() > 0).float() @ w.detach().T
    assert sorted(norms(loss, x)) == pytest.approx(sorted([skip.norm().item(), through.norm().item()]))
    assert "brings a gradient of norm" in str(explorer.paths(loss, x))
    loss.backward()  # and the graph stayed usable
    torch.testing.assert_close(x.grad, skip + through)


def test_nodes_with_several_outputs() -> None:
    x = torch.arange(6.0, requires_grad=True)
    left, right = x.split(3)
    found = norms((left.sum() * 2 + (right * right).sum()), x)
    value = torch.arange(6.0)[3:].norm().item()
    assert found == pytest.approx(sorted([2 * 3**0.5, value, value], reverse=True), rel=1e-6)


def test_a_custom_function_is_not_run_by_itself() -> None:
    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:
            return 2 * g

    x = torch.ones(2, requires_grad=True)
    (norm,) = norms(Twice.apply(x).sum(), x)  # type: ignore[no-untyped-call] # torch leaves it untyped
    assert norm is None or norm == pytest.approx(2 * 2**0.5)


def test_several_roots_are_summed() -> None:
    x = torch.tensor(3.0, requires_grad=True)
    report = explorer.explore(x * x, 5 * x)
    found = chains.paths(report, chains.target_of(report, "x"))
    assert (found.count, found.total) == (3, 11.0)
    assert sorted(path.contribution or 0.0 for path in found) == [3.0, 3.0, 5.0]


def test_generators_are_left_as_they_were() -> None:
    x = torch.ones(4, requires_grad=True)
    loss = checkpoint(lambda y: torch.nn.functional.dropout(y * y, 0.5), x, use_reentrant=False).sum()
    before = torch.get_rng_state()
    explorer.paths(loss, x)
    assert torch.equal(torch.get_rng_state(), before)


def test_too_many_paths_are_counted_and_not_run() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x
    for _ in range(20):
        y = y + y
    found = explorer.paths(y.sum(), x, limit=5)
    assert found.count == 2**20
    assert [path.norm for path in found] == [None] * 5


def test_an_input_changed_in_place_after_it_was_saved_is_told() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x.exp()
    loss = y.sum()
    y.data.mul_(1)  # unseen by torch, harmless
    assert norms(loss, x) == pytest.approx([x.detach().exp().norm().item()])
    with torch.no_grad():
        y.mul_(2)
    assert norms(loss, x) == [None]


def test_a_vector_or_a_constant_is_answered() -> None:
    x = torch.ones(3, requires_grad=True)
    assert norms(x * 2, x) == pytest.approx([2 * 3**0.5])  # begins with ones, as the sum would
    with pytest.raises(ExplorerError):
        explorer.paths((x * 2).sum(), torch.ones(3))
    with pytest.raises(ExplorerError):
        explorer.paths(torch.ones(()), x)
