"""The light record of every backward call of a run: its numbers by layer, its journal, what was bad in it.

Whatever fails here is told in `problems`, ends the record, and never reaches the user's backward.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import hypot, isfinite
from threading import get_ident
from time import perf_counter
from typing import Any

import torch
from torch import nn

from explorer.diagnose.registry import SEVERITIES
from explorer.graph import Source
from explorer.journal import Journal, Step
from explorer.layers import Layers, Sums, whole_gradient
from explorer.names import collect
from explorer.places import source_of
from explorer.ranks import Rank, named, rank_now
from explorer.report import Finding
from hooks.backward import BackwardCall
from hooks.flight import Flight
from hooks.forward import Observation
from hooks.memory import runs_python
from hooks.nodes import Capture, Event, Observer, capture
from hooks.unseen import unseen

PLACES = 1000
"""Lines that call backward whose variables are read for names."""

Told = Callable[[Step], None]


@dataclass(slots=True)
class Bad:
    """The first call with a non-finite gradient, and how it went on."""

    step: Step
    where: Source | None
    calls: int = 1
    last: int = 0


@dataclass(slots=True)
class _Call:
    """What is measured of the call in flight."""

    number: int
    began: float
    sums: Sums
    capture: Capture
    loss: torch.Tensor | None
    tensors: Sequence[torch.Tensor]
    layers: Sequence[str]
    where: Source | None
    explored: bool


@dataclass
class Light:
    """Goes around every backward call, explored or not; see `around`.

    Args:
        modules: modules given by name to the watch.
        path: the journal's file, None for none; in a distributed job it is named by rank.
        first: what the journal's first line says of the run.
        told: called with every step.
    """

    modules: Sequence[nn.Module] = ()
    path: str | None = None
    first: dict[str, Any] = field(default_factory=dict)
    told: Told | None = None
    problems: list[str] = field(default_factory=list)
    calls: int = 0
    losses: tuple[float | None, float | None] = (None, None)
    norms: tuple[float, float] = (float("inf"), 0.0)
    bad: Bad | None = None
    journal: Journal | None = None
    beside: int = 0

    def __post_init__(self) -> None:
        self._layers = Layers()
        self._places: set[tuple[Any, int]] = set()
        self._began = perf_counter()
        self._open = True

    @contextmanager
    def around(
        self, call: BackwardCall, number: int, explored: bool, context: Observation | None, flight: Flight
    ) -> Iterator[None]:
        """Measure one backward call; an exception of its own passes through.

        Of one that runs beside another thread's no gradients are measured: the hooks sit on all leaves, and
        torch may be reading what they are put into.
        """
        with flight.alone() as alone:
            now = self._begin(call, number, explored, context, measured=alone)
            if now is not None:
                now.capture.__enter__()
        if now is None:
            yield
            return
        self.beside += not alone
        error = ""
        try:
            yield
        except BaseException as problem:
            error = type(problem).__name__
            raise
        finally:
            now.capture.__exit__(None, None, None)
            self._end(now, call, error)

    def close(self) -> None:
        """The run is over."""
        if self.journal is not None:
            self.journal.close()
            if self.journal.problem:
                self.problems.append(self.journal.problem)

    def finding(self) -> Finding | None:
        """What to say of non-finite gradients, where the first came in a call without a full report."""
        bad = self.bad
        if bad is None or bad.step.explored:
            return None
        layers = [name for name, layer in bad.step.layers.items() if layer.nonfinite]
        named_ = ", ".join(f"`{name}`" for name in layers[:4]) + (", ..." if len(layers) > 4 else "")
        over = bad.last < self.calls
        rest = f", the first of {bad.calls:,} such calls" if bad.calls > 1 else ""
        if over:
            rest += f"; from call {bad.last + 1} to {self.calls} they were finite"
        return Finding(
            code="non-finite-gradient",
            severity="warning" if over else "error",
            message=f"Backward call {bad.step.call} brought {bad.step.nonfinite:,} non-finite gradient "
            f"elements to {named_}{rest}.",
            advice=f"See where they began with `--call {bad.step.call}`."
            + (" A GradScaler looking for its scale skips such steps." if over else ""),
            where=bad.where,
        )

    def summary(self) -> str:
        """The run in one line; "" where there was no call."""
        if not self.calls:
            return ""
        first, last = self.losses
        parts = [f"{self.calls:,} backward call{'s' * (self.calls > 1)}"]
        if first is not None and last is not None:
            parts.append(f"loss {first:.4g} to {last:.4g}")
        if self.norms[1] > 0:
            parts.append(f"gradient {self.norms[0]:.3g} to {self.norms[1]:.3g}")
        if self.bad is not None:
            parts.append(f"not finite in {self.bad.calls:,}, first in call {self.bad.step.call}")
        if self.beside:
            parts.append(f"{self.beside:,} not measured, beside another thread's")
        if self.journal is not None and self.journal.written:
            parts.append(f"by layer in {self.journal.path}")
        return " · ".join(parts)

    def _begin(
        self, call: BackwardCall, number: int, explored: bool, context: Observation | None, measured: bool
    ) -> _Call | None:
        if not self._open:
            return None
        try:
            with unseen():
                self._learn(call, number, explored, context)
            nodes, layers, tensors = self._layers.targets()
            sums = Sums(layers)
            watching = capture(nodes if measured else (), _of_this_thread(sums.observe))
            where = source_of(call.frame)
            return _Call(
                number, perf_counter(), sums, watching, _loss(call), tensors, layers, where, explored
            )
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self._stop(error)
            return None

    def _learn(self, call: BackwardCall, number: int, explored: bool, context: Observation | None) -> None:
        """Read names where they may be new: at a line's first call, at explored calls, and now and then."""
        frame = call.frame
        place = (frame.f_code, frame.f_lasti) if frame is not None else (None, 0)
        new = place not in self._places and len(self._places) < PLACES
        if new or explored or number & (number - 1) == 0:
            self._places.add(place)
            self._layers.learn(collect(frame, self.modules))
        if context is not None:
            self._layers.learn_modules(context.root_modules())

    def _end(self, now: _Call, call: BackwardCall, error: str) -> None:
        try:
            seconds = perf_counter() - now.began
            if now.capture.problem:
                self.problems.append(f"the light record of call {now.number}: {now.capture.problem}")
            with torch.no_grad(), unseen():
                for asked, result in zip(call.inputs, call.result or (), strict=False):
                    layer = self._layers.layer(asked) if isinstance(asked, torch.Tensor) else None
                    if layer is not None and result is not None:
                        now.sums.add(layer, result)
                layers = now.sums.finish()
                rank = rank_now()
                step = Step(
                    call=now.number,
                    at=now.began - self._began,
                    seconds=seconds,
                    loss=None if now.loss is None else float(now.loss),
                    where="" if now.where is None else f"{now.where.file}:{now.where.line}",
                    explored=now.explored,
                    layers=layers,
                    averaged=_averaged(now) if rank is not None and call.accumulate else {},
                    error=error,
                )
            self._note(step, now.where, rank)
        except Exception as problem:  # noqa: BLE001 - the user's backward must not notice
            self._stop(problem)

    def _note(self, step: Step, where: Source | None, rank: Rank | None) -> None:
        """Take `step` into the totals, the journal and the display."""
        self.calls = max(self.calls, step.call)
        if step.loss is not None:
            self.losses = (step.loss if self.losses[0] is None else self.losses[0], step.loss)
        norm = hypot(*(layer.norm for layer in step.layers.values()))
        if step.layers and isfinite(norm):
            self.norms = (min(norm, self.norms[0]), max(norm, self.norms[1]))
        if step.nonfinite:
            if self.bad is None:
                self.bad = Bad(step, where, calls=0)
            self.bad.calls += 1
            self.bad.last = step.call
        if self.path is not None:
            if self.journal is None:
                first = {
                    **self.first,
                    "started": round(time.time(), 3),
                    "rank": None if rank is None else rank.number,
                    "ranks": 1 if rank is None else rank.of,
                }
                self.journal = Journal(named(self.path, rank), first)
            self.journal.write(step)
        if self.told is not None:
            self.told(step)

    def _stop(self, error: Exception) -> None:
        self._open = False
        self.problems.append(f"the light record of backward calls stopped: {type(error).__name__}: {error}")


