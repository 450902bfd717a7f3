"""Reads the small forward values of a live graph: recorded, held by a leaf, or saved by a node."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch

from explorer.graph import Graph, Node
from explorer.report import SMALL, Number
from explorer.values import Flat, fill
from hooks.saved import read

LIMIT = 600
"""Graphs of more nodes than this show no forward values: nobody reads that many wires."""

ValueOf = Callable[[Any, int], "tuple[Number, ...] | None"]


def with_values(
    graph: Graph, live: tuple[Any, ...], value_of: ValueOf | None = None
) -> tuple[Graph, dict[int, tuple[Flat | None, ...]]]:
    """A small graph with the values its nodes saved, and all forward values that can be known.

    A graph of more than `LIMIT` nodes is returned as it is, with no forward values.

    Args:
        graph: what the walk found.
        live: its live nodes, before their backward frees what they saved.
        value_of: flat values recorded while the script ran, by (live node, output slot).
    """
    if len(graph.nodes) > LIMIT:
        return graph, {}
    recorded: dict[int, tuple[Flat | None, ...]] = {}
    nodes: list[Node] = []
    with torch.no_grad():
        for node, owner in zip(graph.nodes, live, strict=True):
            nodes.append(_saved(node, owner))
            if node.kind == "leaf":
                recorded[node.id] = (_flat(owner.variable),)
            elif value_of is not None:
                recorded[node.id] = tuple(value_of(owner, slot) for slot in range(len(node.outputs)))
    graph = replace(graph, nodes=tuple(nodes))
    return graph, fill(graph, recorded).values


def _saved(node: Node, owner: Any) -> Node:
    """`node` with the elements of its small saved tensors."""
    small = [value for value in node.saved if value.spec is not None and value.spec.numel <= SMALL]
    if not small:
        return node
    values = read(owner)
    return replace(
        node,
        saved=tuple(
            replace(one, values=_flat(values[one.name].value)) if one in small and one.name in values else one
            for one in node.saved
        ),
    )


def _flat(value: Any) -> Flat | None:
    """The elements of a small real or complex tensor, row-major; None for anything else."""
    if not isinstance(value, torch.Tensor) or value.layout is not torch.strided or value.is_nested:
        return None
    if value.device.type == "meta" or value.numel() > SMALL:
        return None
    try:
        return tuple(value.detach().resolve_conj().resolve_neg().flatten().tolist())
    except RuntimeError:  # no memory behind it: a parameter that FSDP has resharded
        return None
