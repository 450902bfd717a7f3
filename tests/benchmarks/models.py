"""Models of the sizes people use, written here so that nothing has to be downloaded."""

from __future__ import annotations

from collections.abc import Callable
from time import perf_counter

import torch
from torch import Tensor, nn

from tests.benchmarks.context import Block

LEAST = 0.06
"""Seconds of a plain step: the marks are named for steps of 30 to 160 ms; 60 to 120 are their middle."""
DOUBLINGS = 6
"""A batch is doubled at most so often."""


def perceptron() -> tuple[nn.Module, Tensor]:
    """Six layers of width 1,024, 128 rows."""
    layers = (layer for _ in range(6) for layer in (nn.Linear(1024, 1024), nn.ReLU()))
    return nn.Sequential(*layers), torch.randn(128, 1024)


def convolutions() -> tuple[nn.Module, Tensor]:
    """Four convolutions of 32 channels with BatchNorm, 24 small images."""
    blocks = (
        nn.Sequential(nn.Conv2d(given, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        for given in (3, 32, 32, 32)
    )
    return nn.Sequential(*blocks), torch.randn(24, 3, 32, 32)


def encoder() -> tuple[nn.Module, Tensor]:
    """torch's own transformer encoder: four layers of width 256, 8 x 64 tokens."""
    layer = nn.TransformerEncoderLayer(256, 4, 1024, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 4, enable_nested_tensor=False), torch.randn(8, 64, 256)


def grown(step: Callable[[Tensor], object], inputs: Tensor, least: float = LEAST) -> Tensor:
    """`inputs`, their batch doubled until the quickest of seven steps takes `least` seconds."""
    for _ in range(DOUBLINGS):
        step(inputs)
        times = []
        for _ in range(7):
            began = perf_counter()
            step(inputs)
            times.append(perf_counter() - began)
        if min(times) >= least:
            break
        inputs = torch.cat([inputs, torch.randn_like(inputs)])
    return inputs


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 convolutions, each with BatchNorm, around a skip (He et al. 2015)."""

    def __init__(self, given: int, width: int, stride: int) -> None:
        super().__init__()
        out = 4 * width
        self.body = nn.Sequential(
            nn.Conv2d(given, width, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True),
            nn.Conv2d(width, out, 1, bias=False), nn.BatchNorm2d(out),
        )  # fmt: skip
        self.skip = (
            nn.Identity()
            if given == out and stride == 1
            else nn.Sequential(nn.Conv2d(given, out, 1, stride, bias=False), nn.BatchNorm2d(out))
        )

    def forward(self, x: Tensor) -> Tensor:
        return (self.body(x) + self.skip(x)).relu()


def resnet(counts: tuple[int, ...] = (3, 4, 6, 3), width: int = 64, classes: int = 1000) -> nn.Module:
    """ResNet-50 by default."""
    layers: list[nn.Module] = [
        nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width), nn.ReLU(), nn.MaxPool2d(3, 2, 1)
    ]  # fmt: skip
    given = width
    for stage, count in enumerate(counts):
        for place in range(count):
            layers.append(Bottleneck(given, width << stage, 2 if stage and not place else 1))
            given = 4 * (width << stage)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(given, classes))


class Gpt(nn.Module):
    """GPT-2 with tied embedding; `small` is 12 blocks of width 768 over 50,257 tokens."""

    def __init__(self, blocks: int, width: int, tokens: int, length: int) -> None:
        super().__init__()
        self.embed, self.place = nn.Embedding(tokens, width), nn.Embedding(length, width)
        self.blocks = nn.ModuleList(Block(width, max(1, width // 64)) for _ in range(blocks))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.norm(x) @ self.embed.weight.t()


def large(short: bool) -> dict[str, Callable[[], Tensor]]:
    """Forward passes by name: the real sizes, or small ones of the same build."""
    if short:
        images = torch.randn(2, 3, 32, 32)
        net, gpt = resnet((1, 1), 8, 10), Gpt(1, 64, 100, 16)
        tokens = torch.randint(100, (2, 16))
    else:
        images = torch.randn(4, 3, 224, 224)
        net, gpt = resnet(), Gpt(12, 768, 50257, 64)
        tokens = torch.randint(50257, (2, 64))
    names = ("tiny ResNet", "tiny GPT") if short else ("ResNet-50 b4@224", "GPT-2 small 2x64")
    runs = (lambda: net(images).pow(2).mean(), lambda: gpt(tokens).logsumexp(-1).mean())
    return dict(zip(names, runs, strict=True))


def on_device(short: bool) -> dict[str, Callable[[], Callable[[], Tensor]]]:
    """The same models, each made on the CUDA device when it is called for; batches that keep it busy."""

    def images() -> Callable[[], Tensor]:
        net = (resnet((1, 1), 8, 10) if short else resnet()).cuda()
        batch = (
            torch.randn(2, 3, 32, 32, device="cuda") if short else torch.randn(64, 3, 224, 224, device="cuda")
        )
        return lambda: net(batch).pow(2).mean()

    def words() -> Callable[[], Tensor]:
        gpt = (Gpt(1, 64, 100, 16) if short else Gpt(12, 768, 50257, 512)).cuda()
        tokens = torch.randint(100, (2, 16) if short else (8, 512), device="cuda")
        return lambda: gpt(tokens).logsumexp(-1).mean()

    names = ("tiny ResNet", "tiny GPT") if short else ("ResNet-50", "GPT-2 small")
    return dict(zip(names, (images, words), strict=True))
