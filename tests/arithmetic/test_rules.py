"""Every rule of the arithmetic against what torch sends, in float64, and its text against its own value."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from math import e

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch import Tensor, nn

import explorer
from explorer.arithmetic import RULES
from explorer.arithmetic.block import LARGEST, Block, blank, flat_block, spread
from explorer.arithmetic.rules import rule, total
from explorer.errors import RuleError
from explorer.formulas import operation
from explorer.report import Element, Report


@pytest.fixture(autouse=True)
def exact() -> Iterator[None]:
    """float64, so that what torch sent and the arithmetic agree to many digits."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        yield
    torch.set_default_dtype(before)


def r(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def classes(*shape: int) -> Tensor:
    return torch.randint(0, 7, shape)


CASES: dict[str, tuple[str, int, Callable[[], Tensor]]] = {
    "strided, padded, dilated, grouped convolution": (
        "Convolution", 3,
        lambda: F.conv2d(r(2, 4, 7, 6), r(6, 2, 3, 2), r(6), (2, 1), (1, 2), (1, 2), groups=2),
    ),
    "convolution of a line": ("Convolution", 3, lambda: F.conv1d(r(2, 4, 7), r(6, 4, 3), r(6))),
    "convolution of a volume": ("Convolution", 2, lambda: F.conv3d(r(1, 2, 4, 5, 4), r(3, 2, 2, 2, 2))),
    "transposed convolution": (
        "Convolution", 3,
        lambda: F.conv_transpose2d(r(2, 4, 5, 5), r(4, 3, 3, 3), r(6), stride=2, padding=1, groups=2),
    ),
    "max pooling": ("MaxPool2D", 1, lambda: F.max_pool2d(r(2, 3, 8, 8), 3, 2, 1)),
    "max pooling of a volume": ("MaxPool3D", 1, lambda: F.max_pool3d(r(2, 3, 4, 4, 4), 2)),
    "mean pooling": ("AvgPool2D", 1, lambda: F.avg_pool2d(r(2, 3, 7, 7), 3, 2, 1)),
    "mean pooling without its border": (
        "AvgPool2D", 1,
        lambda: F.avg_pool2d(r(2, 3, 7, 7), 3, 2, 1, count_include_pad=False, ceil_mode=True),
    ),
    "adaptive pooling": ("AdaptiveAvgPool2D", 1, lambda: F.adaptive_avg_pool2d(r(2, 3, 7, 5), (3, 2))),
    "batch norm": ("NativeBatchNorm", 3, lambda: nn.BatchNorm2d(4)(r(5, 4, 3, 6))),
    "batch norm that does not train": ("NativeBatchNorm", 3, lambda: nn.BatchNorm2d(4).eval()(r(5, 4, 3, 6))),
    "layer norm": ("NativeLayerNorm", 3, lambda: F.layer_norm(r(5, 4, 3, 6), (3, 6), r(3, 6), r(3, 6))),
    "layer norm without weights": ("NativeLayerNorm", 1, lambda: F.layer_norm(r(5, 4, 3, 6), (6,))),
    "group norm": ("NativeGroupNorm", 3, lambda: F.group_norm(r(3, 6, 4, 5), 2, r(6), r(6))),
    "likelihood": ("NllLoss", 1, lambda: F.cross_entropy(r(5, 7), classes(5))),
    "weighted likelihood": ("NllLoss", 1, lambda: F.cross_entropy(r(5, 7), classes(5), torch.rand(7))),
    "likelihood of a picture": ("NllLoss2D", 1, lambda: F.cross_entropy(r(5, 7, 4, 3), classes(5, 4, 3))),
    "squares": ("MseLoss", 2, lambda: F.mse_loss(r(5, 20), r(5, 20))),
    "cross entropy of logits": (
        "BinaryCrossEntropyWithLogits", 1,
        lambda: F.binary_cross_entropy_with_logits(r(5, 20), torch.rand(5, 20)),
    ),
    "cross entropy of probabilities": (
        "BinaryCrossEntropy", 1, lambda: F.binary_cross_entropy(r(5, 20).sigmoid(), torch.rand(5, 20)),
    ),
    "smooth L1": ("SmoothL1Loss", 1, lambda: F.smooth_l1_loss(r(5, 20), torch.randn(5, 20), beta=0.7)),
    "Huber near": ("HuberLoss", 1, lambda: F.huber_loss(r(5, 20), torch.randn(5, 20), delta=90.0)),
    "attention": (
        "ScaledDotProductFlashAttentionForCpu", 3,
        lambda: F.scaled_dot_product_attention(r(2, 3, 9, 8), r(2, 3, 7, 8), r(2, 3, 7, 8)),
    ),
    "causal attention": (
        "ScaledDotProductFlashAttentionForCpu", 3,
        lambda: F.scaled_dot_product_attention(r(2, 3, 9, 8), r(2, 3, 9, 8), r(2, 3, 9, 8), is_causal=True),
    ),
    "softmax along the middle": ("Softmax", 1, lambda: r(5, 20, 4).softmax(1)),
    "log softmax": ("LogSoftmax", 1, lambda: r(5, 20, 4).log_softmax(-1)),
    "logsumexp": ("Logsumexp", 1, lambda: r(5, 20, 4).logsumexp(1)),
    "matrices": ("Mm", 2, lambda: r(9, 8) @ r(8, 12)),
    "batches": ("Bmm", 2, lambda: torch.bmm(r(3, 9, 8), r(3, 8, 12))),
    "matrix and vector": ("Mv", 2, lambda: r(9, 8).mv(r(8))),
    "vectors": ("Dot", 2, lambda: r(80).dot(r(80))),
    "layer": ("Addmm", 3, lambda: torch.addmm(r(12), r(9, 8), r(8, 12), beta=2, alpha=0.5)),
    "layers": ("Baddbmm", 3, lambda: torch.baddbmm(r(9, 12), r(3, 9, 8), r(3, 8, 12))),
    "mean": ("Mean", 1, lambda: r(5, 20, 4).mean((0, -1))),
    "kept mean": ("Mean", 1, lambda: r(5, 20, 4).mean(1, keepdim=True)),
    "variance": ("Var", 1, lambda: r(5, 20, 4).var(1)),
    "standard deviation": ("Std", 1, lambda: r(5, 20).std(1, unbiased=False)),
    "length": ("LinalgVectorNorm", 1, lambda: torch.linalg.vector_norm(r(5, 20), dim=1)),
    "product": ("Prod", 1, lambda: r(10).prod()),
    "running sum": ("Cumsum", 1, lambda: r(5, 20).cumsum(1)),
    "embedding": ("Embedding", 1, lambda: F.embedding(torch.randint(0, 6, (50,)), r(6, 8))),
    "chosen columns": ("IndexSelect", 1, lambda: r(5, 20).index_select(-1, torch.tensor([1, 1, 4]))),
    "broadcast product": ("Mul", 2, lambda: r(5, 20) * r(20)),
    "broadcast quotient": ("Div", 2, lambda: r(1, 20) / (r(5, 1) * 0.1).exp()),
    "expansion": ("Expand", 1, lambda: r(5, 1).expand(5, 90)),
    "gelu": ("Gelu", 1, lambda: F.gelu(r(5, 20))),
    "gelu by tanh": ("Gelu", 1, lambda: F.gelu(r(5, 20), approximate="tanh")),
    "relu": ("Relu", 1, lambda: F.relu(r(5, 20))),
    "power": ("Pow", 1, lambda: r(5, 20) ** 3),
}  # fmt: skip
"""Name -> the node it is about, how many inputs of it are worked out, and how it is made."""


def explored(make: Callable[[], Tensor]) -> Report:
    out = make()
    report = explorer.explore((out * torch.randn(out.shape)).sum())
    assert report.problems == ()
    return report


def elements(report: Report, name: str) -> list[Element]:
    """The worked elements of the nodes called `name`."""
    nodes, edges = report.graph.nodes, report.graph.edges
    return [
        element
        for index, element in sorted(report.elements.items())
        if re.fullmatch(rf"{name}(WithIndices)?Backward\d", nodes[edges[index].source].name)
    ]


@pytest.mark.parametrize("name", CASES)
def test_the_arithmetic_comes_to_what_torch_sent(name: str) -> None:
    node, count, make = CASES[name]
    found = elements(explored(make), node)
    assert len(found) >= count
    assert [str(one) for one in found if one.computed] == []


def value(text: str) -> float:
    """The arithmetic of a text that is written out whole."""
    for said, meant in {"×": "*", "−": "-", "·": "*", "^": "**"}.items():
        text = text.replace(said, meant)
    return float(eval(text, {"e": e, "__builtins__": {}}))


def spelled(element: Element) -> str:
    """The arithmetic alone: without what is said of it, and what comes before "so"."""
    text = element.text.rpartition("; so ")[2]
    return re.sub(r"( \([\d,]+ terms[^)]*\)|, (class|each|row|index|the largest).*)", "", text)


def test_what_is_written_out_comes_to_the_same() -> None:
    written = 0
    for node, _, make in CASES.values():
        for element in elements(explored(make), node):
            if "…" in element.text:
                continue
            terms = sum(
                abs(value(term))
                for term in re.findall(r"\(?-?[\d.]+(?:e[-+]\d+)?\)?", spelled(element))
                if term.count("(") == term.count(")")
            )
            assert value(spelled(element)) == pytest.approx(
                element.value, rel=5e-3, abs=2e-3 * max(terms, 1)
            ), str(element)
            written += 1
    assert written >= 25


def test_a_wrong_gradient_is_told_beside_the_arithmetic() -> None:
    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, *grads: Tensor) -> Tensor:
            return grads[0]

    x, w = r(3, 4), r(4, 2)
    out = Wrong.apply(x) @ w
    out.grad_fn.register_hook(lambda sent, _: (sent[0], sent[1] * 1.5))
    report = explorer.explore((out * torch.randn(3, 2)).sum())
    left, right = elements(report, "Mm")
    assert left.computed == ""
    assert "; torch sent " in str(right)
    assert float(right.computed) * 1.5 == pytest.approx(right.value, rel=1e-3)


