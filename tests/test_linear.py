"""Four times the nodes are four times the work: counted in calls, so that no clock is judged."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

import explorer
from explorer.render import dot, fold, text


def chain(size: int) -> Tensor:
    """One operation after another."""
    y = torch.ones(1, requires_grad=True)
    for _ in range(size):
        y = y * 1.5
    return y.sum()


def wide(size: int) -> Tensor:
    """One leaf used by all."""
    x = torch.ones(1, requires_grad=True)
    return torch.stack([x * 1.5 for _ in range(size)]).sum()


def forked(size: int) -> Tensor:
    """Diamonds in a row: exponentially many paths."""
    y = torch.ones(1, requires_grad=True)
    for _ in range(size // 3):
        y = y * 0.5 + y * 0.25
    return y.sum()


def many_leaves(size: int) -> Tensor:
    """Every operation with a leaf of its own."""
    return torch.stack([torch.ones(1, requires_grad=True).sin() for _ in range(size // 2)]).sum()


GRAPHS: dict[str, Callable[[int], Tensor]] = {
    "chain": chain, "wide": wide, "forked": forked, "many leaves": many_leaves
}  # fmt: skip


def calls(run: Callable[[], object]) -> int:
    """How many functions, of Python or C, `run` calls."""
    count = 0

    def heard(frame: Any, event: str, argument: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(heard)
    try:
        run()
    finally:
        sys.setprofile(before)
    return count


def explored(loss: Tensor) -> None:
    """What a user has of a graph by default but for the check, whose work is a sample of each node's."""
    report = explorer.explore(loss, check="off")
    dot.of_drawing(report, fold.draw(report))
    text.text(report)


@pytest.mark.parametrize("name", GRAPHS)
def test_the_work_grows_as_the_graph(name: str) -> None:
    explored(GRAPHS[name](700))  # what is done once a process is done
    small, large = (calls(partial(explored, GRAPHS[name](size))) for size in (700, 2800))
    assert small > 700
    assert large < 4.6 * small


def test_work_that_grows_faster_is_noticed() -> None:
    """The planted fault: a list that is searched for every node."""

    def squared(size: int) -> None:
        for _ in range(size):
            for _ in range(size):
                len(())

    assert calls(lambda: squared(120)) > 4.6 * calls(lambda: squared(30))
