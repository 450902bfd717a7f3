"""Turns the events of one backward into records of every gradient, node by node and edge by edge.

A gradient is measured when its event comes and not kept. What one edge carried differs from the total
its target received only where the target has several consumers, or where a hook changed it on the
way; everywhere else the two share one record and the tensor is measured once. A gradient that is the
memory of another of its event in a new shape (a view, a transpose) is not measured again either.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from itertools import accumulate, chain
from typing import Any

import torch

from explorer.measure import Pending, at_once, in_shape_of, measure
from explorer.report import GradientRecord, NodeGradients
from explorer.trace import Trace
from hooks.memory import runs_python
from hooks.nodes import Event, Gradients

Slot = tuple[int, int]
Sent = tuple[int, "weakref.ref[torch.Tensor] | torch.Tensor", int, "GradientRecord | None"]
"""(edge, what its source handed over, that tensor's version, its record). Measured already, the tensor is
held weakly; a leaf's always, for AccumulateGrad copies what somebody else holds instead of stealing it."""


class Recorder:
    """Observes the events of `hooks.nodes.capture` over ``trace.live``.

    Args:
        trace: what was walked; node i of its graph is event index i.
        inputs: what ``backward(inputs=...)`` or ``grad`` was asked for. Their nodes do not run, so what
            they received is put together from what their consumers sent, or taken from the result.
        pruned: whether `inputs` leave nodes out beside their own, so that not all that is sent arrives.

    `refused` tells how many gradients could not be read, by the reason.
    """

    def __init__(self, trace: Trace, inputs: Sequence[Any] = (), pruned: bool = True) -> None:
        self._links = trace.links
        self._first = _first_links(trace)
        self._leaf = [row.species.kind == "leaf" for row in trace.sight.rows]
        self._received: list[list[GradientRecord | None]] = [[] for _ in trace.live]
        self._times: list[tuple[float, int] | None] = [None] * len(trace.live)
        self._edges: list[GradientRecord | None] = [None] * len(trace.links)
        self._unread: dict[int, int] = {}
        self.refused: dict[str, int] = {}
        self._pending = Pending()
        self._alone = _sole_edges(trace)
        self._sent: dict[Slot, Sent] = {}
        self._requested = _places(trace, inputs)
        self._sums: dict[Slot, torch.Tensor] = {}
        self._pruned = pruned and bool(inputs)

    def observe(self, event: Event) -> None:
        """Record one event; to be called with gradients off, as `capture` does."""
        node = event.index
        received = self._received[node] = [None] * len(event.grad_outputs)
        self._times[node] = (event.seconds, event.order)
        for slot, tensor in enumerate(event.grad_outputs):
            if tensor is None:
                continue
            sent = self._sent.pop((node, slot), None)
            record = self._arrived(sent, tensor) if sent is not None else None
            received[slot] = record or self._measured(tensor, received, slot, node)
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
            for edge, tensor, _, record in self._sent.values():
                if isinstance(tensor, torch.Tensor):
                    record = self._measured(tensor, self._edges, edge)
                self._edges[edge] = record
            self._pending.fetch()
        self._sent.clear()
        self._sums.clear()
        self._share()
        nodes: list[NodeGradients | None] = []
        for node, (received, times) in enumerate(zip(self._received, self._times, strict=True)):
            seconds, order = times or (0.0, -1)
            unread = self._unread.get(node, 0)
            ran = times is not None or any(received) or unread
            nodes.append(NodeGradients(tuple(received), seconds, order, unread) if ran else None)
        return tuple(nodes), tuple(self._edges)

    def _measured(
        self,
        tensor: torch.Tensor,
        records: list[GradientRecord | None],
        place: int,
        receiver: int | None = None,
    ) -> GradientRecord | None:
        """The record of `tensor`; None where it is yet to come from a device, to ``records[place]``.

        None as well for one without data, and for one that cannot be read: its `receiver` has a gradient
        unread then.
        """
        try:
            record = at_once(tensor)
            if record is not None:
                return record
            there = measure(tensor, self._pending, _into(records, place))
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            self.refused[reason] = self.refused.get(reason, 0) + 1
            there = False
        if not there and receiver is not None:
            self._unread[receiver] = self._unread.get(receiver, 0) + 1
        return records[place]

    def _arrived(self, sent: Sent, tensor: torch.Tensor) -> GradientRecord | None:
        """The record of what arrived, if it is what was sent and measured then.

        Where a hook changed it on the way, what the edge carried has a record of its own.
        """
        edge, held, version, record = sent
        there = held if isinstance(held, torch.Tensor) else held()
        if there is tensor and version == tensor._version:
            return record
        self._alone[edge] = False
        if isinstance(held, torch.Tensor) and version == held._version:
            record = self._measured(held, self._edges, edge)
        self._edges[edge] = record
        return None

    def _contributions(self, node: int, grad_inputs: Gradients, grad_outputs: Gradients) -> None:
        """Measure what went along each edge, unless its target will tell the same."""
        done: dict[int, int] = {}
        for index in range(self._first[node], self._first[node + 1]):
            _, source_slot, target, target_slot = self._links[index]
            tensor = grad_inputs[source_slot] if source_slot < len(grad_inputs) else None
            if tensor is None:
                continue
            place = (target, target_slot)
            if self._requested and place in self._requested and not runs_python(tensor):
                self._sums[place] = self._sums[place] + tensor if place in self._sums else tensor.clone()
            record = self._known(tensor, grad_outputs, self._received[node])
            if self._alone[index] and not self._pruned:
                if record is not None:
                    self._sent[place] = (index, weakref.ref(tensor), tensor._version, record)
                elif not self._leaf[target]:
                    self._sent[place] = (index, tensor, tensor._version, None)
                continue
            first = done.setdefault(id(tensor), index)
            if record is None and first != index and not tensor.is_cuda:
                record = self._edges[first]
            self._edges[index] = record or self._measured(tensor, self._edges, index)

    def _known(
        self, tensor: torch.Tensor, grad_outputs: Gradients, received: Sequence[GradientRecord | None]
    ) -> GradientRecord | None:
        """The record of a gradient that is one of this event's incoming ones, or the same memory."""
        for other, record in zip(grad_outputs, received, strict=True):
            if record is not None and other is not None:
                if other is tensor:
                    return record
                same = in_shape_of(tensor, other, record)
                if same is not None:
                    return same
        return None

    def _settle_requested(self, returned: Sequence[torch.Tensor | None]) -> None:
        """Fill in what requested tensors received, unless their node ran and told it."""
        for order, (node, slot) in enumerate(self._requested):
            tensor = returned[order] if order < len(returned) else self._sums.get((node, slot))
            received = self._received[node]
            received.extend([None] * (slot + 1 - len(received)))
            if received[slot] is None and tensor is not None:
                received[slot] = self._measured(tensor, received, slot, node)

    def _share(self) -> None:
        """Give each edge that is its target's only source the record of that target."""
        for index, (source, _, target, slot) in enumerate(self._links):
            if self._edges[index] is None and self._alone[index] and self._times[source] is not None:
                received = self._received[target]
                if slot < len(received):
                    self._edges[index] = received[slot]


def _first_links(trace: Trace) -> list[int]:
    """Per node the place of its first link, and one place more: links stand by their sources."""
    first = [0] * (len(trace.live) + 1)
    for source, _, _, _ in trace.links:
        first[source + 1] += 1
    return list(accumulate(first))


def _sole_edges(trace: Trace) -> list[bool]:
    """Per edge: whether it alone feeds its (target, slot).

    Roots are fed from outside as well, and a leaf's own hooks change what it was sent: neither counts.
    """
    first = [0] * len(trace.live)
    others: dict[Slot, int] = {}
    for node, slot in chain(trace.graph.roots, ((target, slot) for _, _, target, slot in trace.links)):
        if slot == 0:
            first[node] += 1
        else:
            others[node, slot] = others.get((node, slot), 0) + 1
    for index, row in enumerate(trace.sight.rows):
        if row.hooks and row.species.kind == "leaf":
            first[index] = 0
    return [(others[target, slot] if slot else first[target]) == 1 for _, _, target, slot in trace.links]


def _places(trace: Trace, inputs: Sequence[Any]) -> dict[Slot, None]:
    """The (node, slot) of each requested tensor or GradientEdge that is in the graph, in order."""
    if not inputs:
        return {}
    ids = {node: index for index, node in enumerate(trace.live)}
    leaves = {
        id(node.variable): index
        for index, node in enumerate(trace.live)
        if trace.sight.rows[index].species.kind == "leaf"
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
