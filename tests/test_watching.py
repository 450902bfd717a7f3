"""explore, watch and paths as a notebook or training code uses them."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import nn

import explorer
from explorer.errors import ExplorerError, NothingDifferentiableError, UsageError


def by_hand() -> tuple[torch.Tensor, ...]:
    a, b, c = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0, 4.0))
    return a, b, c, (a * b + b * c) * (a * c)


def network() -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Dropout(0.5), nn.Tanh(), nn.Linear(4, 1)), torch.randn(5, 3)


def test_explore_leaves_grad_and_graph_alone() -> None:
    a, b, c, r = by_hand()
    a.grad = kept = torch.tensor(7.0)
    report = explorer.explore(r)
    assert a.grad is kept
    assert kept.item() == 7.0
    assert b.grad is None
    found = {leaf.label: report.gradient(leaf.id) for leaf in report.graph.leaves()}
    assert {name: record.values for name, record in found.items() if record} == {
        "a": (96.0,),
        "b": (48.0,),
        "c": (60.0,),
    }
    r.backward()
    assert c.grad is not None
    assert c.grad.item() == 60.0


def test_explore_takes_several_tensors_and_vectors() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    report = explorer.explore(x * 3, x.sum())
    (leaf,) = report.graph.leaves()
    record = report.gradient(leaf.id)
    assert record is not None
    assert record.values == (4.0, 4.0)
    assert len(report.graph.roots) == 2
    assert report.check.statuses == {"match": report.check.nodes}


def test_explore_keeps_the_random_numbers() -> None:
    class Noisy(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
            return x * 2

        @staticmethod
        def backward(ctx: object, g: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
            return g * 2 + 0 * torch.rand(())

    x = torch.ones(2, requires_grad=True)
    y = Noisy.apply(x).sum()
    state = torch.get_rng_state()
    explorer.explore(y)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("wrong", [3.0, "loss", None, [1]])
def test_explore_refuses_what_is_no_tensor(wrong: object) -> None:
    with pytest.raises(TypeError, match="takes tensors"):
        explorer.explore(wrong)


def test_explore_refuses_what_has_no_history() -> None:
    with pytest.raises((NothingDifferentiableError, ExplorerError), match="no grad_fn"):
        explorer.explore(torch.ones(2))


def test_watch_sees_every_backward() -> None:
    model, inputs = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with explorer.watch(model) as watch:
        for _ in range(3):
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
            assert watch.report.call == watch.calls
    assert [report.call for report in watch.reports] == [1, 2, 3]
    assert watch.report.graph == watch.reports[-1].graph
    for report in watch.reports:
        assert report.problems == ()
        assert report.findings == ()
        assert report.check.statuses == {"match": report.check.nodes}
        assert {leaf.label for leaf in report.graph.leaves()} == {
            name for name, _ in model.named_parameters()
        }


def test_watch_without_a_model_and_with_several() -> None:
    model, inputs = network()
    with explorer.watch() as watch:
        model(inputs).sum().backward()
    assert "3.weight" in {leaf.label for leaf in watch.report.graph.leaves()}
    other, _ = network()
    with explorer.watch(model, other, check="off") as watch:
        (model(inputs) + other(inputs)).sum().backward()
    assert len(list(watch.report.graph.leaves())) == 8
    assert watch.report.check.end_to_end == "off"


def test_watch_says_when_it_saw_nothing() -> None:
    with explorer.watch() as watch:
        pass
    assert watch.reports == ()
    with pytest.raises(ExplorerError, match="no backward"):
        _ = watch.report


def test_watch_leaves_nothing_attached_when_the_block_raises() -> None:
    door = torch.autograd.graph._engine_run_backward
    with pytest.raises(ZeroDivisionError), explorer.watch():
        raise ZeroDivisionError
    assert torch.autograd.graph._engine_run_backward is door
    assert torch.autograd._engine_run_backward is door  # type: ignore[attr-defined]
    assert not torch.is_anomaly_enabled()


def test_watch_in_another_thread() -> None:
    model, inputs = network()
    with explorer.watch(model) as watch:
        thread = threading.Thread(target=lambda: model(inputs).sum().backward())
        thread.start()
        thread.join()
    assert watch.report.problems == ()
    assert watch.report.check.statuses == {"match": watch.report.check.nodes}


def test_autograd_grad_on_leaves_and_results() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with explorer.watch() as watch:
        h = x.exp()
        gradient, middle = torch.autograd.grad((h * h).sum(), (x, h))
    report = watch.report
    (leaf,) = report.graph.leaves()
    record = report.gradient(leaf.id)
    assert record is not None
    assert record.values == tuple(gradient.tolist())
    (node,) = (node for node in report.graph.nodes if node.name == "ExpBackward0")
    record = report.gradient(node.id)
    assert record is not None
    assert record.values == tuple(middle.tolist())


def test_paths() -> None:
    _, b, _, r = by_hand()
    found = explorer.paths(r, b)
    assert [path.contribution for path in found] == [32.0, 16.0]
    assert sum(path.contribution for path in found) == found.total == 48.0
    assert all(path.nodes[0] == 0 and path.nodes[-1] == found.target for path in found)
    assert (len(found), found.count) == (2, 2)
    assert b.grad is None
    with pytest.raises(UsageError, match="not in the graph"):
        explorer.paths(r, torch.ones(1, requires_grad=True))


def test_walk_is_the_function_whatever_was_imported() -> None:
    *_, r = by_hand()
    explorer.explore(r)
    assert len(explorer.walk(r).nodes) == 8


def test_module_paths_agree_with_parameter_names() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(3, 4), nn.Tanh())
            self.head = nn.Linear(4, 1)

    model, criterion = Two(), nn.MSELoss()
    with explorer.watch() as watch:
        criterion(model.head(model.encoder(torch.randn(2, 3))), torch.zeros(2, 1)).backward()
    modules = {node.name: node.module for node in watch.report.graph.nodes if node.kind != "leaf"}
    assert modules["TanhBackward0"] == "encoder.1"
    assert modules["AddmmBackward0"] in {"encoder.0", "head"}
    labels = {leaf.label for leaf in watch.report.graph.leaves()}
    assert labels == {"encoder.0.weight", "encoder.0.bias", "head.weight", "head.bias"}
    G, D = nn.Sequential(nn.Linear(3, 4)), nn.Sequential(nn.Linear(4, 1))
    with explorer.watch() as watch:
        criterion(D(G(torch.randn(2, 3))), torch.zeros(2, 1)).backward()
    assert {"G.0", "D.0"} <= {node.module for node in watch.report.graph.nodes}


def test_a_leaf_without_memory_has_no_value_and_nothing_is_lost() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = (x + 1).sum()
    x.untyped_storage().resize_(0)  # as FSDP does with a parameter it has resharded
    report = explorer.explore(y)
    (leaf,) = report.graph.leaves()
    record = report.gradient(leaf.id)
    assert record is not None
    assert record.values == (1.0, 1.0)
    assert report.forward.get(leaf.id) in (None, (None,))
    assert report.problems == ()


def test_what_was_not_asked_for_is_no_mismatch() -> None:
    model = nn.Linear(3, 1)
    x = torch.randn(4, 3, requires_grad=True)
    with explorer.watch() as watch:
        torch.autograd.grad(model(x).sum(), x, create_graph=True)
        model(x).sum().backward(inputs=[model.weight])
    for report in watch.reports:
        assert "mismatch" not in report.check.statuses
        (node,) = (node for node in report.graph.nodes if node.name == "AddmmBackward0")
        verdict = report.verdict(node.id)
        assert verdict is not None
        assert verdict.status == "match"
        assert verdict.elements


def test_a_call_that_left_nothing_in_the_graph_is_not_counted() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.ones(2, 3)
    with explorer.watch(model) as watch:
        model(x)  # looked at, and dropped
        model(x).sum().backward()
        used = model(x)
        (model(x) + used).sum().backward()
    once, twice = watch.reports
    assert {node.module_call for node in once.graph.nodes} == {0}
    assert {node.module_call for node in twice.graph.nodes if node.module == "0"} == {0, 1}


def test_a_call_keeps_its_number_where_another_part_has_the_first() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.trunk = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})

        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            return self.trunk["a"](x), self.trunk["b"](x)

    model = Net()
    with explorer.watch(model) as watch:
        first, _ = model(torch.ones(2, 2))
        second, third = model(torch.ones(2, 2))
        (first + second + third).sum().backward()
    assert watch.report is not None
    calls = {(node.module, node.module_call) for node in watch.report.graph.nodes if node.kind == "op"}
    assert {("trunk.a", 0), ("trunk.a", 1), ("trunk.b", 1)} <= calls
