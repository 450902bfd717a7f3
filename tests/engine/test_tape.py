# ruff: noqa: E501 - a row of the table stays a row
"""The engine on its own against torch, function by function: values and every gradient, in float64."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom

from explorer import engine
from explorer.errors import EngineError, ShapeError

S = (3, 4)
INDEX = [[1, 3, 3], [0, 2, 1], [3, 0, 0]]
LABELS = [1, 0, 3]
MASK = [[1, 0, 1, 0], [0, 0, 1, 1], [1, 1, 1, 0]]

Row = tuple[Callable[..., Any], Callable[..., Any], list[tuple[int, ...]]]


def both(function: Callable[..., Any], *shapes: tuple[int, ...]) -> Row:
    """The same expression for engine and torch."""
    return function, function, list(shapes)


T: dict[str, Row] = {
    # arithmetic, with broadcasting
    "add": both(lambda a, b: a + b, S, (4,)), "sub": both(lambda a, b: a - b, S, (3, 1)), "mul": both(lambda a, b: a * b, S, (1, 4)),
    "div": both(lambda a, b: a / (b * b + 1), S, S), "pow": both(lambda a: (a * a + 1) ** 2.5, S), "square": both(lambda a: a**2, S),
    "pow tensor": both(lambda a, b: (a * a + 1) ** b, S, (4,)), "neg": both(lambda a: -a, S), "abs": both(abs, S),
    "numbers": both(lambda a: 2 - (1 + a * 3 - 2) / 4, S), "number over": both(lambda a: 3 / (a * a + 1), S),
    # functions of each element
    "exp": both(lambda a: a.exp(), S), "log": both(lambda a: (a * a + 0.1).log(), S), "sqrt": both(lambda a: (a * a + 0.1).sqrt(), S),
    "reciprocal": both(lambda a: (a * a + 1).reciprocal(), S), "sin": both(lambda a: a.sin(), S), "cos": both(lambda a: a.cos(), S),
    "tanh": both(lambda a: a.tanh(), S), "sigmoid": both(lambda a: a.sigmoid(), S), "relu": both(lambda a: a.relu(), S),
    "erf": both(lambda a: a.erf(), S), "gelu": (lambda a: a.gelu(), F.gelu, [S]), "silu": (lambda a: a.silu(), F.silu, [S]),
    "softplus": (lambda a: a.softplus(), F.softplus, [S]), "clamp": both(lambda a: a.clamp(-0.5, 0.7), S),
    "maximum": both(lambda a, b: a.maximum(b), S, (4,)), "minimum": both(lambda a, b: a.minimum(b), S, (4,)),
    # reductions
    "sum": both(lambda a: a.sum(), S), "sum along": both(lambda a: a.sum(0), S), "sum kept": both(lambda a: a / a.sum(1, True), S),
    "mean": both(lambda a: a.mean(), S), "mean along": both(lambda a: a.mean(-1), S), "mean of two": both(lambda a: a.mean((0, 2)), (2, 3, 4)),
    "amax": both(lambda a: a.amax(1), S), "amin": both(lambda a: a.amin(0), S),
    # products
    "matmul": both(lambda a, b: a @ b, S, (4, 5)), "batched": both(lambda a, b: a @ b, (2, 3, 4), (2, 4, 5)),
    "batch broadcast": both(lambda a, b: a @ b, (2, 3, 4), (4, 5)), "matrix vector": both(lambda a, b: a @ b, S, (4,)),
    "vector matrix": both(lambda a, b: a @ b, (3,), S), "dot": both(lambda a, b: a @ b, (4,), (4,)), "gram": both(lambda a: a @ a.T, S),
    # views
    "reshape": both(lambda a: a.reshape(2, -1), S), "permute": both(lambda a: a.permute(2, 0, 1), (2, 3, 4)),
    "transpose": both(lambda a: a.transpose(0, 2), (2, 3, 4)), "expand": both(lambda a: a.expand(2, 3, 4), (3, 1)),
    "unsqueeze": both(lambda a: a.unsqueeze(1), S), "item": both(lambda a: a[1, -1], S), "slices": both(lambda a: a[1:, ::2] * 2, S),
    "cat": (lambda a, b: engine.cat([a, b, a], 1), lambda a, b: torch.cat([a, b, a], 1), [S, (3, 2)]),
    "stack": (lambda a, b: engine.stack([a, b], 1), lambda a, b: torch.stack([a, b], 1), [S, S]),
    # choosing
    "where": (lambda a, b: engine.where(engine.tensor(MASK), a, b), lambda a, b: torch.where(torch.tensor(MASK).bool(), a, b), [S, S]),
    "embedding": (lambda w: engine.embedding(w, engine.tensor(INDEX)), lambda w: F.embedding(torch.tensor(INDEX), w), [(5, 2)]),
    "gather": (lambda a: engine.gather(a, 1, engine.tensor(INDEX)), lambda a: a.gather(1, torch.tensor(INDEX)), [S]),
    # softmax
    "softmax": (lambda a: engine.softmax(a, 0), lambda a: a.softmax(0), [S]), "log_softmax": (engine.log_softmax, lambda a: a.log_softmax(-1), [S]),
    "logsumexp": (lambda a: engine.logsumexp(a, 1), lambda a: a.logsumexp(1), [S]),
    # convolution and pooling
    "conv2d": (engine.conv2d, F.conv2d, [(2, 3, 5, 6), (4, 3, 3, 2), (4,)]), "conv2d plain": (engine.conv2d, F.conv2d, [(2, 3, 5, 6), (4, 3, 3, 2)]),
    "conv2d all": (lambda x, w: engine.conv2d(x, w, None, (2, 1), 2, (1, 2), 2), lambda x, w: F.conv2d(x, w, None, (2, 1), 2, (1, 2), 2), [(2, 4, 5, 6), (6, 2, 3, 2)]),
    "max_pool2d": (lambda x: engine.max_pool2d(x, 2), lambda x: F.max_pool2d(x, 2), [(2, 3, 5, 6)]),
    "max_pool2d padded": (lambda x: engine.max_pool2d(x, 3, 2, 1), lambda x: F.max_pool2d(x, 3, 2, 1), [(2, 3, 5, 6)]),
    "avg_pool2d": (lambda x: engine.avg_pool2d(x, (2, 3), 1, (1, 0)), lambda x: F.avg_pool2d(x, (2, 3), 1, (1, 0)), [(2, 3, 5, 6)]),
}  # fmt: skip

for reduction in ("mean", "sum", "none"):
    T |= {
        f"mse {reduction}": (lambda a, b, r=reduction: engine.mse_loss(a, b, r), lambda a, b, r=reduction: F.mse_loss(a, b, reduction=r), [S, S]),
        f"l1 {reduction}": (lambda a, b, r=reduction: engine.l1_loss(a, b, r), lambda a, b, r=reduction: F.l1_loss(a, b, reduction=r), [S, S]),
        f"bce {reduction}": (lambda a, b, r=reduction: engine.binary_cross_entropy_with_logits(a, b, r), lambda a, b, r=reduction: F.binary_cross_entropy_with_logits(a, b, reduction=r), [S, S]),
        f"nll {reduction}": (lambda a, r=reduction: engine.nll_loss(a, engine.tensor(LABELS), r), lambda a, r=reduction: F.nll_loss(a, torch.tensor(LABELS), reduction=r), [S]),
        f"cross entropy {reduction}": (lambda a, r=reduction: engine.cross_entropy(a, engine.tensor(LABELS), r), lambda a, r=reduction: F.cross_entropy(a, torch.tensor(LABELS), reduction=r), [S]),
    }  # fmt: skip


def flat(nested: Any) -> list[float]:
    return [one for part in nested for one in flat(part)] if isinstance(nested, list) else [nested]


@pytest.mark.parametrize("name", T)
def test_value_and_gradients_are_torchs(name: str) -> None:
    ours, theirs, shapes = T[name]
    torch.manual_seed(7)
    tensors = [torch.randn(shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    mine = [engine.tensor(one.tolist(), requires_grad=True) for one in tensors]
    expected, found = theirs(*tensors), ours(*mine)
    assert found.shape == expected.shape
    assert flat(found.tolist()) == pytest.approx(flat(expected.tolist()), rel=1e-12, abs=1e-14)
    upstream = torch.randn(expected.shape, dtype=torch.float64)
    expected.backward(upstream)
    found.backward(engine.tensor(upstream.tolist()))
    for one, own in zip(tensors, mine, strict=True):
        assert one.grad is not None
        assert own.grad is not None
        assert own.grad.shape == own.shape
        assert flat(own.grad.tolist()) == pytest.approx(flat(one.grad.tolist()), rel=1e-11, abs=1e-13)


def test_no_library_is_imported() -> None:
    code = "import sys; from explorer import engine; print([m for m in ('torch', 'numpy', 'hooks') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert run.stdout.strip() == "[]"


def test_gradients_accumulate_over_uses_and_over_backwards() -> None:
    x = engine.tensor(3.0, requires_grad=True)
    (x * x * x).backward()
    assert x.grad is not None
    assert x.grad.item() == 27.0
    (x * 2).backward()
    assert x.grad.item() == 29.0


def test_a_deep_graph_needs_no_recursion() -> None:
    x = y = engine.tensor(1.0, requires_grad=True)
    for _ in range(5000):
        y = y + 0.5
    y.backward()
    assert x.grad is not None
    assert x.grad.item() == 1.0


def test_what_needs_no_gradient_keeps_nothing() -> None:
    x = engine.tensor([1.0, 2.0], requires_grad=True)
    with engine.no_grad():
        assert (x * 2).made is None
    assert engine.tensor([1.0]).exp().made is None
    assert x.detach().requires_grad is False
    y = x.exp()
    assert y.made is not None
    assert (y.made.name, list(y.made.saved)) == ("ExpBackward0", ["result"])


def test_lists_in_and_out() -> None:
    data = [[[1.0, 2.0], [3.0, 4.0]], [[5.0, 6.0], [7.0, 8.0]]]
    assert engine.tensor(data).tolist() == data
    assert engine.tensor(2.5).tolist() == 2.5
    assert engine.tensor([[], []]).tolist() == [[], []]
    assert [row.tolist() for row in engine.tensor([[1, 2], [3, 4]])] == [[1, 2], [3, 4]]
    assert repr(engine.tensor([1.0], requires_grad=True)) == "tensor([1.0], requires_grad=True)"


@pytest.mark.parametrize(
    ("wrong", "error", "said"),
    [
        (lambda: engine.tensor([[1.0], [1.0, 2.0]]), ShapeError, "ragged"),
        (lambda: engine.tensor([1.0, 2.0]) + engine.tensor([1.0, 2.0, 3.0]), ShapeError, "do not broadcast"),
        (lambda: engine.tensor([[1.0]]) @ engine.tensor([[1.0], [2.0]]), ShapeError, "matmul"),
        (lambda: engine.tensor([1.0]).backward(), EngineError, "requires no gradient"),
        (lambda: engine.tensor([1.0, 2.0], True).backward(), EngineError, "needs a gradient"),
        (lambda: engine.tensor([1.0], True).backward(engine.tensor([1.0, 2.0])), ShapeError, r"\(1,\)"),
        (lambda: engine.tensor([1.0])[1], IndexError, "index 1"),
        (lambda: engine.tensor([1.0])["a"], EngineError, "str"),
        (lambda: engine.tensor([1.0, 2.0])[::-1], EngineError, "positive"),
        (lambda: engine.conv2d(engine.tensor([[[[1.0]]]]), engine.tensor([[[[1.0], [2.0]]]])), ShapeError, "larger"),
        (lambda: engine.conv2d(engine.tensor([[[[1.0]]]]), engine.tensor([[[[1.0]], [[1.0]]]])), ShapeError, "groups"),
        (lambda: engine.max_pool2d(engine.tensor([[[[1.0]]]]), 2), ShapeError, "larger"),
        (lambda: engine.avg_pool2d(engine.tensor([[[[1.0]]]]), 2, 1, 2), ShapeError, "half"),
        (lambda: engine.nll_loss(engine.tensor([[1.0, 2.0]]), engine.tensor([2])), IndexError, "between 0 and 1"),
        (lambda: engine.nll_loss(engine.tensor([1.0, 2.0]), engine.tensor([0])), ShapeError, "labels"),
    ],
)  # fmt: skip
def test_bad_input_says_what_and_where(wrong: Callable[[], Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        wrong()


def test_a_wrong_rule_is_seen_in_the_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    from explorer.engine import registry

    rule = registry._RULES["TanhBackward0"]
    wrong = registry.Rule(rule.names, lambda n, g: [g * (1 - n.result)])
    monkeypatch.setitem(registry._RULES, "TanhBackward0", wrong)
    with pytest.raises(AssertionError):
        test_value_and_gradients_are_torchs("tanh")
