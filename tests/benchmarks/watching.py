"""What walking and watching cost, as ratios to the plain run beside them.

Run ``python -m tests.benchmarks.watching``; medians of interleaved runs after a warm-up.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
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
from tests.benchmarks.models import convolutions, encoder, grown, perceptron

STEPS = {"mlp": perceptron, "cnn": convolutions, "transformer": encoder}


def steps() -> dict[str, Callable[[], Tensor]]:
    """Forward passes by model and batch, whose plain step takes as long as the marks suppose."""
    found: dict[str, Callable[[], Tensor]] = {}
    for name, build in STEPS.items():
        model, inputs = build()
        inputs = grown(lambda batch, model=model: loss_of(model, batch).backward(), inputs)  # type: ignore[misc] # bound now
        found[f"{name}, batch {len(inputs)}"] = partial(loss_of, model, inputs)
    return found


def sized(name: str) -> dict[str, Callable[[], Tensor]]:
    """The forward pass of one model of `steps`, made anew with the batch that its name tells."""
    kind, _, batch = name.partition(", batch ")
    model, inputs = STEPS[kind]()
    return {name: partial(loss_of, model, inputs.new_empty(int(batch), *inputs.shape[1:]).normal_())}


def loss_of(model: nn.Module, inputs: Tensor) -> Tensor:
    """The loss all of them start from."""
    loss: Tensor = model(inputs).pow(2).mean()
    return loss


def watched_backward(loss: Tensor, **how: Any) -> None:
    """Walk from `loss`, and record its backward as a watch does.

    Args:
        how: what `trace` is told beside the root.
    """
    found = trace([loss], **how)
    recorder = Recorder(found)
    with capture(found.live, recorder.observe):
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    recorder.finish()


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
            watched_backward(forward(), saved=saved)

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