def test_a_sum_that_cancels_is_told_from_a_wrong_one() -> None:
    torch.set_default_dtype(torch.float32)
    x = torch.randn(4, 3, 9, 9)
    normed = F.batch_norm(F.conv2d(x, r(5, 3, 3, 3), bias := r(5)), None, None, training=True)
    report = explorer.explore((normed * torch.randn_like(normed)).sum())
    found = [one for one in elements(report, "Convolution") if one.place == (one.place[0],)]
    assert bias.grad is None
    assert len(found) == 1
    assert "its terms cancel" in str(found[0])


def test_zeros_are_counted_and_long_sums_cut() -> None:
    assert total([(1, 2), (0, 5), (3, -4)]) == ("1×2 + 3×(-4) (3 terms, 1 of them 0)", -10, 14)
    long = total([(k, 1) for k in range(1, 28)])
    assert long is not None
    assert long == ("1×1 + 2×1 + … + 27×1 (27 terms)", 378, 378)
    assert total([(2.0,)]) is None
    assert total([(0.0, 1.0)]) is None
    assert total([(2.0,), (3.0,)], (0.5,)) == ("0.5×(2 + 3)", 2.5, 2.5)


def test_sums_too_long_to_be_worked_out_are_left_out() -> None:
    assert total((float(one),) for one in range(1, LARGEST + 1)) is not None
    assert total((1.0, 2.0) for _ in range(LARGEST + 1)) is None
    layer, x = nn.Conv2d(1, 1, 1, bias=False), torch.randn(2, 1, 128, 129, requires_grad=True)
    report = explorer.explore((layer(x) * torch.randn(2, 1, 128, 129)).sum(), check="off")
    conv = next(node for node in report.graph.nodes if node.name == "ConvolutionBackward0")
    known = {
        report.graph.edges[index].source_slot: index in report.elements
        for index in report.graph.outgoing[conv.id]
    }
    assert known == {0: True, 1: False}, "of the input, but not of the one weight, which has 33,024 terms"


