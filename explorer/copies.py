"""Small tensors of a device, brought over together: asking for each one by itself would wait as often."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch

from explorer.report import Number

Numbers: TypeAlias = "list[Number]"
Receive: TypeAlias = "Callable[[Numbers], object]"


@dataclass(slots=True)
class Copies:
    """Copies that are still on their devices; `fetch` hands their elements out."""

    waiting: list[tuple[torch.Tensor, Receive]] = field(default_factory=list)

    def add(self, tensor: torch.Tensor, receive: Receive) -> None:
        """Copy `tensor` where it is, as it is now; `receive` will get its elements, row-major."""
        self.waiting.append((tensor.reshape(-1).clone(), receive))

    def fetch(self) -> None:
        """Bring all elements over, one transfer per device and dtype; what cannot be read is left out."""
        groups: dict[tuple[torch.device, torch.dtype], list[tuple[torch.Tensor, Receive]]] = {}
        for one in self.waiting:
            groups.setdefault((one[0].device, one[0].dtype), []).append(one)
        self.waiting.clear()
        for group in groups.values():
            try:
                numbers = torch.cat([flat for flat, _ in group]).tolist()
            except RuntimeError:
                _one_by_one(group)
                continue
            start = 0
            for flat, receive in group:
                receive(numbers[start : start + flat.numel()])
                start += flat.numel()


def _one_by_one(group: Sequence[tuple[torch.Tensor, Receive]]) -> None:
    """Without those that have no memory to read: fake, or batched by vmap."""
    for flat, receive in group:
        try:
            numbers = flat.tolist()
        except RuntimeError:
            continue
        receive(numbers)
