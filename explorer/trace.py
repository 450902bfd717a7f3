"""Follows ``grad_fn`` and ``next_functions`` from one or more roots.

Three steps: `_traverse` collects live nodes breadth first, each numbered when first seen (the root is 0,
then its neighbours in slot order); `glimpse.look` reads from each what only the live node tells; `describe`
makes plain nodes and edges of that, when somebody asks for them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from explorer.describe import Describer, Link
from explorer.errors import NothingDifferentiableError
from explorer.glimpse import Notes, Sight, look
from explorer.graph import Graph
from explorer.known import LIMIT
from explorer.names import Names
from hooks.collection import no_collection
from hooks.nodes import AutogradNode
from hooks.release import keep
from hooks.unseen import unseen

if TYPE_CHECKING:
    from hooks.forward import NodeContext

Context: TypeAlias = "Callable[[AutogradNode], NodeContext | None]"


@dataclass(slots=True)
class Found:
    """Where nodes lead, flat: `arity` places a node, each with a target (-1: none) and a slot of that."""

    arity: list[int] = field(default_factory=list)
    targets: list[int] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)

    def links(self) -> list[Link]:
        """All edges, by their source and its slots."""
        places = ((source, slot) for source, count in enumerate(self.arity) for slot in range(count))
        return [
            (source, slot, target, target_slot)
            for (source, slot), target, target_slot in zip(places, self.targets, self.slots, strict=True)
            if target >= 0
        ]


@dataclass(frozen=True, slots=True)
class Trace:
    """A graph and the live nodes it was read from: ``live[i]`` is ``graph.nodes[i]``.

    Short-lived: it keeps the autograd graph alive, and with it saved tensors not yet freed. `links` are the
    edges as plain tuples, `sight` is what the nodes were seen as: both are there before the graph is made.
    """

    graph: Graph
    live: tuple[AutogradNode, ...]
    links: Sequence[Link] = ()
    sight: Sight = field(default_factory=Sight)


def walk(*tensors: Any) -> Graph:
    """The autograd graph behind `tensors` as plain data.

    Args:
        tensors: one or more results of differentiable operations, leaves that require a gradient, or
            ``torch.autograd.graph.GradientEdge``s. Their order is that of the graph's roots.

    Returns:
        The graph; node 0 is the first root.

    Raises:
        NothingDifferentiableError: one of `tensors` has no ``grad_fn`` and requires no gradient.
    """
    with unseen():
        return trace(tensors).graph


def trace(
    roots: Sequence[Any],
    *,
    context: Context | Notes | None = None,
    names: Names | None = None,
    saved: bool = True,
    values: bool = False,
) -> Trace:
    """Walk from `roots` and keep the live nodes for the stages after this one.

    Args:
        roots: as for `walk`.
        context: gives module, source line and operation of a live node, where known.
        names: the names of leaves and intermediates, as `explorer.names.collect` finds them.
        saved: list what each node saved; False leaves ``Node.saved`` empty.
        values: copy the elements of small saved tensors, in a graph of at most `LIMIT` nodes.

    Raises:
        NothingDifferentiableError: a root has no ``grad_fn`` and requires no gradient, or none is given.
    """
    starts = [_start(root, place) for place, root in enumerate(roots)]
    if not starts:
        raise NothingDifferentiableError("no tensor to explore was given")
    live: list[AutogradNode] = []
    found = Found()
    notes = Notes.at_once(context) if context is not None and not isinstance(context, Notes) else context
    with no_collection():
        try:
            ids = _traverse(starts, live, found)
        finally:
            # Whatever was touched has to be released with care, even if the walk was interrupted.
            keep(live, [root for root in roots if isinstance(root, torch.Tensor)])
        sight = look(live, ids, names or Names(), notes, saved, values and len(live) <= LIMIT)
        links = found.links()
        places = tuple((ids[node], slot) for node, slot in starts)
        describe = Describer(sight, links, places, notes.told if notes is not None else None)
        graph = Graph.later(describe, places, tuple(found.arity), describe.problems)
        return Trace(graph, tuple(live), links, sight)


def _start(root: Any, place: int) -> tuple[AutogradNode, int]:
    """(live node, output slot) of one root."""
    if not isinstance(root, torch.Tensor):
        return root.node, root.output_nr
    if root.grad_fn is None and not root.requires_grad:
        raise NothingDifferentiableError(
            f"tensor {place} (shape {tuple(root.shape)}) has no grad_fn and requires no gradient: "
            "compute it from a tensor with requires_grad=True, outside torch.no_grad()"
        )
    edge = torch.autograd.graph.get_gradient_edge(root)
    return edge.node, edge.output_nr


def _traverse(
    starts: Sequence[tuple[AutogradNode, int]], live: list[AutogradNode], found: Found
) -> dict[AutogradNode, int]:
    """Fill `live` breadth first, and `found` with where each one leads; return the id of every node."""
    ids: dict[AutogradNode, int] = {}
    for node, _ in starts:
        if node not in ids:
            ids[node] = len(live)
            live.append(node)
    number, count = ids.setdefault, len(live)
    add, arity, target, slot = live.append, found.arity.append, found.targets.append, found.slots.append
    for node in live:  # grows while it is read
        following = node.next_functions
        arity(len(following))
        for below, below_slot in following:
            if below is None:
                target(-1)
            else:
                place = number(below, count)
                if place == count:
                    add(below)
                    count += 1
                target(place)
            slot(below_slot)
    return ids
