"""The forwards: one statement of mathematics each, in the arrangement in which torch computes it."""

from __future__ import annotations

from collections.abc import Callable
from math import pi, prod, sqrt
from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import linear
from explorer.engine.elementwise import NORMAL_CDF, SHARP_EXP, SOFTPLUS, index_along
from explorer.engine.forwards import Known, UnknownValueError, forward, forward_names
from explorer.engine.rules.attention import _repeated as repeated
from explorer.engine.rules.convolution import correlated_input, correlated_output
from explorer.engine.rules.indexing import gathered
from explorer.engine.run import Run
from explorer.engine.views import cat, stack


def _unary(function: Callable[[Array], Array], *names: str) -> None:
    forward(*names)(lambda n: function(n.self))


# -------------------------------------------------------------------- one number to one number

_unary(lambda x: x.exp(), "ExpBackward0")
_unary(lambda x: x.log(), "LogBackward0")
_unary(lambda x: x.sqrt(), "SqrtBackward0")
_unary(lambda x: 1 / x.sqrt(), "RsqrtBackward0")
_unary(lambda x: 1 / x, "ReciprocalBackward0")
_unary(lambda x: x.sin(), "SinBackward0")
_unary(lambda x: x.cos(), "CosBackward0")
_unary(lambda x: x.tanh(), "TanhBackward0")
_unary(lambda x: x.sigmoid(), "SigmoidBackward0")
_unary(abs, "AbsBackward0")
_unary(lambda x: -x, "NegBackward0")
_unary(lambda x: x.where(~(x <= 0)), "ReluBackward0")
_unary(lambda x: x * x.sigmoid(), "SiluBackward0")


@forward("GeluBackward0")
def gelu(n: Known) -> Any:
    """x Φ(x), or its approximation by tanh."""
    x = n.self
    if n.approximate == "tanh":
        return 0.5 * x * (1 + (sqrt(2 / pi) * (x + 0.044715 * (x * x * x))).tanh())
    return x * x.map(NORMAL_CDF)


@forward("LeakyReluBackward0")
def leaky_relu(n: Known) -> Any:
    """x > 0 ? x : a x."""
    x: Array = n.self
    return x.where(x > 0, x * n.negative_slope)


@forward("SoftplusBackward0")
def softplus(n: Known) -> Any:
    """log(1 + e^(βx))/β, and x itself where βx is above the threshold."""
    scaled = n.self * n.beta
    return n.self.where(scaled > n.threshold, scaled.map(SOFTPLUS) / n.beta)


# -------------------------------------------------------------------- arithmetic


@forward("AddBackward0")
def add(n: Known) -> Any:
    """a + α b."""
    return n.self + (n.other if n.alpha == 1 else n.other * n.alpha)


@forward("SubBackward0")
def sub(n: Known) -> Any:
    """a - α b."""
    return n.self - (n.other if n.alpha == 1 else n.other * n.alpha)


@forward("MulBackward0")
def mul(n: Known) -> Any:
    """a b."""
    return n.self * n.other


@forward("DivBackward0")
def div(n: Known) -> Any:
    """a / b."""
    return n.self / n.other


@forward("PowBackward0")
def power(n: Known) -> Any:
    """aᶜ."""
    return n.self * n.self if n.exponent == 2 else n.self**n.exponent


# -------------------------------------------------------------------- the same elements in other places


@forward(
    "ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0", "UnsqueezeBackward0", "SqueezeBackward0",
    "SqueezeBackward1", "SqueezeBackward2",
)  # fmt: skip
def view(n: Known) -> Any:
    """The elements of a under the output's shape."""
    return n.self.reshape(*n.shape)


@forward("AliasBackward0", "CloneBackward0", "ToCopyBackward0", "DetachBackward0")
def same(n: Known) -> Any:
    """a itself."""
    return n.self


@forward("TBackward0")
def t(n: Known) -> Any:
    """The transpose."""
    return n.self.transpose(0, -1) if n.self.ndim == 2 else n.self


@forward("TransposeBackward0")
def transpose(n: Known) -> Any:
    """Two axes exchanged."""
    return n.self.transpose(n.dim0, n.dim1)


@forward("PermuteBackward0")
def permute(n: Known) -> Any:
    """Axes in another order."""
    return n.self.permute(*n.dims)


@forward("ExpandBackward0")
def expand(n: Known) -> Any:
    """Broadcast to the output's shape."""
    return n.self.expand(*n.shape)


@forward("SelectBackward0")
def select(n: Known) -> Any:
    """One index of an axis."""
    return n.self.select(n.dim, n.index)


@forward("SliceBackward0")
def slice_(n: Known) -> Any:
    """Part of an axis."""
    return n.self.slice(n.dim, n.setting("start") or 0, n.setting("end"), n.step)


