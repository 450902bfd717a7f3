"""The junction check: the sum of what the consumers sent to a node against what the node received.

Only numbers at a few places of each gradient are kept, from the first consumer's event to the node's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeAlias

from explorer.engine.array import Array
from explorer.engine.compare import GRAVITY, Comparison
from explorer.engine.elementwise import Missing
from explorer.engine.leaf import Layout, layout_of
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.run import Run
from explorer.engine.sampling import Points, plan
from explorer.graph import Graph
from explorer.report import Status

Slot: TypeAlias = tuple[int, int]

_READ = Run(rounding_of(["float64"]), bounds=False)


@dataclass(slots=True)
class _Junction:
    """What the consumers sent so far to one output of one node, at the places followed."""

    points: Points
    total: list[Any]
    size: list[float]
    senders: int = 0
    memory: Layout | None = None  # where it lies, while there is one sender


class Junctions:
    """Follows what is sent along every edge; `received` compares it with what arrived.

    Args:
        graph: whose nodes and edges they are.
        targets: per node and source slot the (node, slot) an edge leads to, None without an edge.
        points: so many elements of each gradient are followed.
    """

    def __init__(self, graph: Graph, targets: Sequence[Sequence[Slot | None]], points: int) -> None:
        self.checked = 0
        self._nodes = graph.nodes
        self._roots = set(graph.roots)
        self._targets = targets
        self._points = points
        self._open: dict[Slot, _Junction] = {}
        self._senders: dict[Slot, int] = {}
        for edge in graph.edges:
            slot = (edge.target, edge.target_slot)
            self._senders[slot] = self._senders.get(slot, 0) + 1

    def senders(self, place: Slot) -> int:
        """How many edges lead to one output of a node."""
        return self._senders.get(place, 0)

    def sent(self, index: int, outgoing: Sequence[Array | None]) -> None:
        """Note, at a few places, what node `index` sends along each edge."""
        for slot, target in enumerate(self._targets[index]):
            if target is None:
                continue
            sent = outgoing[slot] if slot < len(outgoing) else None
            junction = self._open.get(target)
            if junction is None:
                junction = self._begin(target, sent)
                if junction is None:
                    continue
            junction.senders += 1
            if sent is None or isinstance(sent, Missing):
                continue
            values = _values_at(sent, junction.points)
            if junction.senders == 1:
                junction.total = values
                junction.size = list(map(abs, values))
                junction.memory = layout_of(sent)
            else:
                junction.memory = None
                junction.total = [a + b for a, b in zip(junction.total, values, strict=True)]
                junction.size = [a + abs(b) for a, b in zip(junction.size, values, strict=True)]

    def _begin(self, target: Slot, sent: Array | None) -> _Junction | None:
        outputs = self._nodes[target[0]].outputs
        spec = outputs[target[1]] if target[1] < len(outputs) else None
        if spec is None or isinstance(sent, Missing):
            return None
        points = plan(spec.shape, 7 * target[0] + target[1], self._points)
        zero = [0.0] * len(points)
        junction = self._open[target] = _Junction(points, zero, zero)
        return junction

    def received(
        self, index: int, slot: int, received: Array | None, hooked: Callable[[int, int], bool]
    ) -> Comparison | str | None:
        """How what node `index` received for output `slot` compares with what was sent there.

        None where nothing can be said; a sentence where something hides part of it. The very memory that one
        consumer sent is equal as a whole, unless a hook of the script may have written to it.
        """
        place = (index, slot)
        junction = self._open.pop(place, None)
        if place in self._roots or junction is None or isinstance(received, Missing):
            return None
        if junction.senders < self._senders.get(place, 0):
            return "junction: some consumers were not seen"
        outputs = self._nodes[index].outputs
        spec = outputs[slot] if slot < len(outputs) else None
        seen = [0.0] * len(junction.points) if received is None else _values_at(received, junction.points)
        self.checked += 1
        of = 0 if received is None else received.numel
        found = _sum_agrees(junction, seen, rounding_of([spec.dtype] if spec else []), of)
        same = junction.memory is not None and received is not None and junction.memory == layout_of(received)
        if same and found.status == "match" and not hooked(index, slot):
            return replace(found, elements=of)
        return found

    def close(self) -> None:
        """Forget what was sent and never received."""
        self._open.clear()


def _values_at(array: Array, points: Points) -> list[Any]:
    if len(points) == array.numel:
        return array.eval(array.full_box, _READ)[0] if points else []  # all elements, in their own order
    coords = list(zip(*points, strict=True)) if points and points[0] else []
    return array.at(coords, len(points), Run(_READ.rounding, bounds=False))[0] if points else []


def _sum_agrees(junction: _Junction, seen: list[Any], rounding: Rounding, of: int) -> Comparison:
    """Whether what was received is the sum of what was sent: exactly so from one sender.

    Between m senders torch rounds m - 1 times: (m - 1)·u·Σ|sent|, twice for the threshold.
    """
    worst = Comparison("match", 0.0, len(junction.points), of)
    if seen == junction.total:
        return worst
    slack = 2 * max(junction.senders - 1, 0) * rounding.u
    for point, total, size, torch_value in zip(
        junction.points, junction.total, junction.size, seen, strict=True
    ):
        gap = abs(total - torch_value)
        bound = slack * size
        if total == torch_value or (total != total and torch_value != torch_value) or gap <= bound:
            continue
        if not isfinite(abs(torch_value)) and isfinite(size) and size * (1 + rounding.u) > rounding.largest:
            status: Status = "overflow"
        else:
            status = "mismatch" if isfinite(gap) else "nan-mismatch"
        ratio = gap / bound if bound else float("inf")
        if GRAVITY[status] > GRAVITY[worst.status] or ratio > worst.ratio:
            worst = Comparison(status, ratio, len(junction.points), of, point, torch_value, total)
    return worst
