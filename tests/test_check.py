"""The check: mutations planted on captured gradients, junctions, hooks, and what cannot be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explorer.check import Checker
from explorer.engine import registry
from explorer.report import CheckSummary, Verdict
from explorer.trace import trace
from hooks.nodes import Event, capture
from hooks.registered import observe_hooks

Fault = Callable[[Tensor], Tensor]


def run(
    loss: Tensor, node: str = "", slot: int = 0, fault: Fault | None = None, mode: Any = "sample"
) -> tuple[dict[str, Verdict], CheckSummary]:
    """Check one backward; the gradient `node` sends along `slot` is replaced by ``fault(it)``."""
    found = trace([loss])
    checker = Checker(found, mode)

    def observe(event: Event) -> None:
        if fault is not None and found.graph.nodes[event.index].name == node and event.grad_inputs:
            sent = list(event.grad_inputs)
            assert sent[slot] is not None
            sent[slot] = fault(sent[slot])
            event = replace(event, grad_inputs=tuple(sent))
        checker.observe(event)

    watching = capture(found.live, observe)
    with watching:
        loss.backward()
    assert watching.problem == ""
    verdicts, summary = checker.finish()
    return {found.graph.nodes[v.node].name: v for v in reversed(verdicts)}, summary


def _network(rows: int = 40, width: int = 64) -> Tensor:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(24, width), nn.Tanh(), nn.Linear(width, 300), nn.Dropout(0.0))
    return model(torch.randn(rows, 24)).softmax(-1).pow(2).sum()


def _images() -> Tensor:
    torch.manual_seed(0)
    x = torch.randn(4, 64, 12, 12, requires_grad=True)
    return (nn.Conv2d(64, 64, 3, padding=1)(x).relu() * 1.5).square().sum()


def _edited(place: Any, factor: float) -> Fault:
    def fault(gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        gradient[place] *= factor
        return gradient

    return fault


FAULTS: dict[str, Fault] = {
    "sign": lambda g: -g,
    "factor": lambda g: g * 1.001,
    "n/(n-1)": lambda g: g * (40 / 39),
    "off by one": lambda g: g.roll(1, 0),
    "rolled columns": lambda g: g.roll(1, -1),
    "missing term": lambda g: g - 0.1 * g.abs().mean(),
    "last row": _edited(-1, 0.5),
    "last column": _edited((slice(None), -1), 0.5),
    "first row": _edited(0, 0.0),
    "wrapped tail": lambda g: torch.cat([g[:-2], g[:2]]),
    "read as contiguous": lambda g: g.t().reshape(g.shape),
    "nan": lambda g: g * float("nan"),
    "zeros": torch.zeros_like,
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("node", ["SoftmaxBackward0", "TanhBackward0"])
def test_planted_faults_are_caught(fault: str, node: str) -> None:
    verdicts, _ = run(_network(), node, 0, FAULTS[fault])
    assert verdicts[node].status in ("mismatch", "nan-mismatch")


@pytest.mark.parametrize(
    ("node", "slot", "fault"),
    [
        ("MulBackward0", 0, lambda g: g + 0.01 * (torch.arange(64) == 37).reshape(64, 1, 1)),
        ("ConvolutionBackward0", 0, _edited((slice(None), 37), 1.01)),
        ("ConvolutionBackward0", 1, _edited((slice(None), slice(None), 1, 1), 0.9)),
        ("ConvolutionBackward0", 2, lambda g: g * 1.001),
        ("ReluBackward0", 0, lambda g: g + 0.01),
    ],
)
def test_faults_in_images_are_caught(node: str, slot: int, fault: Fault) -> None:
    verdicts, _ = run(_images(), node, slot, fault)
    assert verdicts[node].status == "mismatch"


def test_nothing_is_flagged_without_a_fault() -> None:
    for loss in (_network(), _images()):
        verdicts, summary = run(loss)
        assert set(summary.statuses) == {"match"}
        assert summary.checked == summary.nodes
        assert all(one.ratio is not None and one.ratio <= 1 for one in verdicts.values())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_dtypes(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 16, requires_grad=True)
    model = nn.Sequential(nn.Linear(16, 8), nn.LayerNorm(8), nn.GELU()).to(dtype)
    _, summary = run(model(x.to(dtype)).square().sum())
    assert summary.checked == summary.nodes
    assert set(summary.statuses) <= {"match", "loose", "low-precision accumulation"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_accumulation_is_recognised(dtype: torch.dtype) -> None:
    """LayerNorm adds 4096 rows in the half type itself: neither a match, nor wrong by its formula.

    The precondition is measured, not assumed: where torch adds more precisely there is nothing to recognise.
    """
    torch.manual_seed(0)
    layer = nn.LayerNorm(8).to(dtype)
    x = torch.randn(4096, 8).to(dtype)
    upstream = torch.rand(4096, 8).to(dtype)
    verdicts, _ = run((layer(x) * upstream).sum())
    verdict = verdicts["NativeLayerNormBackward0"]
    assert layer.bias.grad is not None
    exact = upstream.double().sum(0)
    error = ((layer.bias.grad.double() - exact).abs() / exact).max().item()
    if error < 4 * torch.finfo(dtype).eps:
        pytest.skip(f"this torch adds up to {error:.1e}: no half accumulation here")
    assert verdict.status == "low-precision accumulation"
    assert verdict.ratio is not None
    assert verdict.ratio > 1


def test_float32_is_never_excused_by_a_lower_precision() -> None:
    """The same size of error in float32 is a mismatch: its accumulator is no coarser than itself."""
    layer = nn.LayerNorm(8)
    loss = (layer(torch.randn(4096, 8)) * torch.rand(4096, 8)).sum()
    verdicts, _ = run(loss, "NativeLayerNormBackward0", 2, lambda g: g * 1.01)
    assert verdicts["NativeLayerNormBackward0"].status == "mismatch"


def test_a_lost_contribution_is_a_mismatch_at_the_junction() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x.sin()
    verdicts, _ = run((y * y).sum() + y.exp().sum(), "ExpBackward0", 0, lambda g: g * 2)
    assert verdicts["ExpBackward0"].status == "mismatch"
    assert verdicts["SinBackward0"].status == "mismatch"
    assert "junction" in verdicts["SinBackward0"].reason


def test_a_tensor_hook_is_named_and_no_mismatch() -> None:
    x = torch.randn(3, requires_grad=True)
    y = x.exp()
    y.register_hook(lambda g: g * 1.01)
    loss = (y * 3).sum()
    found = trace([loss])
    for known, status in ((True, "match"), (False, "mismatch")):
        checker = Checker(found, hooked=lambda index, slot, known=known: known)
        with capture(found.live, checker.observe):
            loss.backward(retain_graph=True)
        verdicts, _ = checker.finish()
        verdict = next(v for v in verdicts if found.graph.nodes[v.node].name == "ExpBackward0")
        assert verdict.status == status
        assert ("hook" in verdict.reason) == known


def _doubled(loss: Tensor, slot: int) -> dict[str, str]:
    """Reasons of the mismatches when the quotient sends twice its gradient along `slot`."""
    found = trace([loss])
    quotient = next(n.id for n in found.graph.nodes if n.name == "DivBackward0")
    checker = Checker(found)

    def observe(event: Event) -> None:
        if event.index == quotient and event.grad_inputs is not None:
            sent = list(event.grad_inputs)
            sent[slot] = 2 * sent[slot]
            event = replace(event, grad_inputs=tuple(sent))
        checker.observe(event)

    with capture(found.live, observe):
        loss.backward()
    nodes = found.graph.nodes
    return {nodes[v.node].name: v.reason for v in checker.finish()[0] if v.status == "mismatch"}


def test_a_hook_that_only_looks_excuses_nothing() -> None:
    x = torch.randn(4, requires_grad=True)
    y = x.exp()
    y.retain_grad()
    assert "junction" in _doubled((y / 2.5).sum(), 0)["ExpBackward0"]
    w = torch.randn(4, requires_grad=True)
    w.register_post_accumulate_grad_hook(lambda parameter: None)
    assert "junction" in _doubled((w / 2.5).sum(), 0)["AccumulateGrad"]


@pytest.mark.parametrize("hooked", [0, 1])
def test_a_hook_excuses_the_very_tensor_it_is_on(hooked: int) -> None:
    parts = torch.randn(4, 2, requires_grad=True).exp().unbind(1)
    with observe_hooks():
        parts[hooked].register_hook(lambda g: g * 1.5)
    bad = _doubled((parts[0] / 2.5).sum() + parts[1].sum(), 0)
    assert ("junction" in bad.get("UnbindBackward0", "")) == (hooked == 1)


def test_end_to_end_is_full_only_from_the_root_on() -> None:
    x, w = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    assert run((x.exp() * w).sum())[1].end_to_end == "full"
    y = x.exp()
    with observe_hooks():
        y.register_hook(lambda g: g * 1.01)
    assert run((y * w).sum())[1].end_to_end == "induction"


def test_a_leaf_altered_by_a_hook_is_not_counted_as_agreeing() -> None:
    x = torch.randn(3, requires_grad=True)
    x.register_hook(lambda g: g * 1.01)
    verdicts, summary = run((x.exp() * 3).sum())
    assert verdicts["AccumulateGrad"].status == "unchecked"
    assert "hook" in verdicts["AccumulateGrad"].reason
    assert summary.checked == summary.nodes - 1


def test_a_node_without_a_rule_is_unchecked_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(registry._RULES, "ExpBackward0")
    x = torch.rand(3, requires_grad=True)
    verdicts, summary = run(x.exp().sin().sum())
    assert verdicts["ExpBackward0"].status == "unchecked"
    assert "no rule for ExpBackward0" in verdicts["ExpBackward0"].reason
    assert verdicts["SinBackward0"].status == "match"
    assert summary.statuses["unchecked"] == 1
    assert summary.checked == summary.nodes - 1
    assert summary.end_to_end == "induction"


def test_one_costly_number_is_checked() -> None:
    """The gradient of a 0-d factor is one sum over everything, beyond the sample's budget, yet compared."""
    scale = torch.tensor(1.5, requires_grad=True)
    loss = (torch.randn(300, 200) * scale).tanh().sum()
    assert run(loss)[0]["MulBackward0"].status in ("match", "loose")


