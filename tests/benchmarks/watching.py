"""What walking and watching cost, as ratios to the plain run beside them.

Run ``python -m tests.benchmarks.watching``; medians of interleaved runs after a warm-up.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from explorer.record import Recorder
from explorer.trace import Found, _traverse, trace
from hooks.collection import no_collection
from hooks.nodes import capture
from hooks.release import sweep


def steps() -> dict[str, Callable[[], Tensor]]:
    """Forward passes whose plain step takes some 30 to 160 ms on one core."""
    mlp = nn.Sequential(*(layer for _ in range(6) for layer in (nn.Linear(1024, 1024), nn.ReLU())))
    cnn = nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(i, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
            for i in (3, 32, 32, 32)
        )
    )
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 4, enable_nested_tensor=False)
    rows, images, tokens = torch.randn(128, 1024), torch.randn(24, 3, 32, 32), torch.randn(8, 64, 256)
    return {
        "mlp": lambda: mlp(rows).pow(2).mean(),
        "cnn": lambda: cnn(images).pow(2).mean(),
        "transformer": lambda: encoder(tokens).pow(2).mean(),
    }


def timed(run: Callable[[], Any]) -> float:
    """Seconds of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start


def watching(repeats: int = 15) -> dict[str, dict[str, float]]:
    """Per model: plain milliseconds, nodes, and the ratios without and with saved values listed."""
    table: dict[str, dict[str, float]] = {}
    for name, forward in steps().items():

        def plain(forward: Callable[[], Tensor] = forward) -> None:
            forward().backward()

        def watched(saved: bool, forward: Callable[[], Tensor] = forward) -> None:
            loss = forward()
            found = trace([loss], saved=saved)
            recorder = Recorder(found)
            with capture(found.live, recorder.observe):
                loss.backward()
            recorder.finish()

        for run in (plain, lambda: watched(True)):
            timed(run)
        rows = [
            (timed(plain), timed(lambda: watched(False)), timed(lambda: watched(True)))
            for _ in range(repeats)
        ]
        base = median(row[0] for row in rows)
        table[name] = {
            "plain ms": base * 1e3,
            "nodes": len(trace([forward()], saved=False).live),
            "walk+capture+statistics": median(row[1] / row[0] for row in rows),
            "with saved values": median(row[2] / row[0] for row in rows),
        }
    return table


def walking(depth: int = 20_000, repeats: int = 9) -> dict[str, float]:
    """Microseconds a node: a bare loop over next_functions, our traversal, the full walk."""
    rows = []
    for _ in range(repeats):
        # Fresh graphs each time: the first look at a node costs most, for it makes the wrapper.
        rows.append(
            (
                _walked(bare_loop, chain(depth).grad_fn),
                _walked(traversal, chain(depth).grad_fn),
                _walked(lambda loss: trace([loss]), chain(depth)),
                _walked(lambda loss: trace([loss]).graph.nodes, chain(depth)),
            )
        )
        sweep()
    bare, ours, seen, full = (median(column) / depth * 1e6 for column in zip(*rows, strict=True))
    return {"bare us": bare, "traverse us": ours, "trace us": seen, "full us": full}


def _walked(walk: Callable[[Any], Any], root: Any) -> float:
    """Seconds of one walk; what it found stays meanwhile, so that its release is not in them."""
    kept: list[Any] = []
    return timed(lambda: kept.append(walk(root)))


def traversal(root: Any) -> Any:
    """The first step of `trace`, as it runs there."""
    live: list[Any] = []
    found = Found()
    with no_collection():
        return _traverse([(root, 0)], live, found), live, found


def chain(depth: int) -> Tensor:
    """`depth` multiplications in a row."""
    y = torch.ones(1, requires_grad=True)
    for _ in range(depth):
        y = y * 1.0
    return y


def bare_loop(root: Any) -> set[Any]:
    """The least a walk can do."""
    seen, stack = {root}, [root]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                stack.append(node)
    return seen


if __name__ == "__main__":
    for model, row in watching().items():
        print(model, {key: round(value, 3) for key, value in row.items()})
    print("chain", {key: round(value, 3) for key, value in walking().items()})
