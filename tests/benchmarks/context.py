"""What observe_forward costs a plain forward + backward.

    python -m tests.benchmarks.context [rounds]

Each round times, side by side and in turn, a plain step, a step with observing already open, and a
step that opens and closes it; printed are the medians of the ratios to the plain step of the same round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import torch
from torch import Tensor, nn

from hooks.forward import observe_forward


class Block(nn.Module):
    """A pre-norm transformer block whose attention is written out."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        parts = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = parts.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


def own_transformer() -> tuple[nn.Module, Tensor]:
    """Six blocks of width 256, 8 x 64 tokens."""
    return nn.Sequential(*(Block(256, 4) for _ in range(6)), nn.Linear(256, 10)), torch.randn(8, 64, 256)


def torch_transformer() -> tuple[nn.Module, Tensor]:
    """torch's own encoder: six layers of width 256, 8 x 64 tokens."""
    layer = nn.TransformerEncoderLayer(256, 4, 512, batch_first=True)
    return nn.TransformerEncoder(layer, 6, enable_nested_tensor=False), torch.randn(8, 64, 256)


def small_net() -> tuple[nn.Module, Tensor]:
    """The worst case: a net so small that torch's own overhead is all there is."""
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(4, 4)


def step(model: nn.Module, x: Tensor) -> None:
    """One forward and backward."""
    model.zero_grad()
    model(x).square().mean().backward()


def seconds(run: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = perf_counter()
    run()
    return perf_counter() - start


def measure(model: nn.Module, x: Tensor, rounds: int, repeat: int = 1) -> tuple[float, float, float]:
    """Median seconds of a plain step, and the median ratios of the observed and the opening step."""
    plain: list[float] = []
    open_ratio: list[float] = []
    fresh_ratio: list[float] = []

    def many() -> None:
        for _ in range(repeat):
            step(model, x)

    def fresh() -> None:
        for _ in range(repeat):
            with observe_forward():
                step(model, x)

    for warm in range(3):
        (fresh if warm else many)()
    for _ in range(rounds):
        before = seconds(many)
        with observe_forward():
            step(model, x)
            inside = seconds(many)
        opening = seconds(fresh)
        base = (before + seconds(many)) / 2
        plain.append(base / repeat)
        open_ratio.append(inside / base)
        fresh_ratio.append(opening / base)
    return median(plain), median(open_ratio), median(fresh_ratio)


def main() -> None:
    """Print one line per model."""
    torch.manual_seed(0)
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    for build, repeat in ((own_transformer, 1), (torch_transformer, 1), (small_net, 50)):
        time, inside, opening = measure(*build(), rounds, repeat)
        print(f"{build.__name__:18} {time * 1e3:7.2f} ms  open x{inside:.3f}  opened per step x{opening:.3f}")


if __name__ == "__main__":
    main()
