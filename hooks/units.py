"""Dead and saturated units, and pairs made by broadcasting, from what nodes saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hooks.nodes import AutogradNode
from hooks.saved import read

ROWS = 16
"""The smallest batch that says something about a unit."""
TANH = 0.99
"""|tanh| above this is saturated."""
SIGMOID = 0.01
"""A sigmoid's y(1 - y) below this is saturated."""
_ACTIVATIONS = {"ReluBackward0": "relu", "TanhBackward0": "tanh", "SigmoidBackward0": "sigmoid"}
_LOSSES = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")


@dataclass(frozen=True, slots=True)
class UnitsSeen:
    """`affected` of `units` units behind ``live[node]`` are dead or saturated in all `rows` rows."""

    node: int
    function: str
    affected: int
    units: int
    rows: int


@dataclass(frozen=True, slots=True)
class BroadcastSeen:
    """The loss at ``live[node]`` met `prediction` and `target`, which expand each other to `shape`."""

    node: int
    prediction: tuple[int, ...]
    target: tuple[int, ...]
    shape: tuple[int, ...]


def count_units(live: Sequence[AutogradNode]) -> Iterator[UnitsSeen]:
    """Count, for every ReLU, tanh and sigmoid with at least `ROWS` rows, the units that are stuck."""
    for index, node in enumerate(live):
        function = _ACTIVATIONS.get(type(node).__name__)
        result = read(node)["result"].value if function else None
        if function is None or not isinstance(result, torch.Tensor) or result.dim() < 2:
            continue
        if result.layout is not torch.strided or result.is_complex() or result.is_meta:
            continue
        channel = 1 if result.dim() == 4 else result.dim() - 1
        units = result.shape[channel]
        rows = result.numel() // units if units else 0
        if rows >= ROWS:
            others = [dim for dim in range(result.dim()) if dim != channel]
            yield UnitsSeen(index, function, _stuck(function, result, others), units, rows)


def _stuck(function: str, result: torch.Tensor, others: list[int]) -> int:
    with torch.no_grad():
        if function == "relu":
            return int((result.amax(others) == 0).sum())
        if function == "tanh":
            return int((result.abs().amin(others) > TANH).sum())
        return int(((result * (1 - result)).amax(others) < SIGMOID).sum())


def find_broadcasts(live: Sequence[AutogradNode]) -> Iterator[BroadcastSeen]:
    """Losses whose prediction and target expanded each other."""
    for index, node in enumerate(live):
        name = type(node).__name__
        if name in _LOSSES:
            saved = read(node)
            pair = (saved["self"].value, saved["target"].value)
            if all(isinstance(tensor, torch.Tensor) for tensor in pair):
                found = _expanded(index, *pair)
                if found is not None:
                    yield found
        elif name == "PowBackward0":
            found = _difference(index, node)
            if found is not None:
                yield found


def _expanded(index: int, prediction: Any, target: Any) -> BroadcastSeen | None:
    """Both tensors lie expanded (stride 0), each along a dimension where the other is not."""
    shapes = []
    repeated = []
    for tensor in (prediction, target):
        flat = [n > 1 and stride == 0 for n, stride in zip(tensor.shape, tensor.stride(), strict=True)]
        shapes.append([1 if one else n for n, one in zip(tensor.shape, flat, strict=True)])
        repeated.append({dim for dim, one in enumerate(flat) if one})
    if not (repeated[0] - repeated[1] and repeated[1] - repeated[0]):
        return None
    for shape in shapes[1:]:
        while len(shape) > 1 and shape[0] == 1:
            del shape[0]
    return BroadcastSeen(index, tuple(shapes[0]), tuple(shapes[1]), tuple(prediction.shape))


def _difference(index: int, node: AutogradNode) -> BroadcastSeen | None:
    """(prediction - target) ** 2 with a prediction (n, 1) straight from a layer and a target (n,).

    The difference d is saved: where the target is one row, d[i, :] - d[0, :] is the same number all along.
    """
    below = node.next_functions[0][0]
    if below is None or type(below).__name__ != "SubBackward0" or below.next_functions[1][0] is not None:
        return None
    maker, slot = below.next_functions[0]
    if maker is None or type(maker).__name__ not in ("AddmmBackward0", "MmBackward0", "LinearBackward0"):
        return None
    difference = read(node)["self"].value
    if not isinstance(difference, torch.Tensor) or difference.dim() != 2:
        return None
    n, m = difference.shape
    if n != m or n < 2 or tuple(maker._input_metadata[slot].shape) != (n, 1):
        return None
    with torch.no_grad():
        rows = (difference - difference[:1]).double()
        spread = (rows - rows[:, :1]).abs().amax()
        size = difference.abs().amax().double()
        if not bool(spread <= 1e-5 * size):
            return None
    return BroadcastSeen(index, (n, 1), (n,), (n, n))