def with_finding(findings: tuple[Finding, ...], more: Finding) -> tuple[Finding, ...]:
    """`findings` and one more, errors first."""
    return tuple(sorted((*findings, more), key=lambda finding: SEVERITIES[finding.severity]))


def _of_this_thread(observe: Observer) -> Observer:
    """`observe` without what other threads run on the CPU; a device's nodes run on threads of its own."""
    here = get_ident()

    def own(event: Event) -> None:
        gradient = event.grad_outputs[0]
        if get_ident() == here or (gradient is not None and not gradient.is_cpu):
            observe(event)

    return own


def _loss(call: BackwardCall) -> torch.Tensor | None:
    """A copy of the root's value, where there is one real number; it stays on its device."""
    root = call.roots[0] if len(call.roots) == 1 else None
    if (
        not isinstance(root, torch.Tensor)
        or root.numel() != 1
        or not root.is_floating_point()
        or root.is_meta
        or runs_python(root)
    ):
        return None
    with torch.no_grad(), unseen():
        return root.clone()


def _averaged(now: _Call) -> dict[str, float]:
    """The 2-norm of each layer's ``.grad`` as it stands after the call."""
    sums = Sums()
    for tensor, layer in zip(now.tensors, now.layers, strict=True):
        gradient = whole_gradient(tensor)
        if gradient is not None:
            sums.add(layer, gradient)
    return {layer: total.norm for layer, total in sums.finish().items()}
