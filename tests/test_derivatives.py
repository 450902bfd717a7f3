"""Values and slopes of the table against torch, and local derivatives of whole graphs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch.nn import functional

import explorer
from explorer.comparison import central_differences
from explorer.derivatives import local_derivatives, multiplied
from explorer.graph import TensorSpec
from explorer.mathematics import local_text
from explorer.operations import OPERATIONS, Operation
from explorer.render import dot, json
from explorer.report import GradientRecord, NodeGradients
from explorer.values import fill
from tests.small_reports import hand_made, report_of, scalar

Make = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]

UNARY = [
    "sqrt",
    "rsqrt",
    "exp",
    "exp2",
    "expm1",
    "log",
    "log2",
    "log10",
    "log1p",
    "sin",
    "cos",
    "tan",
    "asin",
    "acos",
    "atan",
    "sinh",
    "cosh",
    "tanh",
    "asinh",
    "atanh",
    "sigmoid",
    "relu",
    "erf",
    "erfc",
    "abs",
    "frac",
]

CASES: dict[str, Make] = {
    "add": lambda a, b: torch.add(a, b, alpha=3),
    "add constant": lambda a, b: a + 2,
    "sub": lambda a, b: torch.sub(a, b, alpha=0.5),
    "rsub": lambda a, b: 1 - a,
    "mul": lambda a, b: a * b,
    "mul constant": lambda a, b: 3 * a,
    "square": lambda a, b: a * a,
    "div": lambda a, b: a / b,
    "div by a constant": lambda a, b: a / 4,
    "addcmul": lambda a, b: torch.addcmul(a, a, b, value=0.3),
    "addcdiv": lambda a, b: torch.addcdiv(a, a, b, value=0.3),
    "lerp": lambda a, b: torch.lerp(a, b, 0.3),
    "neg": lambda a, b: -a,
    "reciprocal": lambda a, b: a.reciprocal(),
    "fmod": lambda a, b: torch.fmod(b, a),
    "remainder": lambda a, b: torch.remainder(b, a),
    "pow": lambda a, b: a**b,
    "pow number": lambda a, b: a**3,
    "number pow": lambda a, b: 2**a,
    **{name: (lambda a, b, name=name: getattr(torch, name)(a)) for name in UNARY},
    "acosh": lambda a, b: torch.acosh(b),
    "xlogy": torch.xlogy,
    "logaddexp": torch.logaddexp,
    "hypot": torch.hypot,
    "atan2": torch.atan2,
    "leaky_relu": lambda a, b: functional.leaky_relu(-a, 0.1),
    "elu": lambda a, b: functional.elu(-a, 1.5),
    "selu": lambda a, b: functional.selu(-a),
    "gelu": lambda a, b: functional.gelu(a),
    "gelu tanh": lambda a, b: functional.gelu(a, approximate="tanh"),
    "silu": lambda a, b: functional.silu(a),
    "mish": lambda a, b: functional.mish(a),
    "softplus": lambda a, b: functional.softplus(a, beta=2.0),
    "logsigmoid": lambda a, b: functional.logsigmoid(a),
    "hardtanh": lambda a, b: functional.hardtanh(a, -0.5, 2.0),
    "hardsigmoid": lambda a, b: functional.hardsigmoid(a),
    "threshold": lambda a, b: functional.threshold(a, 0.1, 7.0),
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "maximum tie": lambda a, b: torch.maximum(a, a * 1),
    "clamp": lambda a, b: a.clamp(0.1, 0.9),
    "clamp edge": lambda a, b: a.clamp(min=0.7),
    "clamp above": lambda a, b: a.clamp(max=0.2),
    "where": lambda a, b: torch.where(a > b, a, b),
    "one by one product": lambda a, b: a.reshape(1, 1) @ b.reshape(1, 1),
    "views": lambda a, b: a.reshape(1, 1).t().expand(1, 1).sum(),
    "custom": lambda a, b: Cube.apply(a),
}


class Cube(torch.autograd.Function):
    """x³, with a backward of its own: only the ratio of gradients tells its derivative."""

    @staticmethod
    def forward(ctx, x):  # type: ignore[no-untyped-def]  # torch's own signature is untyped
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, grad):  # type: ignore[no-untyped-def]  # the same
        (x,) = ctx.saved_tensors
        return grad * 3 * x * x


@pytest.mark.parametrize("name", CASES)
def test_upstream_times_local_is_what_torch_sent(name: str) -> None:
    a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
    b = torch.tensor(1.9, dtype=torch.float64, requires_grad=True)
    loss = CASES[name](a, b).reshape(()) * 1.5
    report, saved = report_of(loss, a=a, b=b)
    found = local_derivatives(report, fill(report.graph, report.forward, saved))
    assert found
    for (index, slot), local in found.items():
        edge = report.graph.edges[index]
        upstream, sent = report.gradient(edge.source, slot), report.edge_gradients[index]
        if upstream is None or sent is None:
            continue
        assert upstream.values is not None
        assert sent.values is not None
        assert local.value is not None, (name, report.graph.nodes[edge.source].name, local)
        rel = 1e-7 if name == "hardsigmoid" else 1e-9  # torch multiplies by a float32 1/6 even in float64
        assert upstream.values[0] * local.value == pytest.approx(sent.values[0], rel=rel, abs=1e-12)
        assert not local.note.startswith("torch sent")


def test_most_cases_use_the_formula_and_not_the_ratio() -> None:
    ratio = set()
    for name, make in CASES.items():
        a = torch.tensor(0.7, dtype=torch.float64, requires_grad=True)
        b = torch.tensor(1.9, dtype=torch.float64, requires_grad=True)
        report, saved = report_of(make(a, b).reshape(()) * 1.5, a=a, b=b)
        local = local_derivatives(report, fill(report.graph, report.forward, saved))
        if any(item.basis != "formula" for item in local.values()):
            ratio.add(name)
    assert ratio <= {"custom", "gelu tanh"}


SETTINGS = {
    "self": 0.6, "other": 1.4, "alpha": 1.3, "value": 0.4, "weight": 0.3, "end": 0.9, "exponent": 1.7,
    "min": -2.0, "max": 2.0, "min_val": -2.0, "max_val": 2.0, "beta": 1.5, "threshold": 0.1, "scale": 1.2,
    "negative_slope": 0.1, "input_scale": 1.0, "tensor1": 0.8, "tensor2": 1.6, "condition": 1.0, "mask": 0.0,
}  # fmt: skip
COMPUTABLE = [key for key, item in OPERATIONS.items() if item.value]


def slope_errors(key: str, item: Operation) -> list[str]:
    """The slopes of one row that a central difference of its own value contradicts."""
    assert item.value is not None
    here = SETTINGS | ({"self": 1.6} if key == "acosh" else {})
    wrong = []
    for name, slope in item.slope.items():
        value = item.value

        def along(point, name=name, value=value):  # type: ignore[no-untyped-def]  # a lambda with a name
            return value({**here, name: point[0]})

        (expected,) = central_differences(along, [here[name]])
        if slope({**here, "result": value(here)}) != pytest.approx(expected, rel=1e-6, abs=1e-8):
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("key", COMPUTABLE)
def test_each_slope_is_the_derivative_of_its_own_value(key: str) -> None:
    assert slope_errors(key, OPERATIONS[key]) == []


def test_the_slope_test_catches_a_wrong_slope() -> None:
    sine = OPERATIONS["sin"]
    wrong = replace(sine, slope={"self": lambda v: 1.001 * sine.slope["self"](v)})
    assert slope_errors("sin", wrong) == ["self"]


def test_formulas_take_the_names_of_the_graph() -> None:
    assert local_text("MulBackward0", "self", {"self": "q", "other": "z"}) == "∂(q·z)/∂q = z"
    assert local_text("MulBackward0", "self", {"self": "q"}) == "∂(q·other)/∂q = other"
    assert local_text("NoSuchBackward0", "self") == ""


def test_a_gradient_that_is_not_upstream_times_local_is_noted() -> None:
    report = hand_made(
        {0: "MulBackward0", 1: "AccumulateGrad", 2: "AccumulateGrad"},
        ((0, 0, 1, 0), (0, 1, 2, 0)),
        {0: "f", 1: "x", 2: "y"},
        {0: 1.0, 1: 5.5, 2: 3.0},
        {1: 3.0, 2: 5.0},
    )
    local = local_derivatives(report)
    assert (local[0, 0].value, local[0, 0].note) == (5.0, "torch sent 5.5, not 5")
    assert (local[1, 0].value, local[1, 0].note) == (3.0, "")


def test_without_values_and_with_upstream_zero_nothing_is_claimed() -> None:
    names = {0: "SinBackward0", 1: "AccumulateGrad"}
    report = hand_made(names, ((0, 0, 1, 0),), {1: "x"}, {0: 0.0, 1: 0.0})
    local = local_derivatives(report)[0, 0]
    assert (local.value, local.basis) == (None, "unknown")
    assert "0" in local.note


def test_a_ratio_says_that_it_is_one() -> None:
    report = hand_made({0: "MineBackward", 1: "AccumulateGrad"}, ((0, 0, 1, 0),), {1: "x"}, {0: 2.0, 1: 7.0})
    local = local_derivatives(report)[0, 0]
    assert (local.value, local.basis) == (3.5, "ratio")


def test_a_tensor_has_no_single_local_derivative() -> None:
    report = hand_made({0: "SumBackward0", 1: "AccumulateGrad"}, ((0, 0, 1, 0),), {1: "x"}, {0: 1.0})
    vector = replace(report.graph.nodes[1], outputs=(TensorSpec((3,), "float64"),))
    graph = replace(report.graph, nodes=(report.graph.nodes[0], vector))
    whole = GradientRecord((3,), "float64", 3**0.5, numel=3, values=(1.0, 1.0, 1.0))
    report = replace(
        report, graph=graph, gradients=(NodeGradients((scalar(1.0),)), NodeGradients((whole,), index=1))
    )
    local = local_derivatives(report)[0, 0]
    assert (local.value, local.basis) == (None, "tensor")


def test_the_tooltips_of_a_long_scalar_graph_have_the_products_too() -> None:
    x = torch.tensor(0.4, requires_grad=True)
    y = x
    for _ in range(40):
        y = torch.sin(y) * 1.1
    report, saved = report_of(y, x=x)
    report = replace(report, forward=fill(report.graph, report.forward, saved).values)
    assert len(report.graph.nodes) > 60
    drawn = dot.source(report, full=True)
    assert "upstream" not in drawn  # no circuit
    for index in range(len(report.graph.edges)):
        said = multiplied(report, local_derivatives(report)[index, 0])
        assert said.partition(",")[0] in drawn


def test_the_tooltip_of_a_wire_between_tensors_works_one_element_out() -> None:
    x = torch.randn(3, 4, requires_grad=True)
    report = explorer.explore((x @ torch.randn(4, 2)).sum())
    (element,) = report.elements.values()
    assert element.text.split(" + ")[0] in dot.source(report)
    assert json.loads(json.dumps(report)).reports[0].elements == report.elements
