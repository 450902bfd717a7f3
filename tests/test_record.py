from __future__ import annotations

import math
from typing import Any, ClassVar

import pytest
import torch
from torch.utils._pytree import tree_map_only

import explorer
from explorer import record as recording
from explorer.journal import Step
from explorer.measure import Pending, at_once, in_shape_of, measure
from explorer.record import Recorder
from explorer.render import reading, text
from explorer.report import SMALL, GradientRecord
from explorer.trace import trace
from explorer.watching import Watch
from hooks.nodes import capture
from tests.exploration import explored, same_bits
from tests.problems import PROBLEMS, Built


def measured(tensor: torch.Tensor) -> GradientRecord:
    """The record of one CPU tensor."""
    found: list[GradientRecord] = []
    pending = Pending()
    measure(tensor, pending, found.append)
    pending.fetch()
    (record,) = found
    return record


@pytest.mark.parametrize("name", PROBLEMS)
def test_gradients_stay_the_same_to_the_last_bit(name: str) -> None:
    plain, watched = PROBLEMS[name](), PROBLEMS[name]()
    plain.backward()
    explored(watched)
    expected, found = plain.gradients(), watched.gradients()
    assert {key: same_bits(expected[key], found[key]) for key in expected} == dict.fromkeys(expected, True)
    for left, right in zip(plain.modules, watched.modules, strict=True):
        assert all(map(torch.equal, left.buffers(), right.buffers()))


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_leaf_received_what_its_grad_became(name: str) -> None:
    built = PROBLEMS[name]()
    found, gradients, _ = explored(built)
    for number, node in enumerate(found.graph.nodes):
        grad = found.live[number].variable.grad if node.kind == "leaf" else None
        if grad is not None and gradients[number] is not None:
            received, became = gradients[number].received[0], measured(grad)
            # The 2-norm is summed in memory order, which .grad need not share.
            assert received.norm == pytest.approx(became.norm, rel=1e-6, nan_ok=True)
            assert (received.values or ()) == pytest.approx(became.values or (), rel=0, abs=0, nan_ok=True)
            assert (received.shape, received.nans, received.zero) == (became.shape, became.nans, became.zero)


@pytest.mark.parametrize("name", PROBLEMS)
def test_contributions_add_up_to_the_total(name: str) -> None:
    found, gradients, edges = explored(PROBLEMS[name]())
    graph = found.graph
    sums: dict[tuple[int, int], list[Any]] = {}
    for edge, record in zip(graph.edges, edges, strict=True):
        if record is not None and (edge.target, edge.target_slot) not in graph.roots:
            sums.setdefault((edge.target, edge.target_slot), []).append(record)
    checked = 0
    for (node, slot), records in sums.items():
        total = gradients[node].received[slot] if gradients[node] else None
        if total is not None and total.values and all(record.values for record in records):
            parts = [sum(values) for values in zip(*(r.values for r in records), strict=True)]
            assert parts == pytest.approx(list(total.values), rel=1e-2, abs=1e-4, nan_ok=True)
            checked += 1
    assert checked or name in ("empty", "lstm", "attention")  # these have no small gradient


def test_fan_out_keeps_each_share() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    y = x * 1
    found, gradients, edges = explored(Built(((y * 3 + y * 4).sum(),)))
    target = next(edge.source for edge in found.graph.edges if found.graph.nodes[edge.target].kind == "leaf")
    shares = [edges[index].values for index in found.graph.incoming[target]]
    assert sorted(shares) == [(3.0, 3.0), (4.0, 4.0)]
    assert gradients[target].received[0].values == (7.0, 7.0)


@pytest.mark.parametrize("on_leaf", [True, False])
def test_a_hook_that_changes_the_gradient_is_seen_on_the_way(on_leaf: bool) -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * 1
    (x if on_leaf else y).register_hook(lambda grad: grad * 10)
    found, gradients, edges = explored(Built(((y * 3).sum(),)))
    name = "AccumulateGrad" if on_leaf else "MulBackward0"
    target = [node.id for node in found.graph.nodes if node.name == name][-1]
    (edge,) = found.graph.incoming[target]
    assert edges[edge].values == (3.0, 3.0)
    assert gradients[target].received[0].values == (30.0, 30.0)


def test_requested_leaf_and_intermediate_are_recorded_though_their_nodes_do_not_run() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    h = x * 2
    loss = (h * h + h).sum()
    found = trace([loss])
    recorder = Recorder(found, [h, x])
    with capture(found.live, recorder.observe):
        returned = torch.autograd.grad(loss, [h, x])
    gradients, _ = recorder.finish(returned)
    places = {node.name: node.id for node in found.graph.nodes}
    assert x.grad is None
    assert gradients[places["AccumulateGrad"]].received[0].values == tuple(returned[1].tolist())
    requested = [record.received[0].values for record in gradients if record and record.received[0]]
    assert tuple(returned[0].tolist()) in requested


