"""What each path brings to a tensor: vector-Jacobian products along its edges, one after the other.

A node's backward is linear in what arrives, so a gradient is the sum, over all paths, of what each brings.
One sweep from the roots carries, for every place, the whole gradient and the largest parts that came along
single paths; each live node is run by itself with nothing but such a part. Where there are more parts than
can be carried the largest are, and the rest is known from the whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from explorer.graph import Graph
from explorer.report import Share, Shares
from explorer.routes import Search

__all__ = ["shares"]

ELEMENTS = 20_000_000
"""So many numbers are carried for one place, shared by its parts."""

LEAST = 4
"""So many parts are carried for one place, however large they are."""

State = tuple[int, int]


@dataclass(slots=True)
class _Part:
    """What came along one path so far."""

    edges: tuple[int, ...]
    gradient: torch.Tensor
    norm: float


class _UnknownError(Exception):
    """Why a node cannot be run by itself."""


def shares(
    graph: Graph,
    live: Sequence[Any],
    seeds: Mapping[State, torch.Tensor | None],
    target: int,
    limit: int = 10,
) -> Shares:
    """What the paths from the roots bring to node `target`, the largest of at most `limit` first.

    Args:
        graph: the graph the paths are in.
        live: the live node of each of its nodes; their saved values must not be freed.
        seeds: what backward begins with, by root; None stands for a 1.
        limit: how many parts are carried at each place, and told.

    Returns:
        The shares; `problem` says which node could not be run by itself, where there is one: a Python
        Function (its backward is the program's own code), checkpointed or compiled ones, freed values.
    """
    try:
        with torch.no_grad():
            return _Sweep(graph, live, seeds, target, limit).run()
    except _UnknownError as problem:
        return Shares(target, problem=str(problem))


class _Sweep:
    """The parts and the whole at every place that was reached and not yet left."""

    def __init__(
        self,
        graph: Graph,
        live: Sequence[Any],
        seeds: Mapping[State, torch.Tensor | None],
        target: int,
        limit: int,
    ) -> None:
        self.graph, self.live, self.target, self.limit = graph, live, target, limit
        self.search = Search(graph, target)
        self.parts: dict[State, list[_Part]] = {}
        self.whole: dict[State, torch.Tensor] = {}
        self.complete = True
        for root, seed in seeds.items():
            if root[0] in self.search.reaches:
                begin = self.one(root) if seed is None else seed.detach()
                self.add(root, [_Part((), begin, _norm(begin))], begin)

    def one(self, root: State) -> torch.Tensor:
        """The 1 that backward fills in for a scalar root."""
        shape, options = self.described(*root)
        return torch.ones(shape, **options)

    def run(self) -> Shares:
        """Node by node, in the order of the gradient."""
        for node in self.search.order:
            if node != self.target:
                self.leave(node)
        slots = [state for state in self.whole if state[0] == self.target]
        found = [
            Share(part.edges, part.norm, _along(part.gradient, self.whole[state]))
            for state in slots
            for part in self.parts[state]
        ]
        total = sum(_norm(self.whole[state]) ** 2 for state in slots) ** 0.5
        # with several slots a share counts against the gradient of all of them
        if len(slots) > 1 and total:
            sizes = {
                part.edges: _norm(self.whole[s]) ** 2 / total**2 for s in slots for part in self.parts[s]
            }
            found = [Share(one.edges, one.norm, one.share * sizes[one.edges]) for one in found]
        listed = tuple(sorted(found, key=lambda one: -one.norm)[: self.limit])
        return Shares(self.target, listed, total, self.complete and len(listed) == len(found))

    def leave(self, node: int) -> None:
        """Send on everything that stands at `node`, and forget it there."""
        slots = [slot for slot in self.search.slots[node] if (node, slot) in self.whole]
        if not slots:
            return
        everything = self.sent(node, {slot: self.whole.pop((node, slot)) for slot in slots})
        split = [
            (part, self.sent(node, {slot: part.gradient}))
            for slot in slots
            for part in self.parts.pop((node, slot))
        ]
        for index in self.search.onward(node):
            edge = self.graph.edges[index]
            state, place = (edge.target, edge.target_slot), edge.source_slot
            total = everything[place]
            if total is None:
                continue
            arriving = []
            for part, sent in split:
                gradient = self.fitted(sent[place], state)
                if gradient is not None:
                    arriving.append(_Part((*part.edges, index), gradient, _norm(gradient)))
            fitted = self.fitted(total, state)
            if fitted is not None:
                self.add(state, arriving, fitted)

    def add(self, state: State, parts: list[_Part], whole: torch.Tensor) -> None:
        """Take in what came along one edge; beyond what can be carried the largest parts stay."""
        self.whole[state] = self.whole[state] + whole if state in self.whole else whole
        held = self.parts.setdefault(state, [])
        held += parts
        room = max(LEAST, min(self.limit, ELEMENTS // max(whole.numel(), 1)))
        if len(held) > room:
            self.complete = False
            held.sort(key=lambda part: -part.norm)
            del held[room:]

    def sent(self, node: int, arriving: Mapping[int, torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
        """What `node` makes of what arrives at its slots, one gradient per place in next_functions."""
        described = self.graph.nodes[node]
        if described.kind != "op":
            raise _UnknownError(f"{described.name} is not run by itself")
        problem = next((item.problem for item in described.saved if item.problem), "")
        if problem:
            raise _UnknownError(f"{described.name} is not run by itself: {problem}")
        slots = max(len(described.outputs), *(slot + 1 for slot in arriving))
        try:
            found = self.live[node](*(arriving.get(slot) for slot in range(slots)))
        except Exception as error:
            said = str(error).partition("\n")[0]
            raise _UnknownError(f"{described.name} cannot be run by itself: {said}") from error
        return found if isinstance(found, tuple) else (found,)

    def fitted(self, gradient: torch.Tensor | None, state: State) -> torch.Tensor | None:
        """`gradient` as the engine passes it on: summed over broadcast axes, real for a real tensor."""
        if gradient is None or gradient.layout is not torch.strided:
            return gradient
        shape, options = self.described(*state)
        if tuple(gradient.shape) != shape:
            gradient = gradient.sum_to_size(shape)
        if gradient.is_complex() and not options["dtype"].is_complex:
            gradient = gradient.real
        return gradient.to(options["dtype"])

    def described(self, node: int, slot: int) -> tuple[tuple[int, ...], dict[str, Any]]:
        """Shape, dtype and device of one forward output, from its live node."""
        live = self.live[node]
        if self.graph.nodes[node].kind == "leaf":
            leaf = live.variable
            return tuple(leaf.shape), {"dtype": leaf.dtype, "device": leaf.device}
        described = live._input_metadata[slot]
        return tuple(described.shape), {"dtype": described.dtype, "device": described.device}


def _norm(gradient: torch.Tensor) -> float:
    """The 2-norm of all elements."""
    return float(torch.linalg.vector_norm(gradient))


def _along(part: torch.Tensor, whole: torch.Tensor) -> float:
    """Which share of the length of `whole` the `part` makes up, in the direction of `whole`.

    The shares of parts that add up to the whole add up to 1.
    """
    square = float((whole * whole.conj()).real.sum(dtype=torch.float64))
    return float((part * whole.conj()).real.sum(dtype=torch.float64)) / square if square else 0.0
