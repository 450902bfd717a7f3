"""Numeric gradients of an explored backward: central differences of its forward, computed again in float64.

A few elements of every leaf, those of largest gradient, are moved by ±h in turn (`explorer.replay` computes
the forward again). A quotient counts only where that with h and that with h/2 agree: at a kink of relu or
max, and where rounding covers everything, there is none to compare with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from math import isclose, isfinite
from time import perf_counter
from typing import Protocol

import torch

from explorer.elements import Flat
from explorer.engine.array import Array
from explorer.engine.rounding import rounding_of
from explorer.engine.run import Run
from explorer.graph import Graph
from explorer.replay import Replay, UnreplayableError
from explorer.report import Quotients, Row
from explorer.rerun import aside
from explorer.trace import Trace
from explorer.worked import index_of

__all__ = ["ELEMENTS", "NumericToo", "largest", "quotients"]

ELEMENTS = 3
"""So many elements of each leaf are compared."""

SECONDS = 30.0
"""Time for all differences of one backward."""

STEP = 1e-5
"""h, relative to the size of the element and at least to a hundredth of 1."""

SETTLED = 1e-4
"""Relative difference between the quotients with h and h/2."""

BENT = 1e-2
"""Relative difference between the slopes on both sides, above which there is a kink."""

CLOSE = {"float64": 1e-9, "float32": 1e-3}
"""How well the replayed result must agree with the recorded one; half precision: 5 %."""

Place = tuple[int, ...]


def largest(gradient: torch.Tensor) -> dict[Place, float]:
    """The places of the largest elements of a leaf's gradient, and the elements."""
    if gradient.layout is not torch.strided or gradient.is_complex() or not gradient.numel():
        return {}
    flat = gradient.detach().abs().flatten().double()
    flat = torch.where(flat.isfinite(), flat, torch.zeros_like(flat))
    chosen = sorted(flat.topk(min(ELEMENTS, flat.numel())).indices.tolist())
    places = [index_of(int(one), gradient.shape) for one in chosen]
    return {place: float(gradient[place]) for place in places}


def quotients(
    graph: Graph,
    replay: Replay,
    roots: Sequence[torch.Tensor],
    seeds: Sequence[torch.Tensor | None],
    received: Mapping[int, Mapping[Place, float]],
    engine: Mapping[int, Mapping[Place, float]],
) -> Quotients:
    """Central differences beside the gradients that leaves received.

    Args:
        graph: the explored graph.
        replay: its forward.
        roots: the tensors backward began at, in the order of ``graph.roots``.
        seeds: the gradient each began with, None for a 1.
        received: leaf -> place -> what torch gave there; these elements are compared.
        engine: the same by the engine, where it followed the whole backward by itself.
    """
    try:
        with torch.no_grad():
            return _Differences(graph, replay, roots, seeds).rows(received, engine)
    except UnreplayableError as problem:
        return Quotients(problem=str(problem))


class NumericToo:
    """The numeric side of one explored backward: its forward held ready, and the elements to compare.

    What fails of it is told in the report's problems, and never reaches the backward.
    """

    def __init__(
        self, stages: Guarding, roots: Sequence[torch.Tensor], seeds: Sequence[torch.Tensor | None]
    ) -> None:
        self._stages, self._roots, self._seeds = stages, tuple(roots), tuple(seeds)
        self._replay: Replay | None = None
        self._problem = ""
        self._received: dict[int, dict[Place, float]] = {}

    def begin(self, trace: Trace, forward: Mapping[int, tuple[Flat | None, ...]]) -> None:
        """Take hold of what the forward needs, before the backward frees it; `forward` are known values."""
        with self._stages.guard("the numeric gradients"):
            try:
                self._replay = Replay(trace, forward)
            except UnreplayableError as problem:
                self._problem = str(problem)

    def take(self, leaf: int, gradient: torch.Tensor) -> None:
        """Note which elements of a leaf's gradient are to be compared."""
        with self._stages.guard("the numeric gradients"):
            self._received[leaf] = largest(gradient)

    def finish(self, graph: Graph, own: Mapping[int, Array]) -> Quotients | None:
        """The rows, once backward is over; `own` are the engine's gradients, where it followed."""
        replay, self._replay = self._replay, None
        if replay is None:
            return Quotients(problem=self._problem) if self._problem else None
        with self._stages.guard("the numeric gradients"), aside():
            engine = {
                leaf: {place: _read(own[leaf], place) for place in places}
                for leaf, places in self._received.items()
                if leaf in own
            }
            return quotients(graph, replay, self._roots, self._seeds, self._received, engine)


def _read(gradient: Array, place: Place) -> float:
    """One element of what the engine found."""
    coordinates = [[one] for one in place]
    values = gradient.at(coordinates, 1, Run(rounding_of(["float64"]), bounds=False))[0]
    return float(values[0])


