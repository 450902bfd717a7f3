# ruff: noqa: E501 - a row of the table stays a row
"""Double backward: the gradient of a gradient, against torch and against differences of the first gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from explorer.check import Checker
from explorer.engine import registry
from explorer.report import Verdict
from explorer.trace import trace
from hooks.nodes import capture

S, IMAGE = (3, 4), (2, 3, 6, 5)
LABELS = torch.tensor([0, 3, 1])

TWICE: dict[str, tuple[str, Callable[..., Tensor], list[tuple[int, ...]]]] = {
    "tanh": ("TanhBackwardBackward0", torch.tanh, [S]),
    "sigmoid": ("SigmoidBackwardBackward0", torch.sigmoid, [S]),
    "relu": ("ThresholdBackwardBackward0", torch.relu, [S]),
    "leaky relu": ("LeakyReluBackwardBackward0", F.leaky_relu, [S]),
    "gelu": ("GeluBackwardBackward0", F.gelu, [S]),
    "gelu tanh": ("GeluBackwardBackward0", lambda x: F.gelu(x, approximate="tanh"), [S]),
    "softplus": ("SoftplusBackwardBackward0", lambda x: F.softplus(x, 2.0, 3.0), [S]),
    "log sigmoid": ("LogSigmoidBackwardBackward0", F.logsigmoid, [S]),
    "elu": ("EluBackwardBackward0", lambda x: F.elu(x, 1.5), [S]),
    "selu": ("EluBackwardBackward0", F.selu, [S]),
    "glu": ("GluBackwardBackward0", F.glu, [S]),
    "hardswish": ("HardswishBackwardBackward0", lambda x: F.hardswish(2 * x), [S]),
    "hardtanh": ("HardtanhBackwardBackward0", lambda x: F.hardtanh(x, -0.5, 0.7), [S]),
    "hardshrink": ("HardshrinkBackwardBackward0", lambda x: F.hardshrink(x) * x, [S]),
    "softshrink": ("SoftshrinkBackwardBackward0", lambda x: F.softshrink(x) * x, [S]),
    "prelu": ("PreluKernelBackwardBackward0", F.prelu, [S, (4,)]),
    "rrelu": ("RreluWithNoiseBackwardBackward0", lambda x: F.rrelu(x, training=True) * x, [S]),
    "rrelu, evaluating": ("RreluWithNoiseBackwardBackward0", lambda x: torch.ops.aten.rrelu_with_noise_backward(x * x, x, torch.zeros(S).double(), 0.1, 0.3, False, False), [S]),
    "softmax": ("SoftmaxBackwardDataBackward0", lambda x: x.softmax(-1), [S]),
    "log softmax": ("LogSoftmaxBackwardDataBackward0", lambda x: x.log_softmax(-1), [S]),
    # losses
    "mse": ("MseLossBackwardBackward0", F.mse_loss, [S, S]),
    "mse, summed": ("MseLossBackwardBackward0", lambda x, t: F.mse_loss(x, t, reduction="sum"), [S, S]),
    "mse, each": ("MseLossBackwardBackward0", lambda x, t: F.mse_loss(x, t, reduction="none"), [S, S]),
    "huber": ("HuberLossBackwardBackward0", lambda x, t: F.huber_loss(x, t, delta=0.8), [S, S]),
    "huber, each": ("HuberLossBackwardBackward0", lambda x, t: F.huber_loss(x, t, reduction="none"), [S, S]),
    "smooth l1": ("SmoothL1LossBackwardBackward0", lambda x, t: F.smooth_l1_loss(x, t, beta=0.9), [S, S]),
    "smooth l1, each": ("SmoothL1LossBackwardBackward0", lambda x, t: F.smooth_l1_loss(x, t, reduction="none"), [S, S]),
    "soft margin": ("SoftMarginLossBackwardBackward0", lambda x: F.soft_margin_loss(x, torch.ones_like(x)), [S]),
    "soft margin, each": ("SoftMarginLossBackwardBackward0", lambda x: F.soft_margin_loss(x, -torch.ones_like(x), reduction="none"), [S]),
    "bce": ("BinaryCrossEntropyBackwardBackward0", lambda x, t: F.binary_cross_entropy(x.sigmoid(), t.sigmoid()), [S, S]),
    "bce, weighted": ("BinaryCrossEntropyBackwardBackward0", lambda x: F.binary_cross_entropy(x.sigmoid(), torch.full_like(x, 0.3), torch.linspace(0.5, 1, 4).double(), reduction="none"), [S]),
    "nll": ("NllLossBackwardBackward0", lambda x: F.nll_loss(x * x, LABELS), [S]),
    "nll, weighted, ignoring": ("NllLossBackwardBackward0", lambda x: F.nll_loss(x * x, LABELS, torch.linspace(1, 2, 4).double(), ignore_index=3), [S]),
    "nll, each": ("NllLossBackwardBackward0", lambda x: F.nll_loss(x * x, LABELS, ignore_index=3, reduction="none"), [S]),
    "nll, one row": ("NllLossBackwardBackward0", lambda x: F.nll_loss(x * x, torch.tensor(2), reduction="sum"), [(4,)]),
    "nll 2d": ("NllLoss2DBackwardBackward0", lambda x: F.nll_loss(x * x, torch.ones(2, 6, 5, dtype=torch.long)), [IMAGE]),
    "nll 2d, each": ("NllLoss2DBackwardBackward0", lambda x: F.nll_loss(x * x, torch.ones(2, 6, 5, dtype=torch.long), reduction="none"), [IMAGE]),
    # layers
    "convolution": ("ConvolutionBackwardBackward0", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [IMAGE, (4, 3, 3, 2), (4,)]),
    "convolution, groups": ("ConvolutionBackwardBackward0", lambda x, w: F.conv1d(x, w, dilation=2, groups=2), [(2, 4, 8), (6, 2, 3)]),
    "convolution, transposed": ("ConvolutionBackwardBackward0", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1), [(2, 3, 3, 4), (3, 2, 3, 3), (2,)]),
    "convolution, transposed, groups": ("ConvolutionBackwardBackward0", lambda x, w: F.conv_transpose1d(x, w, groups=2), [(2, 4, 5), (4, 3, 2)]),
    "batch norm": ("NativeBatchNormBackwardBackward0", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [IMAGE, (3,), (3,)]),
    "batch norm, plain": ("NativeBatchNormBackwardBackward0", lambda x: F.batch_norm(x, None, None, training=True), [(4, 3)]),
    "batch norm, evaluating": ("NativeBatchNormBackwardBackward0", lambda x, w, b: F.batch_norm(x, torch.ones(3).double(), torch.full((3,), 2.0).double(), w, b), [IMAGE, (3,), (3,)]),
    "layer norm": ("NativeLayerNormBackwardBackward0", lambda x, w, b: F.layer_norm(x, (4,), w, b), [S, (4,), (4,)]),
    "layer norm, two axes": ("NativeLayerNormBackwardBackward0", lambda x: F.layer_norm(x, (3, 4)), [(2, 3, 4)]),
    "max pool": ("MaxPool2DWithIndicesBackwardBackward0", lambda x: F.max_pool2d(x, 3, 2, 1).square(), [IMAGE]),
    "max pool 3d": ("MaxPool3DWithIndicesBackwardBackward0", lambda x: F.max_pool3d(x, 2).square(), [(1, 2, 4, 4, 3)]),
    "adaptive max pool": ("AdaptiveMaxPool2DBackwardBackward0", lambda x: F.adaptive_max_pool2d(x, (2, 3)).square(), [IMAGE]),
    "avg pool": ("AvgPool2DBackwardBackward0", lambda x: F.avg_pool2d(x, 3, 2, 1).square(), [IMAGE]),
    "avg pool, padding left out": ("AvgPool2DBackwardBackward0", lambda x: F.avg_pool2d(x, 2, ceil_mode=True, padding=1, count_include_pad=False).square(), [IMAGE]),
    "avg pool 3d": ("AvgPool3DBackwardBackward0", lambda x: F.avg_pool3d(x, 2, divisor_override=5).square(), [(1, 2, 4, 5, 3)]),
    "adaptive avg pool": ("AdaptiveAvgPool2DBackwardBackward0", lambda x: F.adaptive_avg_pool2d(x, (4, 2)).square(), [IMAGE]),
    "adaptive avg pool 3d": ("AdaptiveAvgPool3DBackwardBackward0", lambda x: F.adaptive_avg_pool3d(x, 2).square(), [(1, 2, 3, 4, 5)]),
    "fractional max pool": ("FractionalMaxPool2DBackwardBackward0", lambda x: F.fractional_max_pool2d(x, 2, output_size=3, _random_samples=torch.full((2, 3, 2), 0.4).double()).square(), [IMAGE]),
    "reflection": ("ReflectionPad2DBackwardBackward0", lambda x: F.pad(x, (1, 3, 2, 1), mode="reflect").square(), [IMAGE]),
    "replication": ("ReplicationPad1DBackwardBackward0", lambda x: F.pad(x, (3, 1), mode="replicate").square(), [(2, 3, 4)]),
    "replication, cutting": ("ReplicationPad1DBackwardBackward0", lambda x: F.pad(x, (3, -1), mode="replicate").square(), [(2, 3, 4)]),
    "nearest": ("UpsampleNearest2DBackwardBackward0", lambda x: F.interpolate(x, (7, 9)).square(), [IMAGE]),
    "nearest exact": ("UpsampleNearestExact1DBackwardBackward0", lambda x: F.interpolate(x, 5, mode="nearest-exact").square(), [(2, 3, 7)]),
    "bilinear": ("UpsampleBilinear2DBackwardBackward0", lambda x: F.interpolate(x, (7, 3), mode="bilinear", align_corners=True).square(), [IMAGE]),
    "bicubic": ("UpsampleBicubic2DBackwardBackward0", lambda x: F.interpolate(x, (7, 9), mode="bicubic").square(), [IMAGE]),
    "bilinear, antialiased": ("UpsampleBilinear2DAaBackwardBackward0", lambda x: F.interpolate(x, (3, 2), mode="bilinear", antialias=True).square(), [IMAGE]),
    # embeddings and views
    "embedding": ("EmbeddingDenseBackwardBackward0", lambda w: F.embedding(torch.tensor([[0, 2], [2, 1]]), w).square(), [S]),
    "embedding, padding": ("EmbeddingDenseBackwardBackward0", lambda w: F.embedding(torch.tensor([0, 2, 1]), w, padding_idx=2).square(), [S]),
    "select": ("SelectBackwardBackward0", lambda x: x.select(-1, -2).square(), [S]),
    "slice": ("SliceBackwardBackward0", lambda x: x[:, -3::2].square(), [S]),
    "diagonal": ("DiagonalBackwardBackward0", lambda x: x.diagonal(1).square(), [S]),
    "unfold": ("UnfoldBackwardBackward0", lambda x: x.unfold(-1, 3, 1).square(), [S]),
}  # fmt: skip
"""Name to the node, the function, and the shapes of its inputs."""

CONVENTIONS = {"embedding, padding": "the padding row's gradient is 0 by convention"}
"""What is no derivative of the function."""


def first_order(name: str) -> tuple[list[Tensor], Callable[[], Tensor]]:
    """Inputs, and a function that gives a weighted sum of their first gradients, itself differentiable."""
    _, function, shapes = TWICE[name]
    generator = torch.Generator().manual_seed(7)

    def numbers(shape: Any) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    inputs = [numbers(shape).requires_grad_() for shape in shapes]
    weights = [numbers(shape) for shape in shapes]
    torch.manual_seed(3)
    upstream = numbers(function(*inputs).shape).requires_grad_()

    def value() -> Tensor:
        torch.manual_seed(3)
        result = function(*inputs)
        gradients = torch.autograd.grad((result * upstream).sum(), inputs, create_graph=True)
        return sum((g * w).sum() for g, w in zip(gradients, weights, strict=True))  # type: ignore[return-value]  # never empty

    return [*inputs, upstream], value


def checked(loss: Tensor, mode: Any = "full") -> dict[str, list[Verdict]]:
    """The verdicts by node name after one checked backward."""
    found = trace([loss])
    checker = Checker(found, mode)
    watching = capture(found.live, checker.observe)
    with watching:
        loss.backward()
    assert watching.problem == ""
    verdicts: dict[str, list[Verdict]] = {}
    for one in checker.finish()[0]:
        verdicts.setdefault(found.graph.nodes[one.node].name, []).append(one)
    return verdicts


@pytest.mark.parametrize("name", TWICE)
def test_agrees_with_torch(name: str) -> None:
    _, value = first_order(name)
    verdicts = checked(value())
    assert TWICE[name][0] in verdicts
    assert not [one for row in verdicts.values() for one in row if one.status != "match"]


@pytest.mark.parametrize("name", [name for name in TWICE if name not in CONVENTIONS])
def test_agrees_with_differences_of_the_first_gradient(name: str) -> None:
    """Torch and the rule agree (above); differences of the first gradient say that both are right."""
    inputs, value = first_order(name)
    value().backward()
    step = 1e-6
    for tensor in inputs:
        direction = torch.randn(tensor.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
        sides = []
        for sign in (1, -1):
            with torch.no_grad():
                tensor += sign * step * direction
            sides.append(float(value().detach()))
            with torch.no_grad():
                tensor -= sign * step * direction
        slope = (sides[0] - sides[1]) / (2 * step)
        own = 0.0 if tensor.grad is None else float((tensor.grad * direction).sum())
        size = 1.0 if tensor.grad is None else 1 + float((tensor.grad * direction).abs().sum())
        assert own == pytest.approx(slope, rel=1e-5, abs=1e-6 * size), name


@pytest.mark.parametrize("name", TWICE)
def test_single_precision(name: str) -> None:
    """The same in float32, half and channels-last: no false alarm."""
    _, function, shapes = TWICE[name]
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(4)
        inputs = [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]
        inputs[0] = (
            inputs[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
            if len(shapes[0]) > 1
            else inputs[0]
        )
        try:
            result = function(*inputs)
            upstream = torch.randn_like(result).requires_grad_()
            gradients = torch.autograd.grad((result * upstream).sum(), inputs, create_graph=True)
            loss = sum((g * torch.randn_like(g)).sum() for g in gradients)
            verdicts = checked(loss, "sample")  # type: ignore[arg-type]  # a tensor: never empty
        except RuntimeError:
            continue  # this torch has no such kernel, or the row's constants are of another dtype
        bad = [
            one
            for row in verdicts.values()
            for one in row
            if one.status not in ("match", "low-precision accumulation")
        ]
        assert not [one for one in bad if one.reason not in ("no finite error bound",)], (dtype, bad)


@pytest.mark.parametrize("name", TWICE)
def test_a_planted_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node = TWICE[name][0]
    rule = registry.rule_for(node)
    assert rule is not None

    def wrong(n: Any, *g: Any) -> list[Any]:
        return [None if one is None else one * 1.0001 for one in rule.function(n, *g)]

    monkeypatch.setitem(registry._RULES, node, registry.Rule(rule.names, wrong, rule.hints))
    _, value = first_order(name)
    assert "mismatch" in {one.status for one in checked(value())[node]}
