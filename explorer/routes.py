"""Sweeps over the part of a graph between its roots and one node: which nodes lie on the way, how many ways.

Ways are counted exactly without listing them, in integers of any size, and the best are found without
looking at the others, so that a graph with millions of paths costs no more than its edges.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, isnan, log

from explorer.graph import Graph

__all__ = ["Search", "State", "logarithm"]

State = tuple[int, int]
"""(node, output slot): where a gradient stands."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the best ways on from a state: the logarithm of its |product|, its first edge, the state that
    edge leads to, and which of that state's best ways it goes on with."""

    size: float
    edge: int
    node: int
    slot: int
    rank: int

    def order(self) -> float:
        """Smaller is better."""
        return -self.size


class Search:
    """The part of `graph` between its roots and `target`.

    `reaches` holds the nodes from which the target can be reached, itself included; `order` those among
    them so that each comes before those it sends to; `slots` the output slots of each at which a path
    arrives, ascending.
    """

    def __init__(self, graph: Graph, target: int) -> None:
        self.graph, self.target = graph, target
        self.reaches = self._reaching()
        self.order = [node for node in graph.order if node in self.reaches]
        self.slots = self._slots()

    def _reaching(self) -> frozenset[int]:
        found, waiting = {self.target}, [self.target]
        while waiting:
            for index in self.graph.incoming[waiting.pop()]:
                source = self.graph.edges[index].source
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return frozenset(found)

    def _slots(self) -> dict[int, list[int]]:
        found: dict[int, set[int]] = {node: set() for node in self.reaches}
        for node, slot in self.graph.roots:
            if node in found:
                found[node].add(slot)
        for node in self.order:
            if found[node]:
                for index in self.onward(node):
                    edge = self.graph.edges[index]
                    found[edge.target].add(edge.target_slot)
        return {node: sorted(slots) for node, slots in found.items()}

    def onward(self, node: int) -> list[int]:
        """The edges of `node` that lead towards the target; none from the target itself."""
        if node == self.target:
            return []
        return [
            index for index in self.graph.outgoing[node] if self.graph.edges[index].target in self.reaches
        ]

    def ways(self) -> dict[int, int]:
        """How many paths from the roots arrive at each node on the way."""
        ways = dict.fromkeys(self.reaches, 0)
        for node, _ in self.graph.roots:
            if node in ways:
                ways[node] += 1
        for node in self.order:
            for index in self.onward(node):
                ways[self.graph.edges[index].target] += ways[node]
        return ways

    def largest(
        self, limit: int, size: Callable[[int, int], float], begins: Mapping[State, float]
    ) -> list[tuple[State, tuple[int, ...]]]:
        """The `limit` paths of largest size, each as its root and its edges; ties in the order of discovery.

        From the target upwards, each state keeps its `limit` best ways on: a best way begins with an edge
        and goes on along one of the best ways of where it leads. So the work is edges × limit.

        Args:
            size: (edge, output slot) -> logarithm of the factor there; the size of a path is their sum.
            begins: root -> what is added for beginning there.
        """
        ways: dict[State, list[_Way]] = {}
        for node in reversed(self.order):
            for slot in self.slots[node]:
                ways[node, slot] = [_Way(0.0, -1, node, slot, 0)] if node == self.target else []
                for index in self.onward(node):
                    edge = self.graph.edges[index]
                    factor = size(index, slot)
                    state = (edge.target, edge.target_slot)
                    ways[node, slot] += [
                        _Way(factor + way.size, index, *state, rank) for rank, way in enumerate(ways[state])
                    ]
                ways[node, slot] = sorted(ways[node, slot], key=_Way.order)[:limit]
        starts = [
            _Way(way.size + begin, -1, *root, rank)
            for root, begin in begins.items()
            for rank, way in enumerate(ways.get(root, ()))
        ]
        return [self._followed(start, ways) for start in sorted(starts, key=_Way.order)[:limit]]

    def _followed(self, start: _Way, ways: Mapping[State, list[_Way]]) -> tuple[State, tuple[int, ...]]:
        """The path that begins as `start` says, followed to the target."""
        begin = state = (start.node, start.slot)
        rank, edges = start.rank, []
        while state[0] != self.target:
            way = ways[state][rank]
            edges.append(way.edge)
            state, rank = (way.node, way.slot), way.rank
        return begin, tuple(edges)


def logarithm(number: float | None) -> float:
    """log |number|: -inf for 0; nan and what is not known sort with the largest."""
    if number is None or isnan(number):
        return inf
    return log(abs(number)) if number else -inf
