"""The table of the zoo, and how a model enters it."""

from __future__ import annotations

from collections.abc import Callable

import torch

Step = Callable[[], None]

MODELS: dict[str, Step] = {}


def model(name: str) -> Callable[[Step], Step]:
    """Register a training step under `name`; it runs with the random generator seeded."""

    def register(step: Step) -> Step:
        def seeded() -> None:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                step()

        if name in MODELS:
            raise ValueError(f"{name} is in the zoo already")
        MODELS[name] = seeded
        return step

    return register
