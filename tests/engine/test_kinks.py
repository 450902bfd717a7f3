# ruff: noqa: N812 - F is torch's own custom
"""Values at which torch's own backward has conventions: nan, ties, bounds that the dtype rounds."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.engine.op_check import check_outputs

NAN, INF = float("nan"), float("inf")
Function = Callable[[torch.Tensor], torch.Tensor]

# One vector of torch's loops (16 numbers at most), and a rest that its scalar loop takes.
WITH_NAN = [0.5, NAN, -0.5, 0.0, 2.0, -4.0, 5.0, -1.0] * 16 + [NAN, 1.0, NAN]

AT_NAN: dict[str, Function] = {
    "abs": torch.abs,
    "norm 1": lambda x: torch.linalg.vector_norm(x.reshape(-1, 1), 1, 1),
    "norm inf": lambda x: torch.linalg.vector_norm(x.reshape(-1, 1), INF, 1),
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "maximum": lambda x: torch.maximum(x, x.detach() * 0),
    "minimum": lambda x: torch.minimum(x, x.flip(0)),
    "max": torch.max,
    "min": torch.min,
    "amax": lambda x: torch.stack([x, x, x * 0], 1).amax(1),
    "amin": lambda x: torch.stack([x, x * 0], 1).amin(1, keepdim=True),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "logit": lambda x: torch.logit(x, 1e-3),
}


EDGES: dict[str, Callable[..., torch.Tensor]] = {
    "clamp": lambda x, v: x.clamp(-v, v),
    "clamp_min": lambda x, v: x.clamp_min(v),
    "clamp_max": lambda x, v: x.clamp_max(v),
    "hardtanh": lambda x, v: F.hardtanh(x, -v, v),
    "threshold": lambda x, v: F.threshold(x, v, 0.0),
    "hardshrink": lambda x, v: F.hardshrink(x, v),
    "softshrink": lambda x, v: F.softshrink(x, v),
    "logit": lambda x, v: torch.logit(x, v),
    "logit far": lambda x, v: torch.logit(1 - x, v),
}


def statuses(function: Function, values: list[float], dtype: torch.dtype) -> set[str]:
    """What the check says of every node between `values` and their function."""
    x = torch.tensor(values, dtype=dtype, requires_grad=True)
    return {verdict.status for _, verdict in check_outputs([function(x)])}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AT_NAN)
def test_nan_is_no_disagreement(name: str, dtype: torch.dtype) -> None:
    assert not statuses(AT_NAN[name], WITH_NAN, dtype) & {"mismatch", "nan-mismatch"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", EDGES)
def test_an_edge_is_where_the_dtype_has_it(name: str, dtype: torch.dtype) -> None:
    """Float32 and the half types hold no 0.1 and no 0.7: an element clamped to one lies on the edge."""
    for edge in (0.1, 0.3, 0.7, 0.2):
        found = statuses(partial(EDGES[name], v=edge), [edge, -edge, 0.0, 0.9], dtype)
        assert not found & {"mismatch", "nan-mismatch"}, edge


SQUARES: dict[str, Function] = {
    "atan": torch.atan,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "atan2": lambda x: torch.atan2(x, x.detach() * 0.5),
    "addcdiv": lambda x: torch.addcdiv(x.detach(), x.detach(), x),
}


@pytest.mark.parametrize("name", SQUARES)
def test_a_square_beyond_the_range_of_float16(name: str) -> None:
    """700² is infinite in float16, and the gradient that divides by it 0."""
    for values in ([700.0, -700.0, 300.0, 255.9], [255.95, 255.5, 2.0, 3.0], [4e4, -6e4, 100.0, 20.0]):
        assert not statuses(SQUARES[name], values, torch.float16) & {"mismatch", "nan-mismatch"}, values


@pytest.mark.parametrize("name", ["hardtanh", "threshold", "hardshrink", "softshrink"])
def test_an_edge_in_double_backward(name: str) -> None:
    x = torch.tensor([0.1, -0.1, 0.0, 0.9], requires_grad=True)
    g = torch.tensor([1.0, 2.0, 3.0, 4.0], requires_grad=True)
    (first,) = torch.autograd.grad(EDGES[name](x, 0.1), x, g, create_graph=True)
    verdicts = dict(check_outputs([first]))
    assert {one.status for one in verdicts.values()} <= {"match", "unchecked"}, verdicts
    assert any(key.endswith("BackwardBackward0") for key in verdicts)


ODD: dict[str, Function] = {
    "flip without axes": lambda x: x[0].flip(0),
    "flip none": lambda x: x[0].flip([]),
    "lgamma": torch.lgamma,
    "equal rows": lambda x: torch.cdist(x[:1, None].expand(1, 2), x[:, None].expand(-1, 2).repeat(30, 1)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_shapes_and_values(name: str) -> None:
    assert statuses(ODD[name], [0.5, -INF if name == "lgamma" else 0.7, 2.0], torch.float64) == {"match"}


def _mixed(function: Callable[..., torch.Tensor], *dtypes: torch.dtype) -> set[str]:
    torch.manual_seed(0)
    inputs = [torch.randn(7, dtype=dtype, requires_grad=True) for dtype in dtypes]
    return {verdict.status for _, verdict in check_outputs([function(*inputs)])}


@pytest.mark.parametrize(
    "function",
    [
        lambda a, b: torch.maximum(a, b),
        lambda a, b: torch.where(a > 0, a, b),
        lambda a, b: torch.fmax(b, a),
        lambda a, b: torch.cat([a, b]),
        lambda a, b: torch.stack([b, a]),
        lambda a, b: a + b[:1],
    ],
)
def test_a_gradient_cast_to_a_coarser_dtype_is_rounded_once_more(function: Any) -> None:
    assert _mixed(function, torch.float16, torch.float32) == {"match"}
    assert _mixed(function, torch.float32, torch.float64) == {"match"}


def test_a_cumulative_sum_in_another_dtype() -> None:
    """Torch casts its gradient first, and adds up in float16: that is told, and is no mismatch."""
    found = _mixed(lambda a: a.cumsum(0, dtype=torch.float32), torch.float16)
    assert not found & {"mismatch", "unchecked"}


@pytest.mark.parametrize("name", ["elu", "celu", "selu"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_activations_in_place(name: str, dtype: torch.dtype) -> None:
    options = {"elu": {"alpha": 0.7}, "celu": {"alpha": 0.7}, "selu": {}}[name]
    function = partial(getattr(F, name), inplace=True, **options)
    assert statuses(lambda x: function(x * 1), [-9.0, -0.5, 0.0, 0.5, 3.0], dtype) == {"match"}


@pytest.mark.filterwarnings("ignore:var")  # torch's own: degrees of freedom
def test_fewer_elements_than_a_variance_takes_away() -> None:
    assert statuses(lambda x: x.var(correction=5), [1.0, 2.0, 4.0], torch.float64) == {"match"}


def test_celu_in_double_precision() -> None:
    """Torch rounds alpha to float32 whatever the dtype: 2e-6 off at x = -100."""
    assert statuses(lambda x: F.celu(x, 0.7), [-100.0, -20.0, 0.5], torch.float64) == {"match"}


@pytest.mark.parametrize("name", ["abs", "maximum", "max", "amax", "hardtanh", "elu"])
def test_a_wrong_gradient_beside_nan_is_still_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed less at nan is claimed as before everywhere else."""
    from explorer.engine import registry

    for key, rule in list(registry._RULES.items()):
        wrong = registry.Rule(rule.names, _scaled(rule.function))
        monkeypatch.setitem(registry._RULES, key, wrong)
    assert "mismatch" in statuses(AT_NAN[name], [*WITH_NAN[:8], 3.0, 0.25], torch.float32)
    assert "mismatch" in statuses(AT_NAN[name], [0.5, 3.0, -0.25, 0.75, 2.0, 0.125, -0.5, 0.2], torch.float32)