class Guarding(Protocol):
    """Runs a stage of ours so that what it raises becomes a sentence."""

    def guard(self, stage: str) -> AbstractContextManager[object]:
        """A context manager for one stage: no exception of ours leaves it."""


class _Differences:
    """The result as a function of one element of one leaf."""

    def __init__(
        self,
        graph: Graph,
        replay: Replay,
        roots: Sequence[torch.Tensor],
        seeds: Sequence[torch.Tensor | None],
    ) -> None:
        self.graph, self.replay, self.seeds = graph, replay, list(seeds) or [None] * len(roots)
        self.leaves = {number: leaf.double() for number, leaf in replay.leaves.items()}
        found = replay.at(self.leaves)
        for place, root in zip(graph.roots, roots, strict=True):
            self.hold(found[place], root.detach())
        self.base = self.total(found)

    def hold(self, again: torch.Tensor, recorded: torch.Tensor) -> None:
        """Make sure that the replay gives what the program had."""
        dtype = str(recorded.dtype).removeprefix("torch.")
        close = CLOSE.get(dtype, 5e-2)
        first, second = again.double().flatten(), recorded.double().flatten()
        if first.shape == second.shape and torch.allclose(first, second, rtol=close, atol=close * 1e-3):
            return
        said = (
            f"{float(first[0]):.6g}, not {float(second[0]):.6g}" if first.numel() == 1 else "another result"
        )
        raise UnreplayableError(
            f"computed again from what was saved, the forward gives {said}: something it depends on "
            "was not saved"
        )

    def total(self, found: Mapping[tuple[int, int], torch.Tensor]) -> float:
        """The number that is differentiated: each root times what backward began with there."""
        parts = []
        for place, seed in zip(self.graph.roots, self.seeds, strict=True):
            one = found[place]
            parts.append(float(one.sum() if seed is None else (one * seed.double()).sum()))
        return sum(parts)

    def rows(
        self, received: Mapping[int, Mapping[Place, float]], engine: Mapping[int, Mapping[Place, float]]
    ) -> Quotients:
        """One row per element, and why some have no quotient."""
        started, notes = perf_counter(), []
        unsettled = late = 0
        leaves = [node for node in reversed(self.graph.order) if node in received]
        # the first element of every leaf before the second of any: time may run out
        asked = [(rank, at) for rank in range(ELEMENTS) for at in range(len(leaves))]
        found: dict[tuple[int, int], Row] = {}
        for rank, at in asked:
            number = leaves[at]
            if rank >= len(received[number]):
                continue
            place, given = list(received[number].items())[rank]
            if perf_counter() - started > SECONDS:
                late += 1
                continue
            numeric = self.quotient(number, place, given)
            unsettled += numeric is None
            node = self.graph.nodes[number]
            label = node.label if node.names else f"leaf{number}"  # as the narration calls it
            name = f"{label}{list(place)}" if place else label
            found[at, rank] = Row(name, None, given, engine.get(number, {}).get(place), numeric)
        rows = [found[place] for place in sorted(found)]
        if unsettled:
            notes.append(
                f"{unsettled} of the quotients did not settle: a kink (relu, max) is near, or all is rounding"
            )
        if late:
            left = "1 element was" if late == 1 else f"{late} elements were"
            notes.append(f"{left} left out: {SECONDS:g} seconds were used up")
        if rows and not engine:
            notes.append(
                "the engine did not follow this backward from the root on by itself; it checked every node"
            )
        return Quotients(tuple(rows), tuple(notes))

    def quotient(self, number: int, place: Place, given: float) -> float | None:
        """(f(x + h) − f(x − h)) / 2h; None where it does not settle."""
        centre = float(self.leaves[number][place])
        h = STEP * max(abs(centre), 1e-2)
        below, left, right, above = (self.value(number, place, centre + k * h) for k in (-1, -0.5, 0.5, 1))
        wide, narrow = (above - below) / (2 * h), (right - left) / h
        noise = 1e-14 * abs(self.base) / h
        settled = isclose(wide, narrow, rel_tol=SETTLED, abs_tol=max(noise, SETTLED * abs(given)))
        # a quotient over both sides of a kink settles too, on the mean of two slopes
        bend = abs(above - 2 * self.base + below) / h
        smooth = bend <= BENT * max(abs(wide), abs(given)) + noise + h
        return wide if isfinite(wide) and settled and smooth else None

    def value(self, number: int, place: Place, value: float) -> float:
        """The result with one element of one leaf set to `value`."""
        moved = self.leaves[number].clone()
        moved[place] = value
        return self.total(self.replay.at({**self.leaves, number: moved}))