def test_backward_with_inputs_records_the_sum_of_what_came() -> None:
    x, w = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    built = Built(((x * w + x * 3).sum(),), leaves={"x": x, "w": w})
    found, gradients, _ = explored(built, inputs=[x])
    leaf = next(node.id for node in found.graph.leaves() if found.live[node.id].variable is x)
    other = next(node.id for node in found.graph.leaves() if found.live[node.id].variable is w)
    assert gradients[leaf].received[0].values == (4.0, 4.0) == tuple(x.grad.tolist())
    assert gradients[other] is None
    assert w.grad is None


def test_large_gradients_are_statistics() -> None:
    value = torch.randn(SMALL + 1)
    record = measured(value)
    assert record.values is None
    assert record.norm == pytest.approx(value.double().norm().item(), rel=1e-6)
    assert (record.finite, record.zero, record.numel) == (True, False, SMALL + 1)


@pytest.mark.parametrize("count", [3, 100])
@pytest.mark.parametrize(
    "dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64]
)
def test_norm_of_every_type(count: int, dtype: torch.dtype) -> None:
    value = torch.randn(count, dtype=dtype)
    expected = math.sqrt(sum(abs(item) ** 2 for item in value.tolist()))
    assert measured(value).norm == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("count", [4, 100])
def test_nan_and_inf_are_counted(count: int) -> None:
    value = torch.ones(count)
    value[0], value[1], value[2] = math.nan, math.inf, -math.inf
    record = measured(value)
    assert (record.finite, record.nans, record.infs, math.isnan(record.norm)) == (False, 1, 2, True)


@pytest.mark.parametrize(("count", "value"), [(100, 1e-40), (100, 1e30), (4, 1e-40), (4, 1e30)])
def test_squares_neither_underflow_nor_overflow(count: int, value: float) -> None:
    record = measured(torch.full((count,), value))
    assert (record.finite, record.zero) == (True, False)
    assert record.norm == pytest.approx(torch.tensor(value).item() * math.sqrt(count), rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 2), (10, 10), (0, 5)])
def test_zero_is_exact(shape: tuple[int, ...]) -> None:
    record = measured(torch.zeros(shape))
    assert record.norm == 0.0
    assert record.zero is (0 not in shape)


@pytest.mark.parametrize("rows", [3, 100])
def test_uncoalesced_sparse_gradients_are_summed(rows: int) -> None:
    sparse = torch.sparse_coo_tensor(
        torch.tensor([[1, 1]]), torch.ones(2, 2), (rows, 2), check_invariants=True
    )
    record = measured(sparse)
    assert record.norm == pytest.approx(math.sqrt(8))
    assert record.shape == (rows, 2)


def test_meta_tensors_give_nothing() -> None:
    found: list[GradientRecord] = []
    measure(torch.ones(3, device="meta"), Pending(), found.append)
    assert found == []


def test_many_squares_keep_their_digits() -> None:
    """In one float32 sum a large tensor of equal elements would lose three digits."""
    assert measured(torch.full((5_000_001,), 0.1)).norm == pytest.approx(0.1 * math.sqrt(5_000_001), rel=1e-4)


@pytest.mark.parametrize("layout", ["transposed", "channels last", "sliced", "expanded"])
def test_every_memory_order_is_measured(layout: str) -> None:
    value = {
        "transposed": torch.randn(20, 30).t(),
        "channels last": torch.randn(2, 3, 5, 7).to(memory_format=torch.channels_last),
        "sliced": torch.randn(20, 30)[:, ::2],
        "expanded": torch.randn(20, 1).expand(20, 30),
    }[layout]
    assert measured(value).norm == pytest.approx(value.double().norm().item(), rel=1e-6)


