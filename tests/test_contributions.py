"""What each path through tensors brings, against the chain rule written out in torch."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import explorer
from explorer import chains, pipeline
from explorer.errors import ExplorerError
from explorer.script import load


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


def test_of_too_many_paths_the_largest_are_followed_and_the_rest_is_what_is_missing() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x
    for _ in range(20):
        y = y + y
    found = explorer.paths(y.sum(), x, limit=5)
    assert found.count == 2**20
    assert [path.norm for path in found] == pytest.approx([2**0.5] * 5)
    assert [path.share for path in found] == pytest.approx([2**-20] * 5)
    assert found.shares is not None
    assert not found.shares.complete
    assert f"all {2**20:,} together: norm {2**20 * 2**0.5:.6g}" in str(found)
    assert f"the other {2**20 - 5:,}: 100 %" in str(found)


def test_the_shares_of_all_paths_add_up_to_one() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(3, 4, requires_grad=True), torch.randn(4, 4, requires_grad=True)
    y = x + (x @ w).tanh()
    found = explorer.paths((y * y.exp() + x[:1]).square().mean(), x)
    assert found.count == len(found) == 5
    assert found.shares is not None
    assert found.shares.complete
    assert sum(path.share or 0.0 for path in found) == pytest.approx(1, rel=1e-5)
    (expected,) = torch.autograd.grad((y * y.exp() + x[:1]).square().mean(), x)
    assert found.shares.norm == pytest.approx(expected.norm().item(), rel=1e-5)
    lengths = [path.norm for path in found]
    assert lengths == sorted(lengths, key=lambda norm: -(norm or 0))


def test_what_a_path_brings_is_summed_over_broadcast_axes() -> None:
    b = torch.ones(3, requires_grad=True)
    found = explorer.paths((torch.zeros(5, 3) + b).sum(), b)
    assert [path.norm for path in found] == pytest.approx([5 * 3**0.5])


def test_a_node_that_cannot_be_run_by_itself_is_named() -> None:
    x = torch.ones(4, requires_grad=True)
    loss = checkpoint(lambda y: (y * y).sin(), x, use_reentrant=False).sum()
    found = explorer.paths(loss, x)
    assert "the paths were not measured: " in found.note
    assert "checkpointed" in found.note


def test_the_paths_of_a_script_are_measured_before_its_backward(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(
        "import torch\n"
        "x = torch.tensor([1.0, 2.0], requires_grad=True)\n"
        "y = x * x + torch.sin(x)\n"
        "y.backward(torch.tensor([1.0, 10.0]))\n"
    )
    exploration = pipeline.explore_script(load(str(tmp_path / "script.py")), paths_to="x")
    (report,) = exploration.session.reports
    assert report.problems == ()
    text = chains.paths(report, chains.target_of(report, "x")).text
    x, g = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 10.0])
    told = list(map(float, re.findall(r"norm ([\d.]+)", text)))
    total = (g * (2 * x + x.cos())).norm().item()
    parts = [(g * x).norm().item()] * 2 + [(g * x.cos()).norm().item()]
    assert told == pytest.approx([*parts, total, total], rel=1e-4)
    assert "all 3 together: norm" in text


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