def test_what_did_not_run_is_said() -> None:
    x, w = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    loss = (x * w.exp()).sum()
    found = trace([loss])
    checker = Checker(found)
    with capture(found.live, checker.observe):
        torch.autograd.grad(loss, x)
    verdicts, summary = checker.finish()
    by_name = {found.graph.nodes[v.node].name: v for v in verdicts}
    assert by_name["ExpBackward0"].reason == "did not run"
    assert summary.statuses["unchecked"] >= 2


def test_a_stale_saved_tensor_is_unchecked_or_unseen() -> None:
    """`.data` edits go unseen locally, by design; the end-to-end check trusts the same values."""
    x = torch.randn(3, requires_grad=True)
    y = x.exp()
    loss = (y * 2).sum()
    y.data.mul_(2)
    verdicts, _ = run(loss)
    assert verdicts["ExpBackward0"].status == "match"


def test_the_users_gradients_and_random_state_are_untouched() -> None:
    torch.manual_seed(3)
    plain = nn.Linear(4, 3)
    watched = nn.Linear(4, 3)
    watched.load_state_dict(plain.state_dict())
    x = torch.randn(5, 4)
    plain(x).square().sum().backward()
    before = torch.get_rng_state()
    run(watched(x).square().sum(), mode="full")
    assert torch.equal(torch.get_rng_state(), before)
    assert plain.weight.grad is not None
    assert watched.weight.grad is not None
    assert torch.equal(plain.weight.grad, watched.weight.grad)


