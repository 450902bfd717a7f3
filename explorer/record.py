"""Turns the events of one backward into records of every gradient, node by node and edge by edge.

A gradient is measured when its event comes and not kept. What one edge carried differs from the total
its target received only where the target has several consumers, or where a hook changed it on the
way; everywhere else the two share one record and the tensor is measured once.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch

from explorer.measure import Pending, measure
from explorer.report import GradientRecord, NodeGradients
from explorer.trace import Trace
from hooks.nodes import Event, Gradients

Slot = tuple[int, int]


class Recorder:
    """Observes the events of `explorer.hooks.capture` over ``trace.live``.

    Args:
        trace: what was walked; node i of its graph is event index i.
        inputs: what ``backward(inputs=...)`` or ``grad`` was asked for. Their nodes do not run, so what
            they received is put together from what their consumers sent, or taken from the result.
    """

    def __init__(self, trace: Trace, inputs: Sequence[Any] = ()) -> None:
        graph = trace.graph
        self._graph = graph
        self._received: list[list[GradientRecord | None]] = [[] for _ in graph.nodes]
        self._times: list[tuple[float, int] | None] = [None] * len(graph.nodes)
        self._edges: list[GradientRecord | None] = [None] * len(graph.edges)
        self._pending = Pending()
        self._alone = _sole_edges(trace)
        self._carried: dict[int, tuple[torch.Tensor, int]] = {}
        self._requested = _places(trace, inputs)
        self._sums: dict[Slot, torch.Tensor] = {}
        self._pruned = bool(inputs)

    def observe(self, event: Event) -> None:
        """Record one event; to be called with gradients off, as `capture` does."""
        node = event.index
        received = self._received[node] = [None] * len(event.grad_outputs)
        self._times[node] = (event.seconds, event.order)
        for slot, tensor in enumerate(event.grad_outputs):
            if tensor is not None:
                self._total(node, slot, tensor, received)
        if event.grad_inputs is not None:
            self._contributions(node, event.grad_inputs, event.grad_outputs)

    def finish(
        self, returned: Sequence[torch.Tensor | None] | None = None
    ) -> tuple[tuple[NodeGradients | None, ...], tuple[GradientRecord | None, ...]]:
        """Fetch what is still on a device and return the records per node and per edge.

        Args:
            returned: what ``grad`` returned, one gradient for each of the recorder's `inputs`.
        """
        with torch.no_grad():
            self._settle_requested(returned or ())
            for index, (tensor, _) in list(self._carried.items()):
                measure(tensor, self._pending, _into(self._edges, index))
            self._pending.fetch()
        self._carried.clear()
        self._sums.clear()
        self._share()
        nodes: list[NodeGradients | None] = []
        for received, times in zip(self._received, self._times, strict=True):
            seconds, order = times or (0.0, -1)
            ran = times is not None or any(received)
            nodes.append(NodeGradients(tuple(received), seconds, order) if ran else None)
        return tuple(nodes), tuple(self._edges)

    def _total(
        self, node: int, slot: int, tensor: torch.Tensor, received: list[GradientRecord | None]
    ) -> None:
        """Measure what arrived; note an edge whose gradient a hook changed on the way."""
        measure(tensor, self._pending, _into(received, slot))
        edge = self._alone.get((node, slot))
        if edge is None:
            return
        carried = self._carried.pop(edge, None)
        if carried is not None and (carried[0] is not tensor or carried[1] != tensor._version):
            self._alone.pop((node, slot))
            if carried[1] == carried[0]._version:
                measure(carried[0], self._pending, _into(self._edges, edge))

    def _contributions(self, node: int, grad_inputs: Gradients, grad_outputs: Gradients) -> None:
        """Measure what went along each edge, unless its target will tell the same."""
        graph = self._graph
        done: dict[int, int] = {}
        for index in graph.outgoing[node]:
            edge = graph.edges[index]
            tensor = grad_inputs[edge.source_slot] if edge.source_slot < len(grad_inputs) else None
            if tensor is None:
                continue
            place = (edge.target, edge.target_slot)
            if place in self._requested:
                self._sums[place] = self._sums[place] + tensor if place in self._sums else tensor.clone()
            if self._alone.get(place) == index and not self._pruned:
                if graph.nodes[edge.target].kind != "leaf":
                    # Holding a leaf's gradient would make AccumulateGrad copy what it steals.
                    self._carried[index] = (tensor, tensor._version)
                continue
            self._measure_once(tensor, index, node, grad_outputs, done)

    def _measure_once(
        self, tensor: torch.Tensor, index: int, node: int, grad_outputs: Gradients, done: dict[int, int]
    ) -> None:
        """Measure a contribution; one that is another of this event's tensors is not measured again."""
        for slot, other in enumerate(grad_outputs):
            if other is tensor and not tensor.is_cuda:
                self._edges[index] = self._received[node][slot]
                return
        first = done.setdefault(id(tensor), index)
        if first != index and not tensor.is_cuda:
            self._edges[index] = self._edges[first]
        else:
            measure(tensor, self._pending, _into(self._edges, index))

    def _settle_requested(self, returned: Sequence[torch.Tensor | None]) -> None:
        """Fill in what requested tensors received, unless their node ran and told it."""
        for order, (node, slot) in enumerate(self._requested):
            tensor = returned[order] if order < len(returned) else self._sums.get((node, slot))
            received = self._received[node]
            received.extend([None] * (slot + 1 - len(received)))
            if received[slot] is None and tensor is not None:
                measure(tensor, self._pending, _into(received, slot))

    def _share(self) -> None:
        """Give each edge that is its target's only source the record of that target."""
        for (node, slot), index in self._alone.items():
            source = self._times[self._graph.edges[index].source]
            if self._edges[index] is None and source is not None and slot < len(self._received[node]):
                self._edges[index] = self._received[node][slot]


def _sole_edges(trace: Trace) -> dict[Slot, int]:
    """Per (target, slot) that one edge alone feeds, that edge.

    Roots are fed from outside as well, and a leaf's own hooks change what it was sent: neither counts.
    """
    graph = trace.graph
    feeders = Counter((edge.target, edge.target_slot) for edge in graph.edges)
    feeders.update(graph.roots)
    return {
        (edge.target, edge.target_slot): index
        for index, edge in enumerate(graph.edges)
        if feeders[edge.target, edge.target_slot] == 1
        and not (graph.nodes[edge.target].kind == "leaf" and graph.nodes[edge.target].hooks)
    }


def _places(trace: Trace, inputs: Sequence[Any]) -> dict[Slot, None]:
    """The (node, slot) of each requested tensor or GradientEdge that is in the graph, in order."""
    if not inputs:
        return {}
    ids = {node: index for index, node in enumerate(trace.live)}
    leaves = {
        id(node.variable): index for node, index in ids.items() if trace.graph.nodes[index].kind == "leaf"
    }
    found: dict[Slot, None] = {}
    for item in inputs:
        if not isinstance(item, torch.Tensor):
            node, slot = ids.get(item.node), item.output_nr
        elif item.grad_fn is None:
            node, slot = leaves.get(id(item)), 0
        else:
            node, slot = ids.get(item.grad_fn), item.output_nr
        found[(-1 - len(found), 0) if node is None else (node, slot)] = None
    return found


def _into(records: list[GradientRecord | None], place: int) -> Callable[[GradientRecord], None]:
    def receive(record: GradientRecord) -> None:
        records[place] = record

    return receive
