"""The paths that a device's tensors take, on the CPU: every tensor says that it lies on a CUDA device.

What is shown here is that nothing of ours asks a device node by node, and that numbers brought over together
are the ones asked for. What only a device can show is in ``test_cuda.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import explorer
from explorer.report import Report
from explorer.watching import CAPTURED

WAITS = (
    "item",
    "tolist",
    "nonzero",
    "cpu",
    "numpy",
    "__bool__",
    "__float__",
    "__int__",
    "__index__",
    "__complex__",
)
"""Methods that wait for a device."""


@contextmanager
def on_a_device() -> Iterator[list[str]]:
    """Let all tensors claim to be on a device; the list tells who waited for it."""
    waited: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "is_cpu", False)
        patch.setattr(torch.Tensor, "is_cuda", True)
        for name in WAITS:
            patch.setattr(torch.Tensor, name, _noting(name, getattr(torch.Tensor, name), waited))
        yield waited


def _noting(name: str, original: Callable[..., Any], waited: list[str]) -> Callable[..., Any]:
    def noted(self: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        waited.append(name)
        return original(self, *args, **kwargs)

    return noted


def perceptron(depth: int) -> nn.Module:
    blocks = ((nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Tanh()) for _ in range(depth))
    return nn.Sequential(*(layer for block in blocks for layer in block))


def transformer(depth: int) -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)


MODELS: dict[str, tuple[Callable[[int], nn.Module], tuple[int, ...]]] = {
    "perceptron": (perceptron, (32, 6)),
    "transformer": (transformer, (2, 9, 16)),
}


def watched(name: str, depth: int, device: bool) -> tuple[Report, list[str]]:
    build, shape = MODELS[name]
    torch.manual_seed(0)
    model, inputs = build(depth), torch.randn(shape)
    if not device:
        with explorer.watch(model, check="off") as watch:
            model(inputs).square().mean().backward()
        return watch.report, []
    with on_a_device() as waited, explorer.watch(model, check="off") as watch:
        loss = model(inputs).square().mean()
        del waited[:]
        loss.backward()
        during = list(waited)
    return watch.report, during


@pytest.mark.parametrize("name", MODELS)
def test_waiting_does_not_grow_with_the_graph(name: str) -> None:
    """The plain loss, the small values of one dtype, the norms: each comes over once."""
    small, large = (watched(name, depth, device=True)[1] for depth in (2, 7))
    assert small == large
    assert 0 < len(large) <= 6


@pytest.mark.parametrize("name", MODELS)
def test_what_came_over_is_what_the_cpu_tells(name: str) -> None:
    there, _ = watched(name, 3, device=True)
    here, _ = watched(name, 3, device=False)
    assert there.problems == here.problems == ()
    for one, other in zip(there.gradients, here.gradients, strict=True):
        assert (one is None) == (other is None)
        if one is None or other is None:
            continue
        assert one.unread == other.unread == 0
        for first, second in zip(one.received, other.received, strict=True):
            assert first is not None
            assert second is not None
            assert (first.shape, first.dtype, first.values) == (second.shape, second.dtype, second.values)
            assert first.norm == pytest.approx(second.norm, rel=1e-5)
    for edge, other_edge in zip(there.edge_gradients, here.edge_gradients, strict=True):
        assert edge is not None
        assert other_edge is not None
        assert edge.norm == pytest.approx(other_edge.norm, rel=1e-5)
    for node, same in zip(there.graph.nodes, here.graph.nodes, strict=True):
        assert [saved.values for saved in node.saved] == [saved.values for saved in same.saved]
        if node.kind == "leaf":
            assert there.forward.get(node.id) == here.forward.get(node.id)


@pytest.mark.parametrize("name", MODELS)
def test_the_light_record_waits_as_often_for_any_model(name: str, tmp_path: Path) -> None:
    build, shape = MODELS[name]
    counts = []
    for depth in (2, 7):
        model, inputs = build(depth), torch.randn(shape)
        optimizer = torch.optim.SGD(model.parameters())
        with (
            on_a_device() as waited,
            explorer.watch(model, every=9, log=tmp_path / f"{depth}.jsonl") as watch,
        ):
            for _ in range(4):
                optimizer.zero_grad()
                loss = model(inputs).square().mean()
                del waited[:]
                loss.backward()
                counts.append(len(waited))
                optimizer.step()
        assert watch.problems == []
    assert counts[1:4] == counts[5:] == [2, 2, 2]


def test_a_graph_that_is_being_captured_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking the device for anything would invalidate the capture, and end the script."""

    def trained() -> tuple[list[torch.Tensor], list[str], explorer.Watch]:
        torch.manual_seed(0)
        model, inputs = transformer(2), torch.randn(2, 9, 16)
        optimizer = torch.optim.Adam(model.parameters())
        with on_a_device() as waited, explorer.watch(model, every=1) as watch:
            for _ in range(4):
                optimizer.zero_grad(set_to_none=False)
                model(inputs).square().mean().backward()
                optimizer.step()
        return [one.detach().clone() for one in model.parameters()], waited, watch

    expected, _, _ = trained()
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    weights, waited, watch = trained()
    monkeypatch.undo()
    assert [name for name in waited if name != "item"] == []  # Adam asks for its own counter's `item`
    assert all(map(torch.equal, weights, expected))
    assert watch.calls == 4
    assert watch.reports == ()
    assert watch.problems == [CAPTURED]


def test_what_is_not_finite_is_told_without_a_number_that_nobody_counted() -> None:
    x = torch.randn(20, 10, requires_grad=True)
    with on_a_device(), explorer.watch(check="off") as watch:
        (x.abs() * torch.full((20, 10), float("inf"))).sum().backward()
    report = watch.report
    for record in (one.received[0] for one in report.gradients if one is not None):
        assert record is not None
        assert record.finite == (record.norm < float("inf"))
        assert record.nans == record.infs == 0
    (finding,) = (one for one in report.findings if one.code == "non-finite-gradient")
    assert "non-finite values among 200" in finding.message
    words = str(report)
    assert "NaN or Inf" in words
    assert "1 NaN" not in words
    assert "× 1" not in words


def test_stuck_units_of_a_device_are_counted() -> None:
    model = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 40), nn.ReLU(), nn.Linear(40, 1))
    first, second = model[0], model[2]
    assert isinstance(first, nn.Linear)
    assert isinstance(second, nn.Linear)
    with torch.no_grad():
        first.bias[:48] = -1e4
        second.bias[:39] = -1e4
    with on_a_device(), explorer.watch(model, check="off") as watch:
        model(torch.randn(64, 6)).square().mean().backward()
    dead = {finding.message for finding in watch.report.findings if finding.code == "dead-units"}
    assert len(dead) == 2, [finding.code for finding in watch.report.findings]
    assert any("48" in message for message in dead)
    assert any("39" in message for message in dead)