@forward("SplitBackward0", "SplitWithSizesBackward0")
def split(n: Known) -> Any:
    """Parts along an axis, whose sizes the outputs tell."""
    parts, start, dim = [], 0, n.dim
    for shape in n.shapes:
        if shape is None:
            raise UnknownValueError("shape")
        size = shape[dim]
        parts.append(n.self.slice(dim, start, start + size))
        start += size
    return parts


@forward("UnbindBackward0")
def unbind(n: Known) -> Any:
    """Every index of an axis."""
    return [n.self.select(n.dim, place) for place in range(len(n.shapes))]


@forward("CatBackward0")
def cat_(n: Known) -> Any:
    """One after the other along an axis."""
    return cat(n.tensors, n.dim)


@forward("StackBackward0")
def stack_(n: Known) -> Any:
    """Along a new axis."""
    return stack(n.tensors, n.dim % len(n.shape))


# -------------------------------------------------------------------- sums and products


@forward("SumBackward0", "MeanBackward0", reads=lambda n: n.self.numel)
def whole_sum(n: Known) -> Any:
    """Σ a, or the mean: the node of a mean saved how many there are."""
    total: Array = n.self.sum()
    return total / n.self.numel if "self_sym_numel" in n._site.saved else total


@forward("SumBackward1", reads=lambda n: n.self.numel // max(prod(n.shape), 1))
def sum_(n: Known) -> Any:
    """Σ a over some axes."""
    return _summed(n)


@forward("MeanBackward1", reads=lambda n: n.self.numel // max(prod(n.shape), 1))
def mean(n: Known) -> Any:
    """The mean over some axes."""
    total = _summed(n)
    return total / (n.self.numel // max(total.numel, 1))


def _summed(n: Known) -> Any:
    total: Array = n.self.sum(n.setting("dim"), keepdim=n.keepdim)
    return total


@forward("MmBackward0", "BmmBackward0", reads=lambda n: 2 * n.self.shape[-1])
def mm(n: Known) -> Any:
    """A B."""
    return n.self @ n.mat2


@forward("AddmmBackward0", reads=lambda n: 2 * n.mat1.shape[-1])
def addmm(n: Known) -> Any:
    """β C + α A B."""
    product: Array = n.mat1 @ n.mat2
    added = n.addend("self")
    return (product if n.alpha == 1 else product * n.alpha) + (added if n.beta == 1 else added * n.beta)


@forward("ConvolutionBackward0", reads=lambda n: 2 * n.weight.numel // max(n.weight.shape[0], 1))
def convolution(n: Known) -> Any:
    """The convolution of the input with the weight, or its transpose, and the bias."""
    args = ([*n.stride], [*n.padding], [*n.dilation], n.groups)
    x, weight, shape = n.input, n.weight, n.shape
    if any(len(part) != x.ndim - 2 for part in args[:3]):
        raise UnknownValueError("settings")
    kernel = correlated_input if n.transposed else correlated_output
    product = kernel(x, weight, shape, *args)
    if not prod(n.setting("bias_sym_sizes_opt") or (0,)):
        return product  # torch keeps (0,) where there is none
    bias = n.addend("bias")
    return product + (bias.reshape(-1, *[1] * (x.ndim - 2)) if isinstance(bias, Array) else bias)


# -------------------------------------------------------------------- normalisation, softmax, losses


@forward("NativeBatchNormBackward0")
def batch_norm(n: Known) -> Any:
    """(x - μ) r w + b per channel, computed as x α + (b - μ α) with α = r w."""
    x: Array = n.input
    channel = [1] * x.ndim
    channel[1] = x.shape[1]
    if n.setting("training"):
        mean, scale = n.result1.reshape(*channel), n.result2.reshape(*channel)
    else:
        mean = n.running_mean.reshape(*channel)
        scale = 1 / (n.running_var.reshape(*channel) + n.eps).sqrt()
    weight, bias = n.factor("weight", "input"), n.addend("bias")
    weight, bias = (one.reshape(*channel) if isinstance(one, Array) else one for one in (weight, bias))
    slope = scale * weight
    return x * slope + (bias - mean * slope)


@forward("NativeLayerNormBackward0")
def layer_norm(n: Known) -> Any:
    """(x - μ) r w + b over the last axes."""
    x, mean, scale = n.input, n.result1, n.result2
    return (x * scale - mean * scale) * n.factor("weight", "input") + n.addend("bias")


@forward("SoftmaxBackward0", reads=lambda n: 3 * n.self.shape[n.dim])
def softmax(n: Known) -> Any:
    """exp(x - max) / Σ exp(x - max)."""
    x = n.self
    grown = (x - x.amax(n.dim, keepdim=True)).exp()
    return grown / grown.sum(n.dim, keepdim=True)


@forward("LogSoftmaxBackward0", reads=lambda n: 3 * n.self.shape[n.dim])
def log_softmax(n: Known) -> Any:
    """x - max - log Σ exp(x - max)."""
    x = n.self
    shifted = x - x.amax(n.dim, keepdim=True)
    return shifted - shifted.exp().sum(n.dim, keepdim=True).log()


@forward("LogsumexpBackward0", reads=lambda n: 2 * n.self.numel // max(prod(n.shape), 1))
def logsumexp(n: Known) -> Any:
    """max + log Σ exp(x - max)."""
    x, dim = n.self, n.dim
    top = x.amax(dim, keepdim=True)
    total = (x - top).exp().sum(dim, keepdim=n.keepdim).log()
    return total + (top if n.keepdim else x.amax(dim))


@forward(
    "ScaledDotProductFlashAttentionForCpuBackward0", reads=lambda n: 3 * n.key.shape[-2] * n.key.shape[-1]
)
def attention(n: Known) -> Any:
    """softmax(s Q Kᵀ + mask) V, with the logarithm of the sum as it was saved."""
    if n.dropout_p:
        raise UnknownValueError("dropout")
    q, mask = n.query, n.setting("attn_mask")
    group = q.shape[-3] // n.key.shape[-3]
    scale = 1 / sqrt(q.shape[-1]) if n.setting("scale") is None else n.scale
    scores = (q @ repeated(n.key, group).mT) * scale
    if mask is not None:
        scores = scores.where(mask, -float("inf")) if getattr(mask, "dtype", "") == "bool" else scores + mask
    weights = (scores - n.logsumexp.unsqueeze(-1)).map(SHARP_EXP)
    if n.is_causal:
        weights = weights.where(index_along(scores.shape, -1) - index_along(scores.shape, -2) <= 0)
    return weights @ repeated(n.value, group)


# -------------------------------------------------------------------- pooling


def _winners(spatial: int) -> Callable[[Known], Any]:
    """x[i[q]] in each plane of so many axes, the winners i saved."""

    def pool(n: Known) -> Any:
        shape, index = n.shape, n.result1
        lead = shape[: len(shape) - spatial]
        found = gathered(n.self.reshape(*lead, -1), -1, index.reshape(*lead, -1))
        return found.reshape(*shape)

    return pool


forward("MaxPool2DWithIndicesBackward0", "AdaptiveMaxPool2DBackward0")(_winners(2))
forward("MaxPool3DWithIndicesBackward0", "AdaptiveMaxPool3DBackward0")(_winners(3))


@forward("AvgPool2DBackward0", reads=lambda n: prod(n.kernel_size))
def avg_pool(n: Known) -> Any:
    """The mean of each window; what hangs over the padded edge never counts, padding as it was asked for."""
    x, divisor, padded = n.self, n.setting("divisor_override"), n.count_include_pad
    axes = [*zip(x.shape[-2:], n.kernel_size, n.stride or n.kernel_size, n.padding, strict=True)]

    def terms(point: tuple[int, ...], run: Run) -> tuple[list[tuple[int, ...]], list[float]]:
        ranges, area = [], 1
        for place, (size, kernel, step, pad) in zip(point[-2:], axes, strict=True):
            start = place * step - pad
            end = min(start + kernel, size + pad)
            ranges.append(range(max(start, 0), min(end, size)))
            area *= end - start if padded else len(ranges[-1])
        window = [(*point[:-2], i, j) for i in ranges[0] for j in ranges[1]]
        return window, [1 / (divisor or area)] * len(window)

    return linear(n.shape, x, terms)


_REDUCTIONS = {0: "none", 1: "mean", 2: "sum"}


@forward("MseLossBackward0", reads=lambda n: 2 * n.self.numel)
def mse(n: Known) -> Any:
    """(a - b)², its mean or its sum."""
    gap: Array = n.self - n.target
    square, how = gap * gap, _REDUCTIONS.get(n.setting("reduction"))
    if how == "none":
        return square
    if how is None:
        raise UnknownValueError("reduction")
    return square.mean() if how == "mean" else square.sum()


@forward("NllLossBackward0", reads=lambda n: 2 * n.target.numel)
def nll(n: Known) -> Any:
    """-Σ x[i, target i] over the rows that count, or their mean; no weights."""
    x, target, how = n.self, n.target, _REDUCTIONS.get(n.setting("reduction"))
    if x.ndim != 2 or how not in ("mean", "sum") or n.setting("weight") is not None:
        raise UnknownValueError("weights")
    ignored = n.setting("ignore_index")

    def terms(point: tuple[int, ...], run: Run) -> tuple[list[tuple[int, ...]], list[float]]:
        wanted = target.eval(target.full_box, run)[0]
        places: list[tuple[int, ...]] = [
            (row, int(column)) for row, column in enumerate(wanted) if column != ignored
        ]
        share = 1.0 if how == "sum" else 1 / max(len(places), 1)
        return places, [-share] * len(places)

    return linear((), x, terms)


FORWARDS = forward_names()
"""What has a forward."""
