"""Dead and saturated units, and pairs made by broadcasting, from what nodes saved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, TypeGuard

import torch

from explorer.copies import Copies, Numbers
from explorer.evidence import Broadcast, Units
from hooks.memory import has_address, has_memory
from hooks.nodes import AutogradNode
from hooks.saved import read

ROWS = 16
"""The smallest batch that says something about a unit."""
GLANCE = 64
"""Rows after which most units of a healthy layer have shown that they are not stuck."""
TANH = 0.99
"""|tanh| above this is saturated."""
SIGMOID = 0.01
"""A sigmoid's y(1 - y) below this is saturated."""
_ACTIVATIONS = {"ReluBackward0": "relu", "TanhBackward0": "tanh", "SigmoidBackward0": "sigmoid"}
_DISTANCES = ("PowBackward0", "AbsBackward0")
_LAYERS = ("AddmmBackward0", "MmBackward0", "LinearBackward0")
_LOSSES = ("MseLossBackward0", "SmoothL1LossBackward0", "HuberLossBackward0")


def count_units(live: Sequence[AutogradNode]) -> list[Units]:
    """Count, for every ReLU, tanh and sigmoid with at least `ROWS` rows, the units that are stuck."""
    found: list[Units] = []
    copies = Copies()
    for index, node in enumerate(live):
        function = _ACTIVATIONS.get(type(node).__name__)
        result = read(node)["result"].value if function else None
        if function is None or not _readable(result) or result.dim() < 2 or result.is_complex():
            continue
        channel = 1 if result.dim() == 4 else result.dim() - 1
        units = result.shape[channel]
        rows = result.numel() // units if units else 0
        if rows < ROWS:
            continue
        if result.is_cpu:
            found.append(Units(index, function, _stuck(function, result, channel), units, rows))
        else:  # a glance would wait for the device: all rows there, and the counts come over together
            with torch.no_grad():
                count = _units_stuck(function, result, channel).sum()
            copies.add(count, partial(_note, found, Units(index, function, 0, units, rows)))
    copies.fetch()
    return sorted(found, key=lambda units: units.node)


def _note(found: list[Units], units: Units, numbers: Numbers) -> None:
    found.append(replace(units, affected=int(numbers[0].real)))


def _readable(value: Any) -> TypeGuard[torch.Tensor]:
    """Whether `value` is a tensor of one shape, with memory behind it."""
    plain = isinstance(value, torch.Tensor) and value.layout is torch.strided and not value.is_nested
    return plain and has_address(value) and has_memory(value)


def _stuck(function: str, result: torch.Tensor, channel: int) -> int:
    """How many units are stuck in every row.

    A unit that is not stuck in a few rows is not stuck, and in a healthy layer few rows clear every unit: the
    others alone are looked at in full.
    """
    entries = result.shape[0]
    rows = result.numel() // result.shape[channel] // entries
    with torch.no_grad():
        few = result[: -(-GLANCE // rows)]
        suspects = _units_stuck(function, few, channel).nonzero().flatten()
        if not suspects.numel() or len(few) == entries:
            return suspects.numel()
        return int(_units_stuck(function, result.index_select(channel, suspects), channel).sum())


def _units_stuck(function: str, result: torch.Tensor, channel: int) -> torch.Tensor:
    """For each unit, whether it is stuck in all of these rows."""
    others = [dim for dim in range(result.dim()) if dim != channel]
    if function == "relu":
        return result.amax(others) == 0
    if function == "tanh":
        return result.abs().amin(others) > TANH
    return (result * (1 - result)).amax(others) < SIGMOID


def find_broadcasts(live: Sequence[AutogradNode]) -> Iterator[Broadcast]:
    """Losses whose prediction and target expanded each other."""
    for index, node in enumerate(live):
        name = type(node).__name__
        if name in _LOSSES:
            saved = read(node)
            pair = (saved["self"].value, saved["target"].value)
            if all(map(_readable, pair)):
                found = _expanded(index, *pair)
                if found is not None:
                    yield found
        elif name in _DISTANCES:
            found = _difference(index, node)
            if found is not None:
                yield found


def _expanded(index: int, prediction: Any, target: Any) -> Broadcast | None:
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
    return Broadcast(index, tuple(shapes[0]), tuple(shapes[1]), tuple(prediction.shape))


def _difference(index: int, node: AutogradNode) -> Broadcast | None:
    """Squared or absolute prediction - target: a prediction (n, 1) straight from a layer, a target (n,).

    The difference d is saved: where the target is one row, d[i, :] - d[0, :] is the same number all along.
    """
    below = node.next_functions[0][0]
    if below is None or type(below).__name__ != "SubBackward0" or below.next_functions[1][0] is not None:
        return None
    maker, slot = below.next_functions[0]
    if maker is not None and type(maker).__name__ == "ExpandBackward0":  # what F.l1_loss does first
        maker, slot = maker.next_functions[0]
    if maker is None or type(maker).__name__ not in _LAYERS:
        return None
    difference = read(node)["self"].value
    if not _readable(difference) or difference.dim() != 2:
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
    return Broadcast(index, (n, 1), (n,), (n, n))
