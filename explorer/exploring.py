"""One backward call, explored while it runs.

Each stage stands behind `Stages.guard`: what fails in ours is told in the report's `problems` and never
reaches the user's backward.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import perf_counter
from types import TracebackType
from typing import Any

import torch

from explorer.chains import target_of
from explorer.check import Checker
from explorer.consistency import altered_values
from explorer.contributions import shares
from explorer.errors import ExplorerError, UsageError
from explorer.evidence import Altered, Looked
from explorer.glimpse import Notes
from explorer.graph import Graph, Source
from explorer.known import Row, ValueOf, with_values
from explorer.names import Names
from explorer.quotients import NumericToo
from explorer.record import Recorder
from explorer.report import (
    CheckMode,
    CheckSummary,
    Consistency,
    GradientRecord,
    NodeGradients,
    Quotients,
    Report,
    Shares,
    Verdict,
)
from explorer.rerun import aside
from explorer.trace import Trace, trace
from explorer.witness import Witness
from hooks.collection import no_collection
from hooks.edits import Edits
from hooks.halves import underflowed
from hooks.nodes import Capture, Event, capture, is_leaf


class Guard:
    """Runs one of our own stages: an exception in it becomes a sentence in `problems`."""

    def __init__(self, stage: str, problems: list[str]) -> None:
        self._stage = stage
        self._problems = problems

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> bool:
        if not isinstance(error, Exception):
            return False
        if isinstance(error, ExplorerError):
            self._problems.append(str(error))  # said on purpose, in words for the user
        else:
            self._problems.append(f"{self._stage} failed: {type(error).__name__}: {error}")
        return True


class Stages:
    """Runs our own stages; collects what went wrong in them."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def guard(self, stage: str) -> Guard:
        """A context manager for one stage: no exception of ours leaves it."""
        return Guard(stage, self.problems)


Progress = Callable[[int, int], None]
"""Told after each node how many of how many have run."""


