"""On a CUDA device: captured, bitwise unchanged, and checked. Skipped, and said so, where there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

import explorer
from explorer import journal
from explorer.exploring import Exploring
from explorer.names import Names
from explorer.report import BAD_STATUSES, Report
from explorer.watching import CAPTURED

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]
Problem = Callable[[], tuple[nn.Module, torch.Tensor]]


def mlp() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
    return model.cuda(), torch.randn(32, 20, device="cuda")


def cnn() -> tuple[nn.Module, torch.Tensor]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(128, 5),
    )
    return model.cuda(), torch.randn(6, 3, 8, 8, device="cuda")


def transformer() -> tuple[nn.Module, torch.Tensor]:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    return nn.Sequential(layer, nn.Linear(32, 5)).cuda(), torch.randn(2, 12, 32, device="cuda")


PROBLEMS: dict[str, Problem] = {"mlp": mlp, "cnn": cnn, "transformer": transformer}


def loss_of(model: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    output = model(inputs).flatten(0, -2)
    return functional.cross_entropy(output, torch.zeros(len(output), dtype=torch.long, device=output.device))


def gradients(problem: Problem, watched: bool) -> tuple[list[torch.Tensor], Report | None]:
    torch.manual_seed(0)
    model, inputs = problem()
    report = None
    if watched:
        with explorer.watch(model) as watch:
            loss_of(model, inputs).backward()
        report = watch.report
    else:
        loss_of(model, inputs).backward()
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None], report


@pytest.fixture(autouse=True)
def deterministic() -> None:
    torch.backends.cudnn.deterministic = True
    torch.backends.cudnn.benchmark = False


@pytest.mark.parametrize("name", PROBLEMS)
def test_bitwise_unchanged_recorded_and_confirmed(name: str) -> None:
    plain, _ = gradients(PROBLEMS[name], watched=False)
    watched, report = gradients(PROBLEMS[name], watched=True)
    assert all(torch.equal(one, other) for one, other in zip(plain, watched, strict=True))
    assert report is not None
    assert report.problems == ()
    assert not any(report.check.statuses.get(status) for status in BAD_STATUSES), [
        verdict for verdict in report.verdicts if verdict.status in BAD_STATUSES
    ]
    assert report.check.checked >= 0.9 * report.check.nodes, [v.reason for v in report.verdicts if v.reason]
    norms = {leaf.label: report.gradient(leaf.id) for leaf in report.graph.leaves()}
    assert all(record is not None and record.finite for record in norms.values())
    assert len(norms) == len(plain)


def test_norms_are_those_of_the_gradients() -> None:
    torch.manual_seed(0)
    model, inputs = mlp()
    with explorer.watch(model, check="off") as watch:
        loss_of(model, inputs).backward()
    parameters = dict(model.named_parameters())
    for leaf in watch.report.graph.leaves():
        record = watch.report.gradient(leaf.id)
        grad = parameters[leaf.label].grad
        assert record is not None
        assert grad is not None
        assert record.norm == pytest.approx(grad.norm().item(), rel=1e-5)


def test_no_synchronisation_per_node() -> None:
    torch.manual_seed(0)
    model, inputs = transformer()
    loss = loss_of(model, inputs)
    with explorer.watch(model, check="off") as watch:
        exploring = Exploring([loss], Names(), "off")
        torch.cuda.set_sync_debug_mode("error")
        try:
            with exploring:
                loss.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    assert exploring.stages.problems == []
    assert exploring.error is None
    assert watch.calls == 1


def test_a_capture_goes_through() -> None:
    """``torch.cuda.graph`` around forward and backward: the gradients of the replay are the plain ones."""
    torch.manual_seed(0)
    model, inputs = mlp()
    beside = torch.cuda.Stream()
    with explorer.watch(model, check="off") as watch:
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):
                model.zero_grad(set_to_none=True)
                loss_of(model, inputs).backward()
        torch.cuda.current_stream().wait_stream(beside)
        model.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            model(inputs).square().mean().backward()
    graph.replay()
    found = [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]
    model.zero_grad(set_to_none=True)
    model(inputs).square().mean().backward()
    plain = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    assert len(found) == len(plain) > 0
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other)
    assert watch.calls == 4
    assert len(watch.reports) == 3
    assert CAPTURED in watch.problems


def test_half_precision_draws_no_false_alarm() -> None:
    torch.manual_seed(0)
    model, inputs = mlp()
    with explorer.watch(model) as watch, torch.autocast("cuda", torch.bfloat16):
        loss = loss_of(model, inputs)
    with watch:
        loss.backward()
    assert not any(watch.report.check.statuses.get(status) for status in BAD_STATUSES)


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_light_record_of_a_device(name: str, tmp_path: Path) -> None:
    """Each layer's numbers are those of its gradients, which come over once."""
    torch.manual_seed(0)
    model, inputs = PROBLEMS[name]()
    with explorer.watch(model, every=5, log=tmp_path / "a.jsonl"):
        for _ in range(2):
            model.zero_grad()
            loss_of(model, inputs).backward()
    (run,) = journal.read(tmp_path / "a.jsonl")
    assert [step.explored for step in run.steps] == [True, False]
    for layer, found in run.steps[1].layers.items():
        whole = torch.cat(
            [
                parameter.grad.double().flatten()
                for key, parameter in model.named_parameters()
                if key.rpartition(".")[0] == layer and parameter.grad is not None
            ]
        )
        assert found.elements == whole.numel()
        assert found.zeros == int((whole == 0).sum())
        assert found.norm == pytest.approx(float(whole.norm()), rel=1e-5)
        assert found.largest == pytest.approx(float(whole.abs().max()), rel=1e-6)
