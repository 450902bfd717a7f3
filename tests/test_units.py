"""Stuck units are counted exactly, however few rows most of them are judged by."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import Tensor

from explorer.units import GLANCE, SIGMOID, TANH, count_units, find_broadcasts

FUNCTIONS = {"relu": torch.relu, "tanh": torch.tanh, "sigmoid": torch.sigmoid}


def plainly(function: str, result: Tensor, channel: int) -> int:
    """The count by its definition: every unit, every row."""
    units = result.movedim(channel, -1).reshape(-1, result.shape[channel])
    if function == "relu":
        return int((units == 0).all(0).sum())
    if function == "tanh":
        return int((units.abs() > TANH).all(0).sum())
    return int((units * (1 - units) < SIGMOID).all(0).sum())


@pytest.mark.parametrize(
    "shape", [(40, 30), (400, 30), (3, 50, 30), (200, 5, 30), (2, 30, 9, 9), (90, 30, 2, 2)]
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_every_stuck_unit_is_counted_and_no_other(function: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    channel = 1 if len(shape) == 4 else len(shape) - 1
    rows = torch.randn(30, torch.empty(shape).numel() // 30)
    rows[:12] = -50.0  # stuck in every row
    rows[7:12, -1] = 0.5  # only the very last row shows that these are not
    rows[12, 0] = torch.nan
    others = [size for dim, size in enumerate(shape) if dim != channel]
    x = rows.view(30, *others).movedim(0, channel).contiguous().requires_grad_()
    (seen,) = count_units([FUNCTIONS[function](x).grad_fn])
    result = FUNCTIONS[function](x.detach())
    assert (seen.function, seen.units, seen.rows) == (function, 30, x.numel() // 30)
    assert seen.affected == plainly(function, result, channel) == 7


def test_a_layer_of_fewer_rows_than_a_glance() -> None:
    x = torch.full((GLANCE // 2, 5), -1.0, requires_grad=True)
    (seen,) = count_units([torch.relu(x).grad_fn])
    assert seen.affected == 5


def test_results_that_cannot_be_read_are_passed_over() -> None:
    """Nested tensors have no single shape; an activation may give its memory back until backward needs it."""
    x = torch.full((40, 5), -1.0, requires_grad=True)
    given_back = torch.relu(x)
    powered = given_back.pow(2)
    given_back.untyped_storage().resize_(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        nested = torch.nested.nested_tensor([torch.ones(20, 5), torch.ones(3, 5)], requires_grad=True)
    nodes = [given_back.grad_fn, torch.relu(nested).grad_fn]
    assert list(count_units(nodes)) == []
    assert list(find_broadcasts([*nodes, (nested - nested).abs().grad_fn, powered.grad_fn])) == []
