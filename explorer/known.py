"""The small forward values of a live graph: recorded, held by a leaf, or saved by a node."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import torch

from explorer.copies import Copies, Numbers
from explorer.elements import Flat
from explorer.graph import Graph
from explorer.report import SMALL, Number
from explorer.values import fill
from hooks.memory import has_memory, runs_python
from hooks.nodes import is_leaf

LIMIT = 600
"""Graphs of more nodes than this show no forward values: nobody reads that many wires."""

ValueOf = Callable[[Any, int], "tuple[Number, ...] | None"]
Row = tuple["Flat | None", ...]


class Filled(Mapping[int, Row]):
    """`Report.forward` of a graph, worked out from what is known of it when somebody first asks."""

    def __init__(self, graph: Graph, recorded: Mapping[int, Row]) -> None:
        self._graph = graph
        self._recorded = recorded
        self._values: dict[int, Row] | None = None

    def _all(self) -> dict[int, Row]:
        if self._values is None:
            self._values = fill(self._graph, self._recorded).values
            self._recorded = {}
        return self._values

    def __getitem__(self, node: int) -> Row:
        return self._all()[node]

    def __iter__(self) -> Iterator[int]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    def __repr__(self) -> str:
        return repr(self._all())


def with_values(
    graph: Graph, live: Sequence[Any], outputs: Sequence[int], value_of: ValueOf | None = None
) -> Mapping[int, Row]:
    """All forward values of a small graph that can be known; none for one of more than `LIMIT` nodes.

    Args:
        graph: what the walk found, with the values its nodes saved.
        live: its live nodes, before an optimizer changes the leaves.
        outputs: how many forward outputs each of them has.
        value_of: flat values recorded while the script ran, by (live node, output slot).
    """
    if len(live) > LIMIT:
        return {}
    recorded: dict[int, Row] = {}
    copies = Copies()
    with torch.no_grad():
        for index, node in enumerate(live):
            if is_leaf(node):
                variable = node.variable
                recorded[index] = (small(variable),)
                if not variable.is_cpu:
                    small_there(variable, copies, partial(_note, recorded, index))
            elif value_of is not None:
                recorded[index] = tuple(value_of(node, slot) for slot in range(outputs[index]))
        copies.fetch()
    return Filled(graph, recorded)


def _note(recorded: dict[int, Row], index: int, numbers: Numbers) -> None:
    recorded[index] = (tuple(numbers),)


def small(value: torch.Tensor) -> Flat | None:
    """The elements of a small real or complex CPU tensor, row-major; None for anything else."""
    if not value.is_cpu or not _is_small(value):
        return None
    try:
        return tuple(_plain(value).flatten().tolist())
    except RuntimeError:  # nothing to read behind it: batched by vmap, a zero tensor
        return None


def small_there(value: torch.Tensor, copies: Copies, receive: Callable[[Numbers], object]) -> None:
    """Let `receive` have the elements of a small tensor of a device, when `copies` are fetched."""
    if _is_small(value):
        try:
            copies.add(_plain(value), receive)
        except RuntimeError:  # as in `small`
            return


def _is_small(value: torch.Tensor) -> bool:
    if value.layout is not torch.strided or value.is_nested:
        return False
    if value.numel() > SMALL or value.is_meta or runs_python(value):
        return False
    return has_memory(value)  # a parameter that FSDP has resharded has none


def _plain(value: torch.Tensor) -> torch.Tensor:
    return value.detach().resolve_conj().resolve_neg()