def _scaled(rule: Callable[..., Any], factor: float = 1.0001) -> Callable[..., Any]:
    return lambda n, *g: [None if one is None else one * factor for one in rule(n, *g)]


COMPLEX_EDGES: dict[str, Function] = {
    "sqrt": torch.sqrt,
    "log": torch.log,
    "quotient": lambda x: 2 / x,
    "by zero": lambda x: x / 0,
    "by a tensor": lambda x: x / (x.detach() * 0),
    "root": lambda x: x**0.5,
    "inverse": lambda x: x**-1,
    "power": lambda x: x**1.5,
    "power of a tensor": lambda x: x ** torch.full_like(x, 0.5),
    "inverse of a tensor": lambda x: x ** torch.full_like(x, -1),
}
BAD = {"mismatch", "nan-mismatch", "unchecked"}


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("name", COMPLEX_EDGES)
def test_complex_numbers_at_poles_and_infinity(name: str, dtype: torch.dtype) -> None:
    """Which part is infinite and which nan differs between libraries, and so nothing is claimed of that."""
    values = torch.tensor(
        [0j, 1 + 1j, complex(INF, 0), complex(0, INF), -1 + 0j, complex(-INF, 0)], dtype=dtype
    )
    x = values.repeat(4).requires_grad_()
    assert not {one.status for _, one in check_outputs([COMPLEX_EDGES[name](x)])} & BAD


