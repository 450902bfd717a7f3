"""Small models of every kind that people train, each a training step written by hand.

``MODELS[name]()`` builds a model, seeded, and runs everything that a step of its training runs: forward,
backward (several, where the recipe has several) and what lies between. Nothing is returned: whoever watches
sees the backward calls. The operations are those of the real model; only the sizes are small.
"""

from __future__ import annotations

from tests.zoo import agents, generative, language, recurrent, structured, vision
from tests.zoo.registry import MODELS

FAMILIES = (agents, generative, language, recurrent, structured, vision)
"""The modules that hold models."""

__all__ = ["FAMILIES", "MODELS"]