class Exploring:
    """A context manager around one backward call; `report()` says afterwards what happened.

    Nothing is raised by entering or leaving; an exception of the backward itself passes through.
    """

    def __init__(
        self,
        roots: Sequence[Any],
        names: Names,
        check: CheckMode,
        context: Notes | None = None,
        value_of: ValueOf | None = None,
        inputs: Sequence[Any] = (),
        own: bool = False,
        progress: Progress | None = None,
        work_out: int = 0,
        first: bool = True,
        paths_to: str = "",
        seeds: Sequence[torch.Tensor | None] = (),
        numeric: bool = False,
        edits: Edits | None = None,
    ) -> None:
        self.stages = Stages()
        self._progress = progress
        self._done = 0
        self.trace: Trace | None = None
        self.looked = Looked()
        self.underflows: list[int] = []
        self.altered: tuple[Altered, ...] = ()
        self.error: BaseException | None = None
        self.inputs: tuple[Any, ...] = ()
        self.leaves: dict[torch.Tensor, int] = {}
        self._recorder: Recorder | None = None
        self._unrecorded = False
        self._checker: Checker | None = None
        self._consistency: Consistency | None = None
        self._witness: Witness | None = None
        self._shares: Shares | None = None
        self._numeric = NumericToo(self.stages, roots, seeds) if numeric else None
        self._capture: Capture | None = None
        self._clocks = check != "off"  # without a check, as little as can be stands in the way
        self._forward: Mapping[int, Row] = {}
        self._seconds: float | None = None
        with self.stages.guard("the walk"):
            self.trace = trace(roots, names=names, context=context, values=True)
        if self.trace is None:
            return
        if own or inputs:
            self.leaves = {node.variable: i for i, node in enumerate(self.trace.live) if is_leaf(node)}
        self.inputs = tuple(self.leaves) if own else tuple(inputs)
        with self.stages.guard("reading forward values"):
            outputs = [len(row.outputs) for row in self.trace.sight.rows]
            self._forward = with_values(self.trace.graph, self.trace.live, outputs, value_of)
        with self.stages.guard("the record of gradients"), no_collection():
            self._recorder = Recorder(self.trace, self.inputs, pruned=not own)
        if len(self.trace.live) <= work_out:
            self._witness = Witness(self.trace, first)
        if paths_to:
            with self.stages.guard("measuring the paths"):
                self._shares = _measured(self.trace, paths_to, seeds)
        if self._numeric is not None:
            self._numeric.begin(self.trace, self._forward)
        if check != "off":
            with self.stages.guard("the check"):
                self._checker = Checker(self.trace, check, pruned=bool(inputs))
            with self.stages.guard("the check of forward values"):
                self.altered, self._consistency = altered_values(
                    self.trace, roots, value_of, check == "full", edits
                )

    def __enter__(self) -> Exploring:
        if self.trace is not None:
            self._capture = capture(self.trace.live, self._observe, self._clocks)
            self._capture.__enter__()
        self._started = perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._seconds = perf_counter() - self._started
        self.error = error
        if self._capture is None:
            return
        with self.stages.guard("the release of hooks"):
            self._capture.__exit__(kind, error, tb)
        if self._capture.problem:
            self.stages.problems.append(f"observing stopped: {self._capture.problem}")

    def _observe(self, event: Event) -> None:
        if self._progress is not None and self.trace is not None:
            self._done += 1
            try:
                self._progress(self._done, len(self.trace.live))
            except Exception as error:  # noqa: BLE001 - a display that fails must not end the observing
                self._stopped("telling of progress", error)
                self._progress = None
        if self._recorder is not None:
            try:
                self._recorder.observe(event)
            except Exception as error:  # noqa: BLE001 - the check goes on without the record
                self._stopped("the record of gradients", error)
                self._recorder, self._unrecorded = None, True
        if self._checker is not None:
            try:
                self._checker.observe(event)
            except Exception as error:  # noqa: BLE001 - the record goes on without the check
                self._stopped("the check", error)
                self._checker = None
        if self._witness is not None:
            try:
                self._witness.observe(event)
            except Exception as error:  # noqa: BLE001 - a report without worked elements is a report
                self._stopped("working out elements", error)
                self._witness = None
        if self._numeric is not None and event.grad_inputs is None and event.grad_outputs[0] is not None:
            self._numeric.take(event.index, event.grad_outputs[0])
        if underflowed(event):
            self.underflows.append(event.index)

    def _stopped(self, stage: str, error: Exception) -> None:
        self.stages.problems.append(f"{stage} stopped: {type(error).__name__}: {error}")

    def _deliver(self, live: Sequence[Any], returned: Sequence[torch.Tensor | None]) -> None:
        """Let the check see what ``autograd.grad`` returned for leaves: their nodes do not run."""
        for asked, gradient in zip(self.inputs, returned, strict=False):
            index = self.leaves.get(asked) if isinstance(asked, torch.Tensor) else None
            if index is not None and self._checker is not None:
                self._checker.observe(Event(index, live[index], (gradient,), None, 0.0, len(live)))

    def _quotients(self, graph: Graph, returned: Sequence[torch.Tensor | None]) -> Quotients | None:
        """The numeric gradients, where they were asked for."""
        if self._numeric is None:
            return None
        for asked, gradient in zip(self.inputs, returned, strict=False):
            if gradient is not None and asked in self.leaves:
                self._numeric.take(self.leaves[asked], gradient)
        own = self._checker.own_gradients if self._checker is not None else {}
        return self._numeric.finish(graph, own)

    def report(
        self,
        call: int,
        returned: Sequence[torch.Tensor | None] | None = None,
        where: Source | None = None,
        script: str = "",
    ) -> Report | None:
        """What happened, as plain data; None where not even the graph could be read.

        Args:
            call: its number among the user's backward calls, 0 for a backward of our own.
            returned: the result of ``autograd.grad``, one per input asked for.
            where: the line that called backward.
        """
        if self.trace is None:
            return None
        traced, self.trace = self.trace, None
        gradients: tuple[NodeGradients | None, ...] = (None,) * len(traced.live)
        edge_gradients: tuple[GradientRecord | None, ...] = (None,) * len(traced.links)
        verdicts: tuple[Verdict, ...] = ()
        check = CheckSummary(nodes=len(traced.live))
        if self._recorder is not None:
            with self.stages.guard("the record of gradients"), no_collection():
                gradients, edge_gradients = self._recorder.finish(returned)
                for reason, count in self._recorder.refused.items():
                    gradient = "1 gradient" if count == 1 else f"{count} gradients"
                    self.stages.problems.append(f"{gradient} could not be read: {reason}")
        elif self._unrecorded:
            gradients = ()  # not known; None would say that no gradient came
        if self._checker is not None:
            with self.stages.guard("the check"):
                self._deliver(traced.live, returned or ())
                verdicts, check = self._checker.finish()
                check = replace(check, consistency=self._consistency)
        quotients = self._quotients(traced.graph, returned or ())
        return Report(
            graph=traced.graph,
            gradients=gradients,
            edge_gradients=edge_gradients,
            forward=self._forward,
            verdicts=verdicts,
            check=check,
            call=call,
            where=where,
            root_name=traced.sight.label(traced.graph.roots[0][0]),
            seconds=self._seconds,
            error=f"{type(self.error).__name__}: {self.error}" if self.error is not None else "",
            problems=tuple(self.stages.problems),
            script=script,
            torch=torch.__version__,
            elements=self._witness.elements if self._witness is not None else {},
            shares=self._shares,
            quotients=quotients,
        )


def _measured(found: Trace, name: str, seeds: Sequence[torch.Tensor | None]) -> Shares | None:
    """What each path to the tensor called `name` will bring; None where there is no such tensor."""
    try:
        target = target_of(Report(found.graph), name)
    except UsageError:  # said when the paths are told
        return None
    begins = dict(zip(found.graph.roots, seeds, strict=False)) or dict.fromkeys(found.graph.roots)
    with aside():
        return shares(found.graph, found.live, begins, target)
