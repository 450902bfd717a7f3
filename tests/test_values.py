"""Forward values: each way of knowing one, against the values torch computed."""

from __future__ import annotations

import pytest
import torch

from explorer.elements import parse_number, rounded
from explorer.graph import Saved
from explorer.values import fill
from tests.small_reports import hand_made, report_of


def test_the_sigmoid_circuit_with_its_published_values() -> None:
    """CS231n's circuit: 1 / (1 + exp(-(w0·x0 + w1·x1 + w2)))."""
    w0, x0, w1, x1, w2 = (torch.tensor(v, requires_grad=True) for v in (2.0, -1.0, -3.0, -2.0, -3.0))
    out = 1 / (1 + torch.exp(-(w0 * x0 + w1 * x1 + w2)))
    report, saved = report_of(out, w0=w0, x0=x0, w1=w1, x1=x1, w2=w2)
    forward = fill(report.graph, report.forward, saved)
    values = {node.id: forward.outputs[node.id, 0].scalar for node in report.graph.nodes}
    inner = sorted(round(value, 2) for node, value in values.items() if value is not None and node <= 6)
    assert inner == [-1.0, 0.37, 0.73, 0.73, 1.0, 1.37, 4.0]
    add_one = report.graph.nodes[2]
    assert add_one.name == "AddBackward0"
    assert forward.arguments[add_one.id, "other"].scalar == 1.0  # not 1.0000001, which the difference gives
    assert forward.arguments[add_one.id, "other"].how == "deduced"
    assert forward.how(3).startswith("saved by ExpBackward0")
    assert forward.how(9) == "recomputed from its inputs"


@pytest.mark.parametrize("constant", [1.0, 0.1, -2.5, 3.0, 1e-3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_constants_are_deduced(constant: float, dtype: torch.dtype) -> None:
    x = torch.tensor(0.3, dtype=dtype, requires_grad=True)
    y = torch.exp(x)
    for made in (y + constant, y - constant, constant - y, y * constant, y / constant):
        report, _ = report_of(torch.exp(made), x=x)
        forward = fill(report.graph, {**report.forward, 1: ((made.item(),),)})
        assert forward.arguments[1, "other"].scalar == pytest.approx(constant, rel=1e-6)


def test_every_value_of_a_small_net_is_found_and_right() -> None:
    torch.manual_seed(0)
    weight = torch.randn(3, 2, requires_grad=True)
    bias = torch.randn(3, requires_grad=True)
    x = torch.randn(4, 2)
    made = [torch.nn.functional.linear(x, weight, bias)]
    made.append(torch.relu(made[-1]))
    made.append(made[-1] * bias)
    made.append(made[-1].reshape(12))
    made.append(made[-1].mean())
    report, saved = report_of(made[-1], weight=weight, bias=bias)
    forward = fill(report.graph, report.forward, saved)
    numbers = {node.name: node.id for node in report.graph.nodes}
    names = ("AddmmBackward0", "ReluBackward0", "MulBackward0", "MeanBackward0")
    for name, tensor in zip(names, (*made[:3], made[-1]), strict=True):
        assert forward.outputs[numbers[name], 0].numbers == pytest.approx(tensor.flatten().tolist(), rel=1e-5)


def test_broadcasting_follows_the_shapes() -> None:
    row = torch.tensor([[1.0, 2.0, 3.0]], requires_grad=True)
    column = torch.tensor([[10.0], [20.0]], requires_grad=True)
    made = row + column
    report, saved = report_of(made.sum(), row=row, column=column)
    forward = fill(report.graph, report.forward, saved)
    assert forward.outputs[1, 0].numbers == tuple(made.flatten().tolist())
    assert forward.outputs[1, 0].how == "recomputed"


def test_recorded_wins_and_unknown_is_said() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    report, _ = report_of(torch.special.i0(x) * 2, x=x)
    forward = fill(report.graph, report.forward)
    assert (0, 0) not in forward.outputs
    assert forward.how(0).startswith("not known")
    recorded = fill(report.graph, {**report.forward, 0: ((4.5,),)})
    assert recorded.outputs[0, 0].scalar == 4.5
    assert recorded.values[0] == ((4.5,),)


def test_a_saved_value_that_torch_refused_is_not_used() -> None:
    names = {0: "SinBackward0", 1: "AccumulateGrad"}
    bad = {0: (Saved("self", text="3.0", problem="modified by an inplace operation"),)}
    report = hand_made(names, ((0, 0, 1, 0),), {1: "x"}, {}, saved=bad)
    assert fill(report.graph).outputs == {}
    good = hand_made(names, ((0, 0, 1, 0),), {1: "x"}, {}, saved={0: (Saved("self", text="3.0"),)})
    assert fill(good.graph).outputs[1, 0].scalar == 3.0


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("2", (2.0,)), ("[1, [2, 3]]", (1.0, 2.0, 3.0)), ("True", (1.0,)), ("-inf", (float("-inf"),)),
     ("mean", None), ("", None), ("__import__('os')", None), ("[1, 'a']", None)],
)  # fmt: skip
def test_numbers_in_words(text: str, numbers: tuple[float, ...] | None) -> None:
    assert parse_number(text) == numbers


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_numbers_are_rounded_as_the_dtype_holds_them(dtype: torch.dtype) -> None:
    name = str(dtype).removeprefix("torch.")
    for number in (1.1, -1.1, 1.00390625, 1.01171875, 3e-41, 3.4e38, -1e39, 0.0, float("inf")):
        assert rounded(number, name) == torch.tensor(number, dtype=torch.float64).to(dtype).item()
    assert rounded(float("nan"), name) != rounded(float("nan"), name)
