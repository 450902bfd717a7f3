"""What one path alone brings to a tensor: the vector-Jacobian products along its edges, one after the other.

A node's backward is linear in what arrives, so a gradient is the sum, over all paths, of what each brings.
To see one path's share, each live node on it is run with nothing but what came along that path.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from explorer.chains import Path
from explorer.graph import Graph

__all__ = ["along"]


def along(graph: Graph, live: Sequence[Any], roots: Sequence[torch.Tensor]) -> Callable[[Path], float | None]:
    """A function that gives the 2-norm of what a path brings to its end.

    Args:
        graph: the graph the paths are in.
        live: the live node of each of its nodes; their saved values must not be freed.
        roots: the tensors backward begins at, each with ones, in the order of ``graph.roots``.

    Returns:
        path -> norm; 0 where nothing comes along it, None where a node on it cannot be run by itself
        (Python's custom Functions, nodes with freed values).
    """
    begin = {root: torch.ones_like(tensor) for root, tensor in zip(graph.roots, roots, strict=True)}

    def norm(path: Path) -> float | None:
        found = _sent(graph, live, path, begin)
        return None if found is None else float(torch.linalg.vector_norm(found))

    return norm


def _sent(
    graph: Graph, live: Sequence[Any], path: Path, begin: dict[tuple[int, int], torch.Tensor]
) -> torch.Tensor | None:
    """The gradient that comes along `path`, None where it cannot be told."""
    slot = next(slot for node, slot in graph.roots if node == path.nodes[0])
    gradient = begin[path.nodes[0], slot]
    for index in path.edges:
        edge = graph.edges[index]
        arriving: list[torch.Tensor | None] = [None] * max(len(graph.nodes[edge.source].outputs), slot + 1)
        arriving[slot] = gradient
        try:
            with torch.no_grad():
                sent = live[edge.source](*arriving)
        except Exception:  # noqa: BLE001 - whatever the node says, its share is then not known
            return None
        sent = sent if isinstance(sent, tuple) else (sent,)
        if sent[edge.source_slot] is None:
            return torch.zeros(())
        gradient, slot = sent[edge.source_slot], edge.target_slot
    return gradient
