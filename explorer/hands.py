"""What is known of who laid hands on kept values: whether before they were used, or after.

A value that was replaced between its making and its first use is what the script meant to go on with (a
straight-through estimator by hand, masked scores); one that was changed after a node had used it is not
what the forward computed with. The notes of `hooks.edits` tell the two apart, and the line.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch

from explorer.forward_values import Held, Store, passes_on
from explorer.graph import Source
from explorer.places import line_of
from explorer.trace import Trace
from explorer.values import argument_names
from hooks.edits import Edits, Hold, Moment
from hooks.memory import storage_of
from hooks.saved import read


class Hands:
    """The notes, read against one graph; without notes nothing is known."""

    def __init__(self, trace: Trace, store: Store, edits: Edits | None) -> None:
        self._trace = trace
        self._store = store
        self._edits = edits

    def know(self, node: int) -> bool:
        """Whether the notes are complete from the making of all that went into `node`."""
        if self._edits is None:
            return False
        return all(map(self._edits.complete, self._made([node, *self.between(node)])))

    def unordered(self, node: int) -> bool:
        """Whether the notes cannot be ordered with the making and the use of its result, for the threads.

        Nobody knows of what thread a node is, or one thread made what another used.
        """
        if self._edits is None:
            return False
        moments = self._made([node, *self.between(node)]) + self._uses(node)
        return len({None if one is None else one.thread for one in moments}) > 1 or None in moments

    def replaced(self, node: int) -> bool:
        """Whether its result was taken hold of before its use, or a value on the way that nobody kept."""
        if self._edits is None:
            return False
        uses = self._uses(node)
        for made in self._made([node]) or [None]:
            own = [*self._of(made), *self._on((node, 0))]
            if any(
                hold.how != "detach" and not hold.before(made) and not any(map(hold.after, uses))
                for hold in own
            ):
                return True
        return any(self._of(made) for made in self._made(self.between(node)))

    def touched(self, node: int) -> bool:
        """Whether anybody took hold of the result of `node`, ever."""
        return any(map(self._of, self._made([node])))

    def may_have_changed(self, place: Held) -> bool:
        """Whether somebody took hold of a value, or could have written to it unnoted, through NumPy.

        What requires a gradient gives its memory to NumPy only through ``detach()`` or ``.data``.
        """
        if isinstance(place[1], str) or not self.know(place[0]):
            return True
        return bool(self._on(place)) or self.touched(place[0])

    def after(self, places: Iterable[Held]) -> dict[Held, Hold]:
        """Those of `places` that were taken hold of after their first use, each with the latest such hold.

        Not by ``detach()``, which is counted but for NumPy, and mostly there to look.
        """
        found: dict[Held, Hold] = {}
        for place in places:
            node, slot = place
            uses = self._made([node]) if isinstance(slot, str) else self._uses(node)
            holds = [hold for hold in self._on(place) if hold.how != "detach" and any(map(hold.after, uses))]
            if holds:
                found[place] = holds[-1]
        return found

    def between(self, node: int) -> list[int]:
        """The nodes from which `node` computes through values that nobody kept."""
        graph, found = self._trace.graph, list[int]()
        waiting = [node]
        while waiting:
            for index in graph.outgoing[waiting.pop()]:
                edge = graph.edges[index]
                kept = (edge.target, edge.target_slot) in self._store.kept
                if not kept and graph.nodes[edge.target].kind == "op" and edge.target not in found:
                    found.append(edge.target)
                    waiting.append(edge.target)
        return found

    def _uses(self, node: int) -> list[Moment | None]:
        """When the operations that used the result of `node` were made, past views of it."""
        graph, found, waiting = self._trace.graph, list[int](), [node]
        while waiting:
            for index in graph.incoming[waiting.pop()]:
                source = graph.edges[index].source
                (waiting if passes_on(graph.nodes[source].name) else found).append(source)
        return self._made(found)

    def _made(self, nodes: Iterable[int]) -> list[Moment | None]:
        """When these nodes were made, None where that is not known; leaves left out."""
        edits, trace = self._edits, self._trace
        if edits is None:
            return []
        return [edits.made(trace.live[one]) for one in nodes if trace.graph.nodes[one].kind != "leaf"]

    def _of(self, made: Moment | None) -> list[Hold]:
        holds = self._edits.of_node(made) if self._edits is not None and made is not None else ()
        return [hold for hold in holds if hold.how != "detach"]

    def _on(self, place: Held) -> tuple[Hold, ...]:
        storage = self._storages.get(place)
        return () if self._edits is None or storage is None else self._edits.on(storage)

    @cached_property
    def _storages(self) -> dict[Held, int]:
        """The storage of every tensor that is kept, by what it is."""
        graph, found = self._trace.graph, dict[Held, int]()
        for node, live in zip(graph.nodes, self._trace.live, strict=True):
            if node.kind == "leaf":
                _add(found, (node.id, 0), live.variable)
            if node.kind != "op":
                continue
            saved = {name: one.value for name, one in read(live).items() if not one.problem}
            names = argument_names(graph, node)
            for index in graph.outgoing[node.id]:
                edge = graph.edges[index]
                name = names[edge.source_slot] if edge.source_slot < len(names) else ""
                if name and names.count(name) == 1:
                    _add(found, (edge.target, edge.target_slot), saved.pop(name, None))
            for name, value in saved.items():
                _add(found, (node.id, 0) if name == "result" else (node.id, name), value)
        return found


def line(hold: Hold) -> Source | None:
    """The user's line, where it is known."""
    place = hold.place
    return None if place is None else line_of(place.code.co_filename, place.line, place.code.co_name)


def _add(found: dict[Held, int], place: Held, value: object) -> None:
    storage = storage_of(value) if isinstance(value, torch.Tensor) else None
    if storage is not None:
        found.setdefault(place, storage)
