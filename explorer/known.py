"""Reads the small forward values of a live graph: recorded, held by a leaf, or saved by a node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from explorer.graph import Graph
from explorer.report import SMALL, Number
from explorer.values import Flat, Forward, fill
from hooks.saved import read

LIMIT = 600
"""Graphs of more nodes than this show no forward values: nobody reads that many wires."""

ValueOf = Callable[[Any, int], "tuple[Number, ...] | None"]


def forward_values(graph: Graph, live: tuple[Any, ...], value_of: ValueOf | None = None) -> Forward | None:
    """All forward values of a small graph that can be known, None for a large graph.

    Args:
        graph: what the walk found.
        live: its live nodes, before their backward frees what they saved.
        value_of: flat values recorded while the script ran, by (live node, output slot).
    """
    if len(graph.nodes) > LIMIT:
        return None
    recorded: dict[int, tuple[Flat | None, ...]] = {}
    saved: dict[tuple[int, str], Flat] = {}
    with torch.no_grad():
        for node, owner in zip(graph.nodes, live, strict=True):
            if node.kind == "leaf":
                recorded[node.id] = (_flat(owner.variable),)
                continue
            if value_of is not None:
                recorded[node.id] = tuple(value_of(owner, slot) for slot in range(len(node.outputs)))
            if any(_small(value.spec) for value in node.saved):
                for name, value in read(owner).items():
                    numbers = _flat(value.value)
                    if numbers is not None:
                        saved[node.id, name] = numbers
    return fill(graph, recorded, saved)


def _small(spec: Any) -> bool:
    return spec is not None and spec.numel <= SMALL


def _flat(value: Any) -> Flat | None:
    """The elements of a small real or complex tensor, row-major; None for anything else."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_nested:
        return None
    if value.device.type == "meta" or value.numel() > SMALL:
        return None
    return tuple(value.detach().resolve_conj().resolve_neg().flatten().tolist())