def test_the_memory_that_was_sent_is_equal_as_a_whole_unless_a_hook_may_write_to_it() -> None:
    x = torch.randn(50, 40, requires_grad=True)
    assert run((x.view(40, 50).t().exp() * 2).sum())[0]["AccumulateGrad"].elements == 2000
    y = torch.randn(50, 40, requires_grad=True)
    with observe_hooks():
        y.register_hook(lambda g: None)
    verdict = run((y.view(40, 50).t().exp() * 2).sum())[0]["AccumulateGrad"]
    assert verdict.elements < 100


def test_a_view_sent_on_as_it_came_is_compared_as_a_whole_and_a_copy_is_not() -> None:
    x = torch.randn(300, 400, requires_grad=True)
    assert run((x.t() * 2).sum())[0]["TBackward0"].elements == 120_000
    verdicts, _ = run((x.t() * 2).sum(), "TBackward0", 0, torch.clone)
    assert (verdicts["TBackward0"].status, verdicts["TBackward0"].elements < 2000) == ("match", True)


@pytest.mark.parametrize("slot", [0, 1, 2])
@pytest.mark.parametrize("shape", [(4, 40, 60, 70), (3, 5, 7), (30, 6)])
def test_a_batch_norm_is_sampled_in_the_same_channels_and_no_fault_escapes(
    shape: tuple[int, ...], slot: int
) -> None:
    def loss() -> Tensor:
        torch.manual_seed(1)
        norm = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](shape[1])
        return (norm(torch.randn(shape).mul_(3).add_(5).requires_grad_()) * torch.rand(shape)).sum()  # type: ignore[no-any-return]  # a Tensor

    name = "NativeBatchNormBackward0"
    assert run(loss())[0][name].status == "match"
    assert run(loss(), name, slot, lambda g: -g)[0][name].status == "mismatch"
    assert run(loss(), name, slot, lambda g: g.roll(1, 1 if g.dim() > 1 else 0))[0][name].status == "mismatch"


@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_centred_sum_that_cancels_is_looked_at_again(offset: float) -> None:
    """Σ g (x - μ) as Σ g x - μ Σ g loses its digits where μ is large: no alarm comes of that."""
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.float64):
        x = (torch.randn(24, 3, 40, 40, dtype=dtype) + offset).requires_grad_()
        _, summary = run((nn.BatchNorm2d(3).to(dtype)(x) * torch.randn(24, 3, 40, 40, dtype=dtype)).sum())
        assert set(summary.statuses) <= {"match", "loose"}


def test_costly_sums_are_looked_at_in_fewer_places_and_never_in_none() -> None:
    scale = torch.randn(32, 1, 1, requires_grad=True)
    loss = (torch.randn(16, 32, 80, 80) * scale).tanh().sum()
    verdict = run(loss)[0]["MulBackward0"]
    assert verdict.status in ("match", "loose")
    assert 6 <= verdict.elements < 16


def test_in_full_says_what_was_covered_by_projections() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(300, 700).requires_grad_(), torch.randn(700, 200).requires_grad_()
    verdicts, summary = run((x @ w).square().sum(), mode="full")
    verdict = verdicts["MmBackward0"]
    assert (verdict.status, verdict.elements, verdict.of) == ("match", 350_000, 350_000)
    assert "by random projections" in verdict.reason
    assert summary.wrong_share == 0.0
