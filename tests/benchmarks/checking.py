"""What the check of whole models costs beside torch's own backward of the same model.

Run ``python -m tests.benchmarks.checking [resnet|gpt|mlp|...]...``. Per model: medians of pairs, a plain
backward and a checked one of the same graph in turn; the check of forward values; the peak of the check's own
memory beside the activations that the graph keeps; nodes, statuses, and the nodes that took most of the time.
All in processor time (on one thread that is the clock's; on a busy machine it says more).
"""

from __future__ import annotations

import gc
import sys
import tracemalloc
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn
from torch.nn import functional

from explorer.check import Checker, Mode
from explorer.consistency import altered_values
from explorer.report import CheckSummary
from explorer.trace import trace
from hooks.nodes import Event, capture
from tests.benchmarks.watching import steps


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions with batch norm, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        sizes = [(inputs, width, 1, 1), (width, width, 3, stride), (width, 4 * width, 1, 1)]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, k, s, padding=k // 2, bias=False) for i, o, k, s in sizes
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(o) for _, o, _, _ in sizes)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != 4 * width:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, 4 * width, 1, stride, bias=False), nn.BatchNorm2d(4 * width)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, inputs, H, W) to (B, 4·width, H/stride, W/stride)."""
        y = x
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            y = norm(convolution(y))
            y = functional.relu(y) if number < 2 else y
        return functional.relu(y + self.shortcut(x))


def resnet() -> Tensor:
    """ResNet-50 on a batch of 4 images of 224 x 224."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    inputs = 64
    for width, count, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
        for number in range(count):
            layers.append(Bottleneck(inputs, width, stride if number == 0 else 1))
            inputs = 4 * width
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000))
    loss: Tensor = functional.cross_entropy(model(torch.randn(4, 3, 224, 224)), torch.arange(4))
    return loss


class Block(nn.Module):
    """A pre-norm transformer block: causal attention and an MLP of four times the width."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, T, width) to the same."""
        parts = self.mix(self.norms[0](x)).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return x + self.narrow(functional.gelu(self.wide(self.norms[1](x)), approximate="tanh"))


def gpt() -> Tensor:
    """GPT-2 small: 12 layers of width 768, a vocabulary of 50,257 with tied weights, 2 x 256 tokens."""
    width = 768
    words, places = nn.Embedding(50257, width), nn.Embedding(1024, width)
    blocks = nn.Sequential(*(Block(width, 12) for _ in range(12)), nn.LayerNorm(width))
    tokens = torch.randint(0, 50257, (2, 256))
    x = blocks(words(tokens) * 0.02 + places(torch.arange(256)) * 0.02)
    logits = functional.linear(x, words.weight * 0.02)
    return functional.cross_entropy(logits.flatten(0, 1), tokens.flatten())


def mlp() -> Tensor:
    """A perceptron with 2,728 parameters, small enough to be compared in full."""
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 20), nn.Tanh(), nn.Linear(20, 4))
    loss: Tensor = model(torch.randn(4, 20)).square().mean()
    return loss


def long_chain() -> Tensor:
    """10,000 operations in a row on three numbers: what a node costs by itself."""
    y = torch.ones(3, requires_grad=True)
    for _ in range(5000):
        y = (y * 1.0001).sin()
    return y.sum()


MODELS: dict[str, tuple[Callable[[], Tensor], Mode]] = {
    "resnet": (resnet, "sample"),
    "gpt": (gpt, "sample"),
    "mlp": (mlp, "full"),
    **{f"small {name.partition(',')[0]}": (forward, "sample") for name, forward in steps().items()},
    "chain": (long_chain, "sample"),
}

PAIRS = 5


@dataclass(frozen=True)
class Cost:
    """One checked backward: seconds in all and by node name, and what the check found."""

    seconds: float
    spent: dict[str, float]
    summary: CheckSummary


def plain(loss: Tensor) -> float:
    """Seconds of torch's own backward."""
    started = process_time()
    torch.autograd.backward(loss, retain_graph=True)
    return process_time() - started


def checked(loss: Tensor, mode: Mode) -> Cost:
    """A backward with the check, and what of it the check took."""
    found = trace([loss])
    checker = Checker(found, mode)
    spent: dict[str, float] = defaultdict(float)

    def observe(event: Event) -> None:
        before = process_time()
        checker.observe(event)
        spent[found.graph.nodes[event.index].name] += process_time() - before

    watching = capture(found.live, observe)
    with watching:
        torch.autograd.backward(loss, retain_graph=True)
    if watching.problem:
        raise RuntimeError(watching.problem)
    _, summary = checker.finish()
    return Cost(sum(spent.values()), spent, summary)


def memory(loss: Tensor, mode: Mode) -> tuple[int, int]:
    """Peak bytes that Python allocated for the check, and bytes of the activations that the graph keeps."""
    found = trace([loss])
    kept: dict[int | None, int] = {}
    for node in found.graph.nodes:
        for value in node.saved:
            if value.owner is None and value.leaf is None:
                kept[value.storage] = max(kept.get(value.storage, 0), value.bytes)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        checker = Checker(found, mode)
        with capture(found.live, checker.observe):
            torch.autograd.backward(loss, retain_graph=True)
        checker.finish()
        peak = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    return peak, sum(kept.values())


def measure(name: str) -> str:
    """One row of the table."""
    build, mode = MODELS[name]
    torch.manual_seed(0)
    loss = build()
    plain(loss)  # warm: allocations, and the engine's tables
    checked(loss, mode)
    pairs = [(plain(loss), checked(loss, mode)) for _ in range(PAIRS)]
    backward, check = (median(row) for row in zip(*((own, cost.seconds) for own, cost in pairs), strict=True))
    ratio = median(cost.seconds / own for own, cost in pairs)
    started = process_time()
    altered, _ = altered_values(trace([loss]), [loss])
    forward = process_time() - started
    peak, activations = memory(loss, mode)
    cost = pairs[-1][1]
    most = sorted(cost.spent.items(), key=lambda row: -row[1])[:3]
    costly = ", ".join(f"{node} {seconds * 1e3:.0f}" for node, seconds in most)
    summary = cost.summary
    return (
        f"{name:<18} backward {backward * 1e3:8.1f} ms, check {check * 1e3:8.1f} ms, ratio {ratio:6.2f}; "
        f"forward values {forward * 1e3:.0f} ms, {len(altered)} altered; "
        f"memory {peak / 2**20:.1f} MiB, {100 * peak / max(activations, 1):.2g} % of the activations; "
        f"{summary.checked} of {summary.nodes} nodes, {summary.elements} elements; {summary.statuses}; "
        f"ms: {costly}"
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    for chosen in sys.argv[1:] or MODELS:
        print(measure(chosen), flush=True)
