"""Reads, while backward runs, the numbers that one element of each gradient is made of.

What a node saved is freed with its backward, so that large tensors can be worked out only in its event.
Nothing is kept but a line of text per edge. It costs a pass over each gradient (for its largest element) and
a few reads, about a millisecond a node, ten where an element has thousands of terms; so it is done for small
graphs, and for others on request, and of large gradients in the first explored call alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

import torch

from explorer.arithmetic import Block, Case, work
from explorer.arithmetic.block import Index
from explorer.convert import dtype_name
from explorer.report import SMALL, Element
from explorer.trace import Trace
from explorer.values import argument_names
from explorer.worked import confirmed, index_of
from hooks.nodes import Event
from hooks.saved import SavedValue, read

__all__ = ["FEW_NODES", "Witness"]

FEW_NODES = 150
"""A graph of at most so many nodes is worked out without being asked."""


SEARCHED = 2**20
"""The largest element is sought among so many."""
MODEST = 2**12
"""Gradients of more elements are large."""


class Witness:
    """Observes events and works out one element per edge: `elements`, by edge index.

    Args:
        trace: the graph and its live nodes; event i is of node i.
        large: whether large gradients are worked out, too.
    """

    def __init__(self, trace: Trace, large: bool = True) -> None:
        self._graph = trace.graph
        self._large = large
        self.elements: dict[int, Element] = {}

    def observe(self, event: Event) -> None:
        """Work out the edges of one node; to be called in its hook, while its saved tensors live."""
        node = self._graph.nodes[event.index]
        given = event.grad_outputs[0] if event.grad_outputs else None
        if event.grad_inputs is None or given is None or node.kind != "op" or not _readable(given):
            return
        saved: Mapping[str, SavedValue] | None = None
        places = argument_names(self._graph, node)
        for index in self._graph.outgoing[event.index]:
            slot = self._graph.edges[index].source_slot
            sent = event.grad_inputs[slot] if slot < len(event.grad_inputs) else None
            if sent is None or slot >= len(places) or not places[slot] or not _readable(sent):
                continue
            most = max(sent.numel(), given.numel())
            if sent.numel() < 2 or most == 1 or (most > MODEST and not self._large):
                continue
            saved = read(event.node) if saved is None else saved
            with torch.no_grad():
                found = self._element(event.index, places[slot], given, sent, saved)
            if found is not None:
                self.elements[index] = found

    def _element(
        self,
        node: int,
        argument: str,
        given: torch.Tensor,
        sent: torch.Tensor,
        saved: Mapping[str, SavedValue],
    ) -> Element | None:
        """The largest element of `sent`; None where it is not finite, or its arithmetic not known.

        Of a very large tensor it is the largest of its first part: a copy of all of it would cost memory.
        """
        part, before = sent, tuple[int, ...]()
        while part.numel() > SEARCHED:
            part, before = part[0], (*before, 0)
        place = (*before, *index_of(int(part.abs().argmax()), part.shape))
        value = float(sent[place])
        if not value or not isfinite(value):
            return None
        numbers = _Numbers(saved)
        case = Case(
            self._graph.nodes[node],
            argument,
            place,
            tuple(sent.shape),
            block_of(given),
            numbers.block,
            numbers.setting,
        )
        found = work(case)
        if found is None or not isfinite(found.value):
            return None
        return confirmed(found, place, value, dtype_name(sent.dtype))


class _Numbers:
    """What a live node saved, as the arithmetic reads it."""

    def __init__(self, saved: Mapping[str, SavedValue]) -> None:
        self.saved = saved

    def block(self, name: str) -> Block | None:
        """A saved tensor; None where torch keeps none, or it cannot be read."""
        held = self.saved.get(name)
        tensor = held.value if held is not None else None
        return block_of(tensor) if isinstance(tensor, torch.Tensor) and _holds(tensor) else None

    def setting(self, name: str) -> tuple[float, ...] | None:
        """A saved number or list of numbers; a small tensor too (a constant that was wrapped in one)."""
        held = self.saved.get(name)
        value = held.value if held is not None else None
        if isinstance(value, torch.Tensor):
            small = _holds(value) and value.numel() <= SMALL
            return tuple(value.cpu().double().flatten().tolist()) if small else None
        items = value if isinstance(value, (tuple, list)) else (value,)
        if not all(isinstance(item, (bool, int, float)) for item in items):
            return None
        return tuple(map(float, items))


def block_of(tensor: torch.Tensor) -> Block:
    """A real strided tensor as a block that reads it where it is asked to, with gradients off."""

    def fetch(index: Index) -> list[float]:
        chosen = tuple(slice(None) if one is None else one for one in index)
        found: list[float] = tensor[chosen].cpu().double().flatten().tolist()
        return found

    return Block(tuple(tensor.shape), fetch)


def _readable(tensor: Any) -> bool:
    """Whether a gradient is real numbers that can be read by index."""
    return _holds(tensor) and tensor.is_floating_point() and tensor.numel() > 0


def _holds(tensor: torch.Tensor) -> bool:
    """Whether there are real numbers behind a tensor: not sparse, nested, fake, nor complex."""
    return (
        type(tensor) in {torch.Tensor, torch.nn.Parameter}
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_complex()
        and tensor.device.type != "meta"
    )
