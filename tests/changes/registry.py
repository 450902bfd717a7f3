"""The tables of scripts that change values behind autograd's back, and the small parts they share."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

Script = Callable[[], None]

HEALTHY: dict[str, Script] = {}
"""Scripts that get the gradients they mean."""

DAMAGED: dict[str, tuple[Script, str]] = {}
"""Scripts whose gradients silently become those of changed values, and the line to blame ("": unknowable)."""


def healthy(script: Script) -> Script:
    """Enter a script into its table, under its own name."""
    HEALTHY[script.__name__] = script
    return script


def damaged(by: str) -> Callable[[Script], Script]:
    """Enter a script into its table; `by` is the text of the line to blame."""

    def register(script: Script) -> Script:
        DAMAGED[script.__name__] = (script, by)
        return script

    return register


def mlp(*sizes: int, act: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """Linear layers of these sizes with activations between them."""
    layers = [layer for sizes_ in pairwise(sizes) for layer in (nn.Linear(*sizes_), act())]
    return nn.Sequential(*layers[:-1])


def labels(rows: int, classes: int) -> Tensor:
    """0, 1, … over and over."""
    return torch.arange(rows) % classes
