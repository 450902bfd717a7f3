"""Wrappers of torch's leave no trace in names: a module is called what its author calls it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import explorer
from hooks.modules import listed, wrapped_as
from tests.groups import group_of_one


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.ReLU(), nn.Linear(4, 1)))


class Owner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.module = net()  # no wrapper, whatever its name
        self.body: Any = nn.DataParallel(net())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.module(x) + self.body(x)
        return out


@pytest.mark.filterwarnings(
    "ignore:.torch.jit.script:DeprecationWarning"
)  # torch.compile's own, when imported
def test_paths_leave_out_what_wrappers_add() -> None:
    plain = [path for path, _ in net().named_modules()]
    assert [path for path, _ in listed(net())] == plain
    assert [path for path, _ in listed(nn.DataParallel(net()))] == ["", *plain]
    assert [path for path, _ in listed(torch.compile(net()))] == ["", *plain]  # type: ignore[arg-type]  # it is a module
    paths = [path for path, _ in listed(Owner())]
    assert paths[:3] == ["", "module", "module.0"]
    assert "body.1.1" in paths
    assert not any("body.module" in path for path in paths)
    assert wrapped_as(Owner()) == ""


@pytest.mark.parametrize("watched", [True, False])
def test_nodes_and_leaves_of_a_wrapped_model(watched: bool) -> None:
    model = nn.DataParallel(net())
    with explorer.watch(*([model] if watched else []), check="off") as watch:
        model(torch.randn(5, 3)).sum().backward()
    nodes = watch.report.graph.nodes
    assert {node.label for node in nodes if node.kind == "leaf"} == {
        "0.weight",
        "0.bias",
        "1.1.weight",
        "1.1.bias",
    }
    assert {node.module for node in nodes if node.name == "AddmmBackward0"} == {"0", "1.1"}


def test_a_wrapped_model_says_what_is_not_reached_by_its_own_names() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.unused = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out: torch.Tensor = self.used(x)
            return out

    model = nn.DataParallel(Net())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with explorer.watch(check="off") as watch:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(5, 3)).pow(2).sum().backward()
            optimizer.step()
    (finding,) = [finding for report in watch.reports for finding in report.findings]
    assert finding.message.startswith("`unused.weight`, `unused.bias` are not in the graph of ")
    assert "`unused` never ran" in finding.message


@pytest.fixture
def alone() -> Iterator[None]:
    """A group of this process only."""
    with group_of_one():
        yield


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore")  # torch's own, on its internals
def test_a_sharded_model_is_explored_whole() -> None:
    model = net()
    mesh = init_device_mesh("cpu", (1,))
    for part in (model[0], model[1], model):
        fully_shard(part, mesh=mesh)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with explorer.watch() as watch:
        for _ in range(2):
            optimizer.zero_grad()
            model(torch.randn(5, 3)).pow(2).mean().backward()
            optimizer.step()
    assert watch.problems == []
    assert len(watch.reports) == 2
    for report in watch.reports:
        labels = {node.label for node in report.graph.nodes if node.kind == "leaf"}
        assert labels == {"0.weight", "0.bias", "1.1.weight", "1.1.bias"}
        assert report.check.checked == report.check.nodes
        assert any(node.name == "RegisterPostBackwardFunctionBackward" for node in report.graph.nodes)
        assert set(report.check.statuses) == {"match"}
        assert [finding.code for finding in report.findings if finding.severity != "info"] == []


@pytest.mark.usefixtures("alone")
@pytest.mark.filterwarnings("ignore")  # torch's own, on its internals
def test_the_sink_of_a_parallel_model_is_checked() -> None:
    model = nn.parallel.DistributedDataParallel(net(), find_unused_parameters=True)
    with explorer.watch() as watch:
        model(torch.randn(5, 3)).pow(2).mean().backward()
    report = watch.report
    (sink,) = [node.id for node in report.graph.nodes if node.name == "_DDPSinkBackward"]
    verdict = report.verdict(sink)
    assert verdict is not None
    assert verdict.status == "match"
    assert {node.module for node in report.graph.nodes if node.name == "AddmmBackward0"} == {"0", "1.1"}