def test_a_block_reads_what_it_is_asked_for() -> None:
    block = flat_block(range(24), (2, 3, 4))
    assert block.read(1, None, 2) == [14, 18, 22]
    assert block.read(0, slice(1, 3), slice(0, 1)) == [4, 8]
    assert block.at((1, 2, 3)) == 23
    assert flat_block((5.0, 6.0), (2, 1)).spread_at((7, 1, 3)) == 6
    with pytest.raises(LookupError, match="do not fill"):
        flat_block((1.0,), (2,))
    with pytest.raises(LookupError, match="not known"):
        blank((2,)).read(0)
    with pytest.raises(LookupError, match="too many"):
        Block((2**20,), lambda index: ()).read()


def test_where_an_element_is_broadcast_to() -> None:
    assert spread((), (), (2,)) == [(0,), (1,)]
    assert spread((1, 0), (2, 1), (2, 2)) == [(1, 0), (1, 1)]
    assert spread((0,), (2,), (3,)) is None
    assert spread((0, 0), (1, 1), (1,)) is None


def test_a_rule_is_registered_once_and_for_an_operation_torch_has() -> None:
    with pytest.raises(RuleError, match="registered twice"):
        rule("mm")(lambda case: None)
    known = {"elementwise", "convolution_overrideable", "mkldnn_convolution", "adaptive_max_pool3d"}
    from explorer.formulas import _entries

    torchs = {entry.operation.split("(")[0].split(".")[0] for entry in _entries().values()}
    assert set(RULES) - torchs - known == set()
    assert operation("MmBackward0").startswith("mm(")
