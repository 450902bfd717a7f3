"""Each stage of ours by itself, beside one plain step: what a slow exploration spends its time on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

import explorer
from hooks.forward import observe_forward
from tests.benchmarks.context import Block
from tests.benchmarks.watching import chain, timed, watched_backward

Forward = Callable[[], Tensor]


def stages(forward: Forward) -> dict[str, Callable[[], Any]]:
    """What is run for each line; one that returns a number has timed itself."""

    def walk() -> float:
        loss = forward()
        return timed(lambda: explorer.walk(loss).nodes)

    def statistics() -> float:
        loss = forward()
        return timed(lambda: watched_backward(loss, saved=False))

    def values() -> float:
        """Statistics with small forward values and every saved tensor listed."""
        with observe_forward() as seen:
            loss = forward()
            return timed(lambda: watched_backward(loss, context=seen.context_of, values=True))

    def findings() -> float:
        with explorer.watch(check="off") as watch:
            forward().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
        return timed(lambda: watch.reports)

    def whole() -> None:
        str(explorer.explore(forward()))

    return {
        "walk alone": walk,
        "backward, captured, statistics": statistics,
        "backward, captured, values": values,
        "findings alone": findings,
        "explore() with sampled check": whole,
    }


def further(short: bool) -> dict[str, Forward]:
    """Graphs of many small operations, where everything but mathematics counts."""
    width, steps, length = (16, 4, 100) if short else (64, 40, 20_000)
    blocks = nn.Sequential(*(Block(width, 2) for _ in range(2)), nn.Linear(width, 10))
    tokens = torch.randn(2, 8, width)
    cell, readings = nn.LSTMCell(width, width), torch.randn(steps, 4, width)

    def unrolled() -> Tensor:
        hidden, state = cell(readings[0])
        for reading in readings[1:]:
            hidden, state = cell(reading, (hidden, state))
        loss: Tensor = hidden.pow(2).mean()
        return loss

    return {
        "tiny transformer": lambda: blocks(tokens).pow(2).mean(),
        f"LSTM, {steps} steps": unrolled,
        f"chain of {length:,} ops": lambda: chain(length),
    }
