# ruff: noqa: E501, N812 - a row of the table stays a row; F is torch's own custom
"""Small problems, one row per rule: how torch computes it, on which inputs.

``PROBLEMS[id] = (node name, function, input shapes or tensors)``. A shape stands for a tensor of standard
normal numbers that wants a gradient; a tensor is taken as it is. Every row is checked against torch's own
gradient and against finite differences of the function itself, both in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

from tests.engine.further_problems import further

Problem = tuple[str, Callable[..., Any], list[Any]]


def positive(*shape: int) -> torch.Tensor:
    """Numbers between 0.3 and 1.7, that want a gradient."""
    return (torch.rand(*shape, dtype=torch.float64) * 1.4 + 0.3).requires_grad_()


def probabilities(*shape: int) -> torch.Tensor:
    """Numbers between 0.1 and 0.9, that want a gradient."""
    return (torch.rand(*shape, dtype=torch.float64) * 0.8 + 0.1).requires_grad_()


def integers(high: int, *shape: int) -> torch.Tensor:
    """Indices below `high`."""
    return torch.randint(0, high, shape)


def mask(*shape: int) -> torch.Tensor:
    """A mask with hits and misses."""
    return torch.arange(torch.Size(shape).numel()).reshape(shape) % 3 == 0


_S = (3, 4)


def problems() -> dict[str, Problem]:
    """The table; tensors are drawn anew, so seed torch first."""
    unary: dict[str, Callable[[Any], Any]] = {
        "Exp": torch.exp, "Sin": torch.sin, "Cos": torch.cos, "Tanh": torch.tanh, "Sigmoid": torch.sigmoid,
        "Erf": torch.erf, "Abs": torch.abs, "Neg": torch.neg, "Relu": torch.relu, "Gelu": F.gelu, "Silu": F.silu,
        "LeakyRelu": F.leaky_relu, "Elu": F.elu, "Celu": F.celu, "Softplus": F.softplus, "Mish": F.mish,
        "Hardtanh": F.hardtanh, "Hardsigmoid": F.hardsigmoid, "Hardswish": F.hardswish,
        "LogSigmoid": F.logsigmoid, "Softmax": lambda x: x.softmax(-1), "LogSoftmax": lambda x: x.log_softmax(0),
    }  # fmt: skip
    table: dict[str, Problem] = {name: (f"{name}Backward0", f, [_S]) for name, f in unary.items()}
    for name, f in {
        "Log": torch.log, "Sqrt": torch.sqrt, "Rsqrt": torch.rsqrt, "Reciprocal": torch.reciprocal,
    }.items():  # fmt: skip
        table[name] = (f"{name}Backward0", f, [positive(*_S)])
    table |= {
        "igamma": ("IgammaBackward0", lambda x: torch.igamma(torch.linspace(0.5, 3, 12).double().view(3, 4), x), [positive(*_S)]),
        "igammac": ("IgammacBackward0", lambda x: torch.igammac(torch.tensor(2.5).double(), x), [positive(*_S)]),
        "gelu tanh": ("GeluBackward0", lambda x: F.gelu(x, approximate="tanh"), [_S]),
        "threshold": ("ThresholdBackward0", lambda x: F.threshold(x, 0.2, -1.0), [_S]),
        # arithmetic
        "add": ("AddBackward0", lambda a, b: torch.add(a, b, alpha=3), [_S, (4,)]),
        "sub": ("SubBackward0", lambda a, b: torch.sub(a, b, alpha=2), [(3, 1), _S]),
        "rsub": ("RsubBackward1", lambda a: 3 - a, [_S]),
        "mul": ("MulBackward0", torch.mul, [_S, (3, 1)]),
        "square": ("MulBackward0", lambda a: a * a, [_S]),
        "div": ("DivBackward0", torch.div, [_S, positive(4)]),
        "pow": ("PowBackward0", lambda a: a**3, [_S]),
        "square root": ("PowBackward0", lambda a: a**0.5, [positive(*_S)]),
        "pow tensor": ("PowBackward1", torch.pow, [positive(*_S), (4,)]),
        "pow base": ("PowBackward2", lambda b: torch.pow(2.5, b), [_S]),
        "addcmul": ("AddcmulBackward0", lambda a, b, c: torch.addcmul(a, b, c, value=2), [_S, (4,), (3, 1)]),
        "addcdiv": ("AddcdivBackward0", lambda a, b, c: torch.addcdiv(a, b, c, value=2), [_S, (4,), positive(3, 1)]),
        "lerp scalar": ("LerpBackward0", lambda a, b: torch.lerp(a, b, 0.3), [_S, _S]),
        "lerp": ("LerpBackward1", torch.lerp, [_S, _S, _S]),
        "where": ("WhereBackward0", lambda a, b: torch.where(mask(*_S), a, b), [_S, (4,)]),
        "masked fill": ("MaskedFillBackward0", lambda a: a.masked_fill(mask(*_S), 2.0), [_S]),
        "masked fill tensor": ("MaskedFillBackward1", lambda a, v: a.masked_fill(mask(*_S), v), [_S, ()]),
        "clamp": ("ClampBackward1", lambda a: a.clamp(-0.5, 0.7), [_S]),
        "clamp tensor": ("ClampBackward0", torch.clamp, [_S, (4,), positive(3, 1)]),
        "clamp min": ("ClampMinBackward0", lambda a: a.clamp_min(0.1), [_S]),
        "clamp max": ("ClampMaxBackward0", lambda a: a.clamp_max(0.1), [_S]),
        "clamp min tensor": ("ClampMinBackward1", torch.clamp_min, [_S, (4,)]),
        "clamp max tensor": ("ClampMaxBackward1", torch.clamp_max, [_S, (4,)]),
        "maximum": ("MaximumBackward0", torch.maximum, [_S, (4,)]),
        "minimum": ("MinimumBackward0", torch.minimum, [_S, (4,)]),
        # views and joining
        "view": ("ViewBackward0", lambda a: a.view(2, 6), [_S]),
        "unsafe view": ("UnsafeViewBackward0", lambda a: torch.ops.aten._unsafe_view(a, [2, 6]), [_S]),
        "reshape a permuted": ("ReshapeAliasBackward0", lambda a: a.permute(2, 0, 1).reshape(4, 6), [(2, 3, 4)]),
        "expand": ("ExpandBackward0", lambda a: a.expand(2, 3, 4), [(3, 1)]),
        "t": ("TBackward0", lambda a: a.t(), [_S]),
        "transpose": ("TransposeBackward0", lambda a: a.transpose(0, -1), [(2, 3, 4)]),
        "permute": ("PermuteBackward0", lambda a: a.permute(2, 0, -2), [(2, 3, 4)]),
        "unsqueeze": ("UnsqueezeBackward0", lambda a: a.unsqueeze(-1), [_S]),
        "squeeze": ("SqueezeBackward0", lambda a: a.squeeze(), [(3, 1, 4, 1)]),
        "squeeze dim": ("SqueezeBackward1", lambda a: a.squeeze(1), [(3, 1, 4)]),
        "select": ("SelectBackward0", lambda a: a.select(-1, -2), [_S]),
        "slice": ("SliceBackward0", lambda a: a[:, 1:3], [_S]),
        "slice step": ("SliceBackward0", lambda a: a[:, 1::2], [(3, 7)]),
        "split": ("SplitBackward0", lambda a: a.split(2, 1)[0] * 2, [(3, 5)]),
        "split sizes": ("SplitWithSizesBackward0", lambda a: a.split([1, 3], -1)[1] * 2, [_S]),
        "unbind": ("UnbindBackward0", lambda a: a.unbind(1)[2] * 2, [_S]),
        "repeat": ("RepeatBackward0", lambda a: a.repeat(2, 3, 2), [_S]),
        "clone": ("CloneBackward0", torch.clone, [_S]),
        "to": ("ToCopyBackward0", lambda a: a.to(torch.float32).double(), [_S]),
        "flip": ("FlipBackward0", lambda a: a.flip(0, -1), [_S]),
        "roll": ("RollBackward0", lambda a: a.roll((1, -2), (0, 1)), [_S]),
        "roll flat": ("RollBackward0", lambda a: a.roll(5), [_S]),
        "triu": ("TriuBackward0", lambda a: a.triu(1), [_S]),
        "tril": ("TrilBackward0", lambda a: a.tril(-1), [_S]),
        "cat": ("CatBackward0", lambda a, b: torch.cat([a, torch.ones(3, 2, dtype=a.dtype), b], -1), [_S, (3, 2)]),
        "stack": ("StackBackward0", lambda a, b: torch.stack([a, b], 1), [_S, _S]),
        "pad": ("ConstantPadNdBackward0", lambda a: F.pad(a, (1, 2, -1, 1), value=3.0), [_S]),
        # reductions
        "sum": ("SumBackward0", torch.sum, [_S]),
        "sum dim": ("SumBackward1", lambda a: a.sum((0, -1)), [(2, 3, 4)]),
        "mean": ("MeanBackward0", torch.mean, [_S]),
        "mean dim": ("MeanBackward1", lambda a: a.mean(1, keepdim=True), [(2, 3, 4)]),
        "var": ("VarBackward0", lambda a: a.var(1), [_S]),
        "std": ("StdBackward0", lambda a: a.std((0, 1), correction=0), [_S]),
        "var mean": ("VarMeanBackward0", lambda a: sum(torch.var_mean(a, 1)), [_S]),
        **{
            f"norm {order}": (
                "LinalgVectorNormBackward0",
                lambda a, order=order: torch.linalg.vector_norm(a, order, 1),
                [_S],
            )
            for order in (1, 2, 3, 1.5, float("inf"))
        },
        "logsumexp": ("LogsumexpBackward0", lambda a: a.logsumexp(1), [_S]),
        "max dim": ("MaxBackward0", lambda a: a.max(1)[0], [_S]),
        "min dim": ("MinBackward0", lambda a: a.min(0, keepdim=True)[0], [_S]),
        "max": ("MaxBackward1", torch.max, [_S]),
        "min": ("MinBackward1", torch.min, [_S]),
        "amax": ("AmaxBackward0", lambda a: a.amax((0, 2)), [(2, 3, 4)]),
        "amin": ("AminBackward0", lambda a: a.amin(1, keepdim=True), [_S]),
        "cumsum": ("CumsumBackward0", lambda a: a.cumsum(-1), [_S]),
        "topk": ("TopkBackward0", lambda a: a.topk(2, 1)[0], [_S]),
        "sort": ("SortBackward0", lambda a: a.sort(0)[0], [_S]),
        # products
        "mm": ("MmBackward0", torch.mm, [(3, 5), (5, 2)]),
        "bmm": ("BmmBackward0", torch.bmm, [(2, 3, 5), (2, 5, 2)]),
        "addmm": ("AddmmBackward0", lambda c, a, b: torch.addmm(c, a, b, beta=2, alpha=3), [(2,), (3, 5), (5, 2)]),
        "baddbmm": ("BaddbmmBackward0", lambda c, a, b: torch.baddbmm(c, a, b, alpha=3), [(2, 3, 2), (2, 3, 5), (2, 5, 2)]),
        "addbmm": ("AddbmmBackward0", torch.addbmm, [(3, 2), (2, 3, 5), (2, 5, 2)]),
        "mv": ("MvBackward0", torch.mv, [(3, 5), (5,)]),
        "addmv": ("AddmvBackward0", torch.addmv, [(3,), (3, 5), (5,)]),
        "dot": ("DotBackward0", torch.dot, [(5,), (5,)]),
        "distances of many rows": ("EuclideanDistBackward0", torch.cdist, [(26, 2), (2, 3, 2)]),
        # convolution, pooling, resizing
        "conv": ("ConvolutionBackward0", lambda x, w, b: F.conv2d(x, w, b, stride=2, padding=1), [(2, 3, 6, 5), (4, 3, 3, 3), (4,)]),
        "conv groups dilated": ("ConvolutionBackward0", lambda x, w: F.conv2d(x, w, padding=(2, 1), dilation=2, groups=2), [(2, 4, 6, 5), (6, 2, 2, 3)]),
        "conv 1d": ("ConvolutionBackward0", lambda x, w: F.conv1d(x, w, stride=3), [(2, 3, 11), (4, 3, 3)]),
        "conv 3d": ("ConvolutionBackward0", lambda x, w: F.conv3d(x, w, padding=1), [(1, 2, 3, 3, 4), (2, 2, 2, 2, 2)]),
        "conv transposed": ("ConvolutionBackward0", lambda x, w, b: F.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2), [(2, 4, 3, 4), (4, 3, 3, 3), (6,)]),
        "max pool": ("MaxPool2DWithIndicesBackward0", lambda x: F.max_pool2d(x, 3, 2, 1), [(2, 2, 6, 5)]),
        "max pool overlapping": ("MaxPool2DWithIndicesBackward0", lambda x: F.max_pool2d(x, 2, 1, dilation=2), [(2, 6, 5)]),
        "avg pool": ("AvgPool2DBackward0", lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False), [(2, 2, 6, 5)]),
        "avg pool ceil": ("AvgPool2DBackward0", lambda x: F.avg_pool2d(x, 2, ceil_mode=True), [(1, 2, 5, 5)]),
        "adaptive avg pool": ("AdaptiveAvgPool2DBackward0", lambda x: F.adaptive_avg_pool2d(x, (3, 2)), [(2, 2, 7, 5)]),
        "nearest": ("UpsampleNearest2DBackward0", lambda x: F.interpolate(x, scale_factor=2.5), [(1, 2, 3, 4)]),
        "bilinear": ("UpsampleBilinear2DBackward0", lambda x: F.interpolate(x, size=(5, 7), mode="bilinear"), [(1, 2, 3, 4)]),
        "bilinear aligned": ("UpsampleBilinear2DBackward0", lambda x: F.interpolate(x, size=(5, 7), mode="bilinear", align_corners=True), [(1, 2, 3, 4)]),
        # normalisation
        "batch norm": ("NativeBatchNormBackward0", lambda x, w, b: F.batch_norm(x, None, None, w, b, True), [(3, 2, 4), (2,), (2,)]),
        "batch norm eval": ("NativeBatchNormBackward0", lambda x, w, b: F.batch_norm(x, torch.zeros(2).double(), torch.ones(2).double() * 2, w, b), [(3, 2, 4, 2), (2,), (2,)]),
        "layer norm": ("NativeLayerNormBackward0", lambda x, w, b: F.layer_norm(x, (4,), w, b), [(2, 3, 4), (4,), (4,)]),
        "layer norm plain": ("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (3, 4)), [(2, 3, 4)]),
        "group norm": ("NativeGroupNormBackward0", lambda x, w, b: F.group_norm(x, 2, w, b), [(2, 6, 3, 2), (6,), (6,)]),
        "weight norm": ("WeightNormInterfaceBackward0", lambda v, g: torch._weight_norm(v, g, 0), [(3, 4), (3, 1)]),
        # attention
        "attention": ("ScaledDotProductFlashAttentionForCpuBackward0", lambda q, k, v: F.scaled_dot_product_attention(q, k, v), [(2, 2, 5, 3), (2, 2, 4, 3), (2, 2, 4, 3)]),
        "attention causal": ("ScaledDotProductFlashAttentionForCpuBackward0", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), [(2, 2, 5, 3)] * 3),
        "attention grouped": ("ScaledDotProductFlashAttentionForCpuBackward0", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), [(2, 4, 5, 3), (2, 2, 5, 3), (2, 2, 5, 3)]),
        # losses
        "mse": ("MseLossBackward0", F.mse_loss, [_S, _S]),
        "smooth l1": ("SmoothL1LossBackward0", lambda x, t: F.smooth_l1_loss(x, t, reduction="sum", beta=0.7), [_S, _S]),
        "huber": ("HuberLossBackward0", lambda x, t: F.huber_loss(x, t, delta=0.7), [_S, _S]),
        "nll": ("NllLossBackward0", lambda x: F.nll_loss(x, torch.tensor([1, 0, 2, 4]), torch.rand(5).double(), ignore_index=0), [(4, 5)]),
        "nll none": ("NllLossBackward0", lambda x: F.nll_loss(x, torch.tensor([1, 0, 2, 4]), reduction="none"), [(4, 5)]),
        "nll 2d": ("NllLoss2DBackward0", lambda x: F.nll_loss(x, torch.arange(12).reshape(2, 2, 3) % 4), [(2, 4, 2, 3)]),
        "bce": ("BinaryCrossEntropyBackward0", F.binary_cross_entropy, [probabilities(*_S), probabilities(*_S)]),
        "bce logits": ("BinaryCrossEntropyWithLogitsBackward0", F.binary_cross_entropy_with_logits, [_S, probabilities(*_S)]),
        "bce logits weighted": ("BinaryCrossEntropyWithLogitsBackward0", lambda x, t: F.binary_cross_entropy_with_logits(x, t, pos_weight=torch.tensor(2.5).double()), [_S, probabilities(*_S)]),
        # indexing
        "embedding": ("EmbeddingBackward0", lambda w: F.embedding(torch.tensor([[1, 3], [3, 0]]), w, padding_idx=0), [(5, 3)]),
        "embedding plain": ("EmbeddingBackward0", lambda w: F.embedding(torch.tensor([[1, 3], [3, 0]]), w), [(5, 3)]),
        "embedding scaled": ("EmbeddingBackward0", lambda w: F.embedding(torch.tensor([1, 3, 3, 0]), w, scale_grad_by_freq=True), [(5, 3)]),
        "index": ("IndexBackward0", lambda a: a[torch.tensor([[0, -1], [1, 0]]), :, torch.tensor([2, 3])], [(2, 3, 4)]),
        "index middle": ("IndexBackward0", lambda a: a[:, torch.tensor([2, 0, 2])], [(2, 3, 4)]),
        "index mask": ("IndexBackward0", lambda a: a[mask(*_S)], [_S]),
        "index put": ("IndexPutBackward0", lambda a, v: a.index_put((torch.tensor([0, 2]),), v), [_S, (2, 4)]),
        "index put accumulate": ("IndexPutBackward0", lambda a, v: a.index_put((torch.tensor([0, 0]),), v, accumulate=True), [_S, (4,)]),
        "index select": ("IndexSelectBackward0", lambda a: a.index_select(1, torch.tensor([3, 0, 3])), [_S]),
        "index add": ("IndexAddBackward0", lambda a, s: a.index_add(0, torch.tensor([2, 0, 2]), s, alpha=2), [_S, (3, 4)]),
        "gather": ("GatherBackward0", lambda a: a.gather(1, torch.tensor([[0, 3, 3], [1, 1, 2]])), [_S]),
        "scatter": ("ScatterBackward0", lambda a, s: a.scatter(1, torch.tensor([[0, 3], [1, 2]]), s), [_S, (2, 2)]),
        "scatter value": ("ScatterBackward1", lambda a: a.scatter(1, torch.tensor([[0, 3], [1, 2]]), 2.0), [_S]),
        "scatter add": ("ScatterAddBackward0", lambda a, s: a.scatter_add(1, torch.tensor([[0, 0], [1, 2]]), s), [_S, (2, 2)]),
    }  # fmt: skip
    return table | further()


def inputs_of(problem: Problem) -> list[torch.Tensor]:
    """Fresh float64 inputs of one problem."""
    return [
        one if isinstance(one, torch.Tensor) else torch.randn(one, dtype=torch.float64).requires_grad_()
        for one in problem[2]
    ]
