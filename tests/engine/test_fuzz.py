# ruff: noqa: E501 - a row of the table stays a row
"""No false alarm, whatever the shapes, strides, dtypes, values and operations: a fuzz of the whole check.

Each example is a small program on leaves of odd layouts; every gradient array of its backward goes through
the check. The short run is part of the suite; ``-m long`` compares at least 100,000 gradient arrays.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from explorer.check import Checker
from explorer.consistency import altered_values
from explorer.report import BAD_STATUSES
from explorer.trace import trace
from hooks.nodes import capture

SHORT, LONG = 250, 30_000
ARRAYS = 100_000

Make = Callable[[Tensor, Callable[..., Tensor]], Tensor]
"""From an input of any shape, and a source of further leaves of a given shape, to a result."""


def _matrix(x: Tensor) -> Tensor:
    return x.reshape(-1, x.shape[-1]) if x.dim() else x.reshape(1, 1)


def _image(x: Tensor) -> Tensor:
    return x if x.dim() == 4 else x.reshape(1, 1, -1, x.shape[-1] if x.dim() else 1)


def _labels(x: Tensor) -> Tensor:
    return torch.arange(x.shape[0]) % x.shape[1]


def _norm_weight(x: Tensor, leaf: Callable[..., Tensor]) -> tuple[Tensor, Tensor]:
    return leaf(x.shape[-1]), leaf(x.shape[-1])


OPERATIONS: dict[str, Make] = {
    "exp": lambda x, _: x.clamp(max=20).exp(), "log": lambda x, _: (x.abs() + 0.01).log(), "sqrt": lambda x, _: (x.abs() + 0.01).sqrt(),
    "rsqrt": lambda x, _: (x * x + 0.1).rsqrt(), "sin": lambda x, _: x.sin(), "tanh": lambda x, _: x.tanh(), "sigmoid": lambda x, _: x.sigmoid(),
    "erf": lambda x, _: x.erf(), "abs": lambda x, _: x.abs(), "relu": lambda x, _: x.relu(), "gelu": lambda x, _: F.gelu(x),
    "gelu tanh": lambda x, _: F.gelu(x, approximate="tanh"), "silu": lambda x, _: F.silu(x), "elu": lambda x, _: F.elu(x), "mish": lambda x, _: F.mish(x),
    "softplus": lambda x, _: F.softplus(x), "hardswish": lambda x, _: F.hardswish(x), "leaky": lambda x, _: F.leaky_relu(x),
    "pow": lambda x, _: x**3, "pow tensor": lambda x, leaf: (x.abs() + 0.1) ** leaf(*x.shape).tanh(), "clamp": lambda x, _: x.clamp(-0.5, 0.5),
    "add": lambda x, leaf: x + leaf(*x.shape[1:]), "sub": lambda x, leaf: torch.sub(x, leaf(*x.shape), alpha=3), "mul": lambda x, leaf: x * leaf(1, *x.shape[1:]),
    "div": lambda x, leaf: x / (leaf(*x.shape[-1:]).abs() + 0.1), "square": lambda x, _: x * x, "where": lambda x, leaf: torch.where(x > 0, x, leaf(*x.shape)),
    "maximum": lambda x, leaf: torch.maximum(x, leaf(*x.shape)), "masked": lambda x, _: x.masked_fill(x > 0, 2.0),
    "sum": lambda x, _: x.sum(), "sum along": lambda x, _: x.sum(-1), "mean": lambda x, _: x.mean(0) if x.dim() else x.mean(), "var": lambda x, _: _matrix(x).var(0, correction=0),
    "norm": lambda x, _: torch.linalg.vector_norm(x), "amax": lambda x, _: _matrix(x).amax(1), "max": lambda x, _: _matrix(x).max(0).values, "min of all": lambda x, _: x.min(),
    "logsumexp": lambda x, _: _matrix(x).logsumexp(1), "cumsum": lambda x, _: _matrix(x).cumsum(0), "sort": lambda x, _: _matrix(x).sort(1).values, "topk": lambda x, _: _matrix(x).topk(1, 1).values,
    "softmax": lambda x, _: _matrix(x).softmax(-1), "log_softmax": lambda x, _: _matrix(x).log_softmax(0),
    "mm": lambda x, leaf: _matrix(x) @ leaf(_matrix(x).shape[1], 5), "mv": lambda x, leaf: _matrix(x) @ leaf(_matrix(x).shape[1]), "bmm": lambda x, leaf: torch.bmm(_matrix(x)[None], leaf(1, _matrix(x).shape[1], 3)),
    "linear": lambda x, leaf: F.linear(_matrix(x), leaf(4, _matrix(x).shape[1]), leaf(4)), "outer": lambda x, leaf: x[..., None] * leaf(3),
    "reshape": lambda x, _: x.reshape(-1), "transpose": lambda x, _: _matrix(x).t(), "permute": lambda x, _: x.permute(tuple(reversed(range(x.dim())))), "flip": lambda x, _: x.flip(tuple(range(x.dim()))),
    "expand": lambda x, _: x.expand(3, *x.shape), "repeat": lambda x, _: x.repeat(2, *[1] * x.dim()), "roll": lambda x, _: x.roll(1), "slice": lambda x, _: _matrix(x)[::2, :1], "select": lambda x, _: _matrix(x)[-1],
    "cat": lambda x, leaf: torch.cat([_matrix(x), leaf(2, _matrix(x).shape[1])]), "stack": lambda x, leaf: torch.stack([x, leaf(*x.shape)], -1), "split": lambda x, _: _matrix(x).chunk(2)[0], "pad": lambda x, _: F.pad(x, (1, 2)) if x.dim() else x,
    "index": lambda x, _: _matrix(x)[torch.tensor([0, -1, 0])], "index_select": lambda x, _: _matrix(x).index_select(1, torch.tensor([0, 0])), "gather": lambda x, _: _matrix(x).gather(0, torch.zeros(2, _matrix(x).shape[1], dtype=torch.long)),
    "scatter_add": lambda x, leaf: _matrix(x).scatter_add(0, torch.zeros(2, _matrix(x).shape[1], dtype=torch.long), leaf(2, _matrix(x).shape[1])), "index_add": lambda x, leaf: _matrix(x).index_add(0, torch.tensor([0, 0]), leaf(2, _matrix(x).shape[1])),
    "embedding": lambda x, _: F.embedding(torch.tensor([[0, 0], [0, 0]]), _matrix(x)),
    "conv": lambda x, leaf: F.conv2d(_image(x), leaf(2, _image(x).shape[1], 3, 3), leaf(2), padding=1), "conv stride": lambda x, leaf: F.conv2d(_image(x), leaf(2, _image(x).shape[1], 3, 3), stride=2, padding=2),
    "max_pool": lambda x, _: F.max_pool2d(_image(x), 2, 1, 1), "avg_pool": lambda x, _: F.avg_pool2d(_image(x), 2, 1, 1), "adaptive": lambda x, _: F.adaptive_avg_pool2d(_image(x), (2, 1)), "nearest": lambda x, _: F.interpolate(_image(x), scale_factor=2),
    "layer_norm": lambda x, leaf: F.layer_norm(_matrix(x), (_matrix(x).shape[-1],), *_norm_weight(_matrix(x), leaf)), "batch_norm": lambda x, leaf: F.batch_norm(torch.cat([_matrix(x), leaf(3, _matrix(x).shape[-1])]), None, None, *_norm_weight(_matrix(x), leaf), True),
    "attention": lambda x, leaf: F.scaled_dot_product_attention(_matrix(x)[None, None], leaf(1, 1, 4, _matrix(x).shape[1]), leaf(1, 1, 4, _matrix(x).shape[1])),
    "mse": lambda x, leaf: F.mse_loss(x, leaf(*x.shape)), "smooth_l1": lambda x, leaf: F.smooth_l1_loss(x, leaf(*x.shape)), "huber": lambda x, leaf: F.huber_loss(x, leaf(*x.shape)), "bce": lambda x, _: F.binary_cross_entropy_with_logits(x, (x > 0).to(x.dtype)),
    "cross_entropy": lambda x, _: F.cross_entropy(_matrix(x), _labels(_matrix(x))), "kl": lambda x, leaf: F.kl_div(_matrix(x).log_softmax(1), leaf(*_matrix(x).shape).softmax(1).detach(), reduction="batchmean"),
}  # fmt: skip

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda x: x,
    "transposed": lambda x: x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() else x,
    "strided": lambda x: torch.stack([x, x], -1).flatten(-2)[..., ::2] if x.dim() else x,
    "offset": lambda x: torch.cat([x[:1], x])[1:] if x.dim() else x,
    "channels_last": lambda x: x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x,
    "expanded": lambda x: x[..., :1].expand(x.shape) if x.dim() else x,
}

VALUES: dict[str, Callable[[Tensor], Tensor]] = {
    "normal": lambda x: x,
    "large": lambda x: x * 1e3,
    "small": lambda x: x * 1e-4,
    "ties": lambda x: x.round(),
    "zeros": lambda x: x * (x > 0),
    "shifted": lambda x: x + 100,
}


@dataclass(frozen=True)
class Example:
    """One program: operations one after the other on a leaf of this shape, layout, dtype and kind of values."""

    operations: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: torch.dtype
    layout: str
    values: str
    upstream: str
    seed: int


examples = st.builds(
    Example,
    st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, max_size=3).map(tuple),
    st.lists(st.integers(1, 6), min_size=0, max_size=4).map(tuple),
    st.sampled_from([torch.float32, torch.float64]),
    st.sampled_from(sorted(LAYOUTS)),
    st.sampled_from(sorted(VALUES)),
    st.sampled_from(sorted(VALUES)),
    st.integers(0, 2**20),
)


def check(example: Example) -> int:
    """Run one program's backward through the check; the number of gradient arrays compared.

    Raises:
        AssertionError: a false alarm, of a gradient or a forward value, or a node that was not checked.
    """
    generator = torch.Generator().manual_seed(example.seed)

    def numbers(shape: tuple[int, ...], kind: str) -> Tensor:
        plain = torch.randn(shape, generator=generator, dtype=torch.float64)
        return VALUES[kind](plain).to(example.dtype)

    def leaf(*shape: int) -> Tensor:
        return numbers(shape, example.values).requires_grad_()

    x = LAYOUTS[example.layout](numbers(example.shape, example.values)).detach().requires_grad_()
    result: Any = x
    for name in example.operations:
        result = OPERATIONS[name](result, leaf)
    upstream = LAYOUTS[example.layout](numbers(tuple(result.shape), example.upstream)).to(result.dtype)
    found = trace([result])
    assert altered_values(found, [result])[0] == ()
    checker = Checker(found)
    with capture(found.live, checker.observe) as watching:
        result.backward(upstream)
    assert watching.problem == ""
    verdicts, _ = checker.finish()
    for verdict in verdicts:
        node = found.graph.nodes[verdict.node]
        assert verdict.status not in BAD_STATUSES, (node.name, verdict)
        told = verdict.reason in (
            "no gradient reached or left it",
            "its gradient is the one backward was given",
            "no finite error bound",
        )
        assert verdict.status != "unchecked" or told, (node.name, verdict)
    return len(found.graph.edges)


def _fuzz(count: int) -> int:
    """Check `count` examples; the number of gradient arrays compared in all."""
    compared = 0

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )  # fmt: skip
    @given(examples)
    def each(example: Example) -> None:
        nonlocal compared
        compared += check(example)

    each()
    return compared


def test_no_false_alarm_in_a_short_run() -> None:
    assert _fuzz(SHORT) > 2 * SHORT


@pytest.mark.long
def test_no_false_alarm_over_a_hundred_thousand_gradients() -> None:
    compared = _fuzz(LONG)
    print(f"{compared:,} gradient arrays, no false alarm")
    assert compared >= ARRAYS


@pytest.mark.parametrize("operation", OPERATIONS)
def test_each_operation_on_its_own(operation: str) -> None:
    for dtype in (torch.float32, torch.float64):
        for values in VALUES:
            check(Example((operation,), (3, 4), dtype, "transposed", values, "normal", 1))


def test_the_fuzz_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    from explorer.engine import registry

    rule = registry._RULES["SinBackward0"]
    wrong = registry.Rule(rule.names, lambda n, g: [g * n.self.cos() * 1.00001])
    monkeypatch.setitem(registry._RULES, "SinBackward0", wrong)
    with pytest.raises(AssertionError, match="mismatch"):
        check(Example(("sin",), (3, 4), torch.float32, "contiguous", "normal", "normal", 1))
