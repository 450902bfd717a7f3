"""Functions of the stand-alone engine: softmax, convolution, pooling, indexing, losses.

Shapes and names are torch's. Each result is computed at once and remembers the node whose rule sends its
gradient on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import inf
from typing import Literal, TypeAlias

from explorer.engine.array import Array
from explorer.engine.backward import evaluated
from explorer.engine.elementwise import SOFTPLUS
from explorer.engine.leaf import Leaf
from explorer.engine.rules.convolution import correlated_output
from explorer.engine.rules.indexing import gathered, selected_rows
from explorer.engine.tape import Tensor, record
from explorer.engine.views import cat as cat_arrays
from explorer.engine.views import stack as stack_arrays
from explorer.errors import ShapeError

Reduction: TypeAlias = Literal["mean", "sum", "none"]
_CODES = {"none": 0, "mean": 1, "sum": 2}

# -------------------------------------------------------------------- joining and choosing


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors one after the other along `dim`."""
    return record("CatBackward0", cat_arrays([one.array for one in tensors], dim), tensors, {"dim": dim})


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """The tensors along a new axis."""
    return record("StackBackward0", stack_arrays([one.array for one in tensors], dim), tensors, {"dim": dim})


def where(condition: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """`first` where `condition` is not zero, `second` elsewhere."""
    chosen = evaluated(condition.array.ne(0))
    found = first.array.where(chosen, second.array)
    return record("WhereBackward0", found, [first, second], {"condition": chosen})


def embedding(weight: Tensor, indices: Tensor) -> Tensor:
    """Row ``indices[...]`` of `weight` (R, C) for each index: shape (..., C)."""
    rows = selected_rows(weight.array, 0, indices.array)
    found = rows.reshape(*indices.shape, weight.shape[1])
    saved = {"indices": indices.array, "padding_idx": -1, "scale_grad_by_freq": False}
    return record("EmbeddingBackward0", found, [weight], saved)


def gather(source: Tensor, dim: int, index: Tensor) -> Tensor:
    """y[p] = source[p with p[dim] replaced by index[p]]."""
    found = gathered(source.array, dim, index.array)
    return record("GatherBackward0", found, [source], {"dim": dim, "index": index.array})


# -------------------------------------------------------------------- softmax


def softmax(x: Tensor, dim: int = -1) -> Tensor:
    """eˣ / Σ eˣ along `dim`."""
    powers = evaluated((x.array - x.array.amax(dim, keepdim=True)).exp())
    return record(
        "SoftmaxBackward0", powers / powers.sum(dim, keepdim=True), [x], {"dim": dim}, result="result"
    )


def log_softmax(x: Tensor, dim: int = -1) -> Tensor:
    """x - log Σ eˣ along `dim`."""
    shifted = evaluated(x.array - x.array.amax(dim, keepdim=True))
    total = shifted.exp().sum(dim, keepdim=True).log()
    return record("LogSoftmaxBackward0", shifted - total, [x], {"dim": dim}, result="result")


def logsumexp(x: Tensor, dim: int = -1, keepdim: bool = False) -> Tensor:
    """log Σ eˣ along `dim`."""
    largest = evaluated(x.array.amax(dim, keepdim=True))
    total = (x.array - largest).exp().sum(dim, keepdim=True).log() + largest
    saved = {"self": x.array, "dim": [dim], "keepdim": keepdim}
    return record("LogsumexpBackward0", total if keepdim else total.squeeze(dim), [x], saved, result="result")


# -------------------------------------------------------------------- convolution and pooling


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    first, second = (value, value) if isinstance(value, int) else value
    return first, second


def conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0, dilation: int | Sequence[int] = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """The convolution of `x` (B, C, H, W) with `weight` (O, C/groups, KH, KW), plus `bias` (O).

    Raises:
        ShapeError: channels that do not fit, or a kernel larger than the padded input.
    """
    steps, pads, gaps = _pair(stride), _pair(padding), _pair(dilation)
    outputs, inputs, *kernel = weight.shape
    if x.ndim != 4 or len(kernel) != 2 or x.shape[1] != inputs * groups or outputs % groups:
        raise ShapeError(f"conv2d of {x.shape} with weight {weight.shape} in {groups} groups")
    sizes = [
        (size + 2 * p - d * (k - 1) - 1) // s + 1
        for size, k, s, p, d in zip(x.shape[2:], kernel, steps, pads, gaps, strict=True)
    ]
    if min(sizes) < 1:
        raise ShapeError(f"conv2d: kernel {tuple(kernel)} is larger than the padded input {x.shape}")
    shape = (x.shape[0], outputs, *sizes)
    found = correlated_output(x.array, weight.array, shape, steps, pads, gaps, groups)
    saved = {
        "input": x.array,
        "weight": weight.array,
        "stride": steps,
        "padding": pads,
        "dilation": gaps,
        "groups": groups,
        "transposed": False,
    }
    if bias is None:
        return record("ConvolutionBackward0", found, [x, weight], saved)
    return record("ConvolutionBackward0", found + bias.array.reshape(1, -1, 1, 1), [x, weight, bias], saved)


def max_pool2d(
    x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
) -> Tensor:  # fmt: skip
    """The largest element of each window; of equal ones the first takes the gradient."""
    kernel, pads = _pair(kernel_size), _pair(padding)
    steps = kernel if stride is None else _pair(stride)
    winners: list[float] = []

    def largest(plane: Sequence[float], places: Sequence[int]) -> float:
        best, place = -inf, places[0]
        for one in places:
            if plane[one] > best or plane[one] != plane[one]:
                best, place = plane[one], one
        winners.append(place)
        return best

    found = _pooled(x, kernel, steps, pads, largest)
    saved = {
        "self": x.array,
        "kernel_size": kernel,
        "stride": steps,
        "padding": pads,
        "dilation": (1, 1),
        "result1": Leaf(winners, found.shape, dtype="int64"),
    }
    return record("MaxPool2DWithIndicesBackward0", found, [x], saved)


def avg_pool2d(
    x: Tensor, kernel_size: int | Sequence[int], stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
) -> Tensor:  # fmt: skip
    """The mean of each window, padding counted as zeros."""
    kernel, pads = _pair(kernel_size), _pair(padding)
    steps = kernel if stride is None else _pair(stride)
    area = kernel[0] * kernel[1]
    found = _pooled(x, kernel, steps, pads, lambda plane, places: sum(plane[one] for one in places) / area)
    saved = {
        "kernel_size": kernel,
        "stride": steps,
        "padding": pads,
        "count_include_pad": True,
        "divisor_override": None,
    }
    return record("AvgPool2DBackward0", found, [x], saved)


def _pooled(
    x: Tensor, kernel: Sequence[int], stride: Sequence[int], padding: Sequence[int],
    reduce: Callable[[Sequence[float], Sequence[int]], float],
) -> Array:  # fmt: skip
    """`reduce` over every window of every plane (H·W numbers, row-major), given the places inside it."""
    *lead, height, width = x.shape
    if any(2 * p > k for p, k in zip(padding, kernel, strict=True)):
        raise ShapeError(f"pooling: padding {tuple(padding)} is more than half of kernel {tuple(kernel)}")
    sizes = [
        (size + 2 * p - k) // s + 1
        for size, k, s, p in zip((height, width), kernel, stride, padding, strict=True)
    ]
    if min(sizes) < 1:
        raise ShapeError(f"pooling: kernel {tuple(kernel)} is larger than the padded input {x.shape}")
    windows = []
    for q, r in product(*map(range, sizes)):
        top, left = q * stride[0] - padding[0], r * stride[1] - padding[1]
        rows = range(max(top, 0), min(top + kernel[0], height))
        columns = range(max(left, 0), min(left + kernel[1], width))
        windows.append([row * width + column for row in rows for column in columns])
    values = x.array.values()
    size = height * width
    planes = [values[i : i + size] for i in range(0, len(values), size)]
    return Leaf([reduce(plane, places) for plane in planes for places in windows], (*lead, *sizes))


# -------------------------------------------------------------------- losses


def _reduced(loss: Tensor, reduction: Reduction) -> Tensor:
    return loss.mean() if reduction == "mean" else loss.sum() if reduction == "sum" else loss


def mse_loss(x: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """(x - t)², averaged, summed or as it is."""
    difference = evaluated(x.array - target.array)
    squares = difference * difference
    found = squares.mean() if reduction == "mean" else squares.sum() if reduction == "sum" else squares
    saved = {"self": x.array, "target": target.array, "reduction": _CODES[reduction]}
    return record("MseLossBackward0", found, [x, target], saved)


def l1_loss(x: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """|x - t|, averaged, summed or as it is."""
    return _reduced(abs(x - target), reduction)


def binary_cross_entropy_with_logits(x: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """(1 - t) x + log(1 + e⁻ˣ), averaged, summed or as it is."""
    each = (1 - target.array) * x.array + (-x.array).map(SOFTPLUS)
    found = each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each
    saved = {
        "self": x.array,
        "target": target.array,
        "weight": None,
        "pos_weight": None,
        "reduction": _CODES[reduction],
    }
    return record("BinaryCrossEntropyWithLogitsBackward0", found, [x, target], saved)


def nll_loss(x: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """-x[b, t[b]] of log-probabilities `x` (B, C) and labels `target` (B), averaged, summed or as it is."""
    if x.ndim != 2 or target.shape != x.shape[:1]:
        raise ShapeError(f"nll_loss of {x.shape} with labels of shape {target.shape}")
    if any(not 0 <= label < x.shape[1] for label in target.array.values()):
        raise IndexError(f"nll_loss: labels must be between 0 and {x.shape[1] - 1}")
    each = -gathered(x.array, 1, target.array.unsqueeze(1)).squeeze(1)
    found = each.mean() if reduction == "mean" else each.sum() if reduction == "sum" else each
    saved = {
        "self": x.array,
        "target": target.array,
        "weight": None,
        "reduction": _CODES[reduction],
        "ignore_index": -100,
        "total_weight": float(x.shape[0]),
    }
    return record("NllLossBackward0", found, [x], saved)


def cross_entropy(x: Tensor, target: Tensor, reduction: Reduction = "mean") -> Tensor:
    """`nll_loss` of the log-softmax of logits `x` (B, C) with labels `target` (B)."""
    return nll_loss(log_softmax(x, 1), target, reduction)