INFINITE: dict[str, Function] = {
    "digamma": torch.digamma,
    "polygamma 0": lambda x: torch.polygamma(0, x),
    "polygamma 1": lambda x: torch.polygamma(1, x),
    "polygamma 2": lambda x: torch.polygamma(2, x),
    "root": lambda x: x**0.5,
    "inverse root": lambda x: x**-0.5,
    "power": lambda x: x**1.5,
    "power of a tensor": lambda x: x ** torch.full_like(x, 1.5),
    "power of one number": lambda x: x ** torch.tensor(0.5, dtype=x.dtype),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", INFINITE)
def test_poles_and_infinities(name: str, dtype: torch.dtype) -> None:
    """Trigamma at -1, -2, .. is what the rounding of π makes of 1/sin²; a square root of -inf is nan."""
    values = [-1.0, -2.0, -7.0, 0.0, -0.0, INF, -INF, NAN, 0.5, -1.5, 2.0] * 3
    assert not statuses(INFINITE[name], values, dtype) & BAD


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("matrix", [[[0.0] * 2] * 2, [[1.0, 2.0], [2.0, 4.0]], [[1.0, 2.0], [3.0, 4.0]]])
def test_singular_matrices(matrix: list[list[float]], dtype: torch.dtype) -> None:
    both = torch.tensor([matrix, [[1.0, 2.0], [3.0, 4.0]]], dtype=dtype, requires_grad=True)
    for function in (torch.linalg.det, torch.linalg.slogdet):
        found = function(both)
        result = found if isinstance(found, torch.Tensor) else found.logabsdet
        assert not {one.status for _, one in check_outputs([result])} & BAD


TINY: dict[str, Function] = {
    "hypot": lambda x: torch.hypot(x, x.flip(0).detach()),
    "hypot of equals": lambda x: torch.hypot(x, x.detach()),
    "cumprod": lambda x: x.cumprod(0),
    "cumprod of few": lambda x: x[2:6].cumprod(0),
    "cumprod with a zero": lambda x: x[4:].cumprod(0),
}


@pytest.mark.parametrize("name", TINY)
def test_subnormal_numbers_of_float16(name: str) -> None:
    values = [3e-3, 0.5, 1e-4, 6e-8, 1e-7, 3000.0, 1e-6, 0.0, 0.1, 2.0, 5e-5]
    assert not statuses(TINY[name], values, torch.float16) & BAD
    assert not statuses(TINY[name], [3e-3, 2e-3, 4e-3, 3e-3, 5e-3, 6.0], torch.float16) & BAD


def test_subnormal_numbers_hide_no_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    from explorer.engine import registry

    for key in ("HypotBackward0", "CumprodBackward0"):
        rule = registry._RULES[key]
        monkeypatch.setitem(registry._RULES, key, registry.Rule(rule.names, _scaled(rule.function, 1.05)))
        values = [0.5, 1.5, -0.75, 2.0]
        assert "mismatch" in statuses(TINY[key[:-9].lower()], values, torch.float16)


@pytest.mark.parametrize("name", ["elu", "celu", "selu", "hardswish", "softplus"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_in_double_backward(name: str, dtype: torch.dtype) -> None:
    def slope(g: torch.Tensor) -> torch.Tensor:
        x = torch.tensor(WITH_NAN, dtype=dtype, requires_grad=True)
        return torch.autograd.grad(getattr(F, name)(x), x, g, create_graph=True)[0]

    assert not statuses(slope, [1.0] * len(WITH_NAN), dtype) & BAD


@pytest.mark.parametrize("padding", [None, 1])
def test_the_maximum_of_an_empty_bag(padding: int | None) -> None:
    """Torch notes row 0 as the winner of a bag without rows, and sends nothing there."""
    weight = torch.randn(5, 3, requires_grad=True)
    bags = F.embedding_bag(
        torch.tensor([1, 1, 3, 0, 2]), weight, torch.tensor([0, 0, 2, 5]), mode="max", padding_idx=padding
    )
    assert {one.status for _, one in check_outputs([bags])} == {"match"}