def test_a_view_of_a_measured_gradient_is_not_measured_again(monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []

    def counted(tensor: torch.Tensor) -> GradientRecord | None:
        shapes.append(tuple(tensor.shape))
        return at_once(tensor)

    monkeypatch.setattr(recording, "at_once", counted)
    w = torch.randn(20, 30, requires_grad=True)
    _, gradients, _ = explored(Built(((torch.randn(7, 20) @ w.view(600).view(20, 30)).sum(),), {"w": w}))
    assert shapes.count((20, 30)) == 1
    assert (600,) not in shapes
    records = {record.shape: record for row in gradients if row for record in row.received if record}
    assert records[600,].norm == records[20, 30].norm == pytest.approx(w.grad.norm().item())


def test_a_hook_behind_a_view_is_seen() -> None:
    w = torch.randn(20, 30, requires_grad=True)
    view = w.view(600)
    out = view.view(20, 30) * 2
    view.register_hook(lambda grad: grad * 10)
    found, gradients, edges = explored(Built((out.sum(),), {"w": w}))
    (target,) = [node.id for node in found.graph.nodes if node.outputs[0].shape == (600,)]
    (edge,) = found.graph.incoming[target]
    assert gradients[target].received[0].norm == pytest.approx(20 * math.sqrt(600), rel=1e-6)
    assert edges[edge].norm == pytest.approx(2 * math.sqrt(600), rel=1e-6)


def test_the_same_beginning_in_memory_is_not_the_same_elements() -> None:
    base = torch.arange(600.0)
    whole = base[:200]
    record = measured(whole)
    assert in_shape_of(base[:200].view(10, 20), whole, record).shape == (10, 20)
    assert in_shape_of(base[:200].view(10, 20).t(), base[:200].view(10, 20), record).shape == (20, 10)
    for other in (base[::3], base[:100], base[1:201], base[:200].to(torch.float64), base[:1].expand(200)):
        assert in_shape_of(other, whole, record) is None


def test_a_planted_wrong_share_is_noticed() -> None:
    """The comparison used above can fail: different bits, strides and layouts are told apart."""
    value = torch.randn(3, 3)
    assert same_bits(value, value.clone())
    assert not same_bits(value, value * 1.0000001)
    assert not same_bits(value, value.t().contiguous().t())
    assert not same_bits(torch.tensor([0.0]), torch.tensor([-0.0]))
    assert same_bits(torch.tensor([math.nan]), torch.tensor([math.nan]))


@pytest.mark.parametrize("rows", [2, 40])
def test_a_jagged_gradient_is_measured_over_all_its_elements(rows: int) -> None:
    parts = [torch.randn(rows, 3), torch.randn(rows + 1, 3)]
    record = measured(torch.nested.nested_tensor(parts, layout=torch.jagged))
    assert record.numel == (2 * rows + 1) * 3
    assert record.norm == pytest.approx(torch.cat(parts).norm().item(), rel=1e-6)


class Wrapped(torch.Tensor):
    """A wrapper subclass that notes every operation on it."""

    seen: ClassVar[list[str]] = []
    inner: torch.Tensor

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> Wrapped:
        made: Wrapped = torch.Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype)  # type: ignore[attr-defined,assignment] # torch's own way to make one
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        cls.seen.append(str(function))
        args, kwargs = tree_map_only(Wrapped, lambda one: one.inner, (args, kwargs or {}))
        return tree_map_only(torch.Tensor, Wrapped, function(*args, **kwargs))


def test_a_subclass_sees_no_operation_of_ours() -> None:
    """Its Python runs for every operation, so nothing of it is read; the report says so."""

    def run() -> list[str]:
        Wrapped.seen.clear()
        x = Wrapped(torch.arange(3.0)).requires_grad_()
        (x * 2).sin().sum().backward()
        return list(Wrapped.seen)

    plain = run()
    with explorer.watch() as watch:
        watched = run()
    assert watched == plain
    assert watch.report is not None
    assert [one and (one.received, one.unread) for one in watch.report.gradients] == [((None,), 1)] * 4
    assert watch.report.problems == (
        "4 gradients could not be read: reading a Wrapped would run its own __torch_dispatch__",
    )
    assert "not reached" not in str(watch.report)


@pytest.mark.parametrize("asked", [False, True])
def test_gradients_beside_a_subclass_are_measured(asked: bool) -> None:
    """One that cannot be read hides none of the others, neither in the report nor in the light record."""
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    odd = Wrapped(torch.arange(3.0)).requires_grad_()
    steps: list[Step] = []
    with Watch(told=steps.append) as watch:
        losses = [(odd * 2).sum(), (x * 3).sum()]
        Wrapped.seen.clear()
        if asked:
            torch.autograd.grad(losses, [odd, x])
        else:
            torch.autograd.backward(losses)
    report = watch.report
    leaf = next(node.id for node in report.graph.nodes if node.names == ("x",))
    record = report.gradient(leaf)
    assert record is not None
    assert record.values == (3.0, 3.0)
    ran = [one for one in report.gradients if one is not None]
    assert [one.unread for one in ran] == [one.received == (None,) for one in ran]
    assert [step.layers["x"].norm for step in steps] == [pytest.approx(18**0.5)]
    assert watch.problems == []
    assert "aten.clone.default" not in Wrapped.seen


@pytest.mark.parametrize("asked", [False, True])
def test_gradients_without_data_came(asked: bool) -> None:
    """On the device meta there is nothing to measure, and yet they are not missing."""
    w = torch.ones(3, 2, device="meta", requires_grad=True)
    loss = (w * 2).sum()
    with explorer.watch() as watch:
        if asked:
            torch.autograd.grad(loss, w)
        else:
            loss.backward()
    report = watch.report
    assert [one and (one.received, one.unread) for one in report.gradients] == [((None,), 1)] * 3
    assert reading.loads(report.to_json()).reports[0].gradients == report.gradients
    drawn = text.text(report)
    assert ("no data" in drawn, "no grad" in drawn) == (True, False)


def test_a_gradient_that_did_not_come_is_none_and_not_unread() -> None:
    x = torch.ones(4, requires_grad=True)
    first = x.split(2)[0]
    report = explorer.explore(first.sum())
    (split,) = [
        one
        for node, one in zip(report.graph.nodes, report.gradients, strict=True)
        if node.name == "SplitBackward0"
    ]
    assert split is not None
    assert (split.received[1], split.unread) == (None, 0)
