"""Watches every backward() while a ``with`` block is open."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from os import PathLike
from types import TracebackType
from typing import Any

import torch

from explorer import render
from explorer.diagnosing import diagnosed
from explorer.errors import ExplorerError, UsageError
from explorer.evidence import Evidence
from explorer.exploring import Exploring, Progress, Stages
from explorer.gather import Gatherer, failed_node
from explorer.journal import check as check_journal
from explorer.kept import KEPT_NODES, Kept
from explorer.layers import norms
from explorer.light import Light, Told, with_finding
from explorer.names import Names, collect
from explorer.own import is_own, own_backward
from explorer.places import set_out, source_of
from explorer.placing import placed
from explorer.ranks import Rank, named, rank_now
from explorer.report import CheckMode, Report, Session
from explorer.script import StopScript
from hooks.applied import observe_functions
from hooks.backward import BackwardCall, watch_backward
from hooks.capturing import capturing
from hooks.checkpointed import observe_checkpoints
from hooks.collection import no_collection
from hooks.faults import Faults
from hooks.forward import Observation, observe_forward
from hooks.handles import Handles
from hooks.registered import observe_hooks
from hooks.unseen import asked_by_engine, unseen
from hooks.values import any_kept

CAPTURED = (
    "a backward inside the capture of a CUDA graph is not explored: reading there would break the capture; "
    "explore the warm-up before it"
)


class Watch:
    """Explores the backward calls made inside its ``with`` block.

    `reports` has one `Report` per explored call, in order; `report` is the last of them. `calls` counts
    all of the user's calls. Reports are complete (findings included) at any time, also inside the block.

    Args:
        modules: the modules whose names and paths are to be used; others are found by themselves.
        check: "sample", "full" or "off".
        call: explore this call only (from 1); None explores every one.
        stop: raise `StopScript` after that call.
        script: the script's path, for the report.
        progress: told after each node of an explored backward how many of how many have run.
        work_out: graphs of at most so many nodes have an element of each gradient worked out, of large
            gradients in the first explored call alone.
        every: explore calls 1, 1 + every, 1 + 2·every, ... instead, with a light record of all.
        log: keep the light record of every call in this journal (see `explorer.journal`).
        told: called with the light record of every call.
        keep: nodes that all reports together may have; beyond, every second report is dropped.
        paths_to: measure what each path to the tensor of this name brings.
        numeric: take central differences of the forward too (see `explorer.quotients`).
    """

    def __init__(
        self,
        modules: Sequence[torch.nn.Module] = (),
        *,
        check: CheckMode = "sample",
        call: int | None = None,
        stop: bool = False,
        script: str = "",
        progress: Progress | None = None,
        work_out: int = 0,
        every: int | None = None,
        log: str | None = None,
        told: Told | None = None,
        keep: int | None = None,
        paths_to: str = "",
        numeric: bool = False,
    ) -> None:
        self.calls = 0
        self.rank: Rank | None = None
        self._progress = progress
        self._work_out = work_out
        self._paths_to = paths_to
        self._numeric = numeric
        self.check: CheckMode = check
        self._stages = Stages()
        self._faults = Faults()
        self.problems = self._stages.problems
        self.context: Observation | None = None
        self._modules = tuple(modules)
        self._call = call
        self._every = every
        self._stop = stop
        self._script = script
        self._kept = Kept(keep)
        self.light: Light | None = None
        if any(asked is not None for asked in (every, log, told, keep)):
            first = {"script": script, "torch": torch.__version__, "every": every}
            self.light = Light(self._modules, log, first, told, self.problems)
        self._gatherer = Gatherer()
        self._handles = Handles()

    def __enter__(self) -> Watch:
        set_out()
        try:
            # Entered first, so left last: on leaving it runs backwards of its own, which are nobody's calls.
            with self._stages.guard("gathering evidence"):
                self._handles.enter(self._gatherer)
            with self._stages.guard("watching backward calls"):
                self._handles.enter(watch_backward(self._around, self._faults))
            with self._stages.guard("observing the forward"):
                self.context = self._handles.enter(observe_forward(self._modules))
            with self._stages.guard("observing Functions"):
                self._handles.enter(observe_functions())
            with self._stages.guard("observing checkpoints"):
                self._handles.enter(observe_checkpoints())
            self._handles.enter(observe_hooks())
        except BaseException:
            self._handles.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        with self._stages.guard("detaching"):
            self._handles.close()
        if self.light is not None:
            self.light.close()
        self.problems += [*self._faults.problems, *self._gatherer.lost]

    @property
    def report(self) -> Report:
        """The last explored backward.

        Raises:
            ExplorerError: none was explored yet.
        """
        reports = self.reports
        if not reports:
            none = "no backward() was seen yet: call loss.backward() inside the with block"
            raise ExplorerError("; ".join(self.problems) or none)
        return reports[-1]

    @property
    def explored(self) -> int:
        """How many backward calls were explored so far."""
        return self._kept.explored

    @property
    def reports(self) -> tuple[Report, ...]:
        """All explored backward calls, in order, with their findings."""
        return self.session(scripted=False).reports

    def session(self, scripted: bool) -> Session:
        """All that was seen, diagnosed; `scripted`: as the whole run of a script."""
        self._describe()
        # A script that died or was stopped may have done the rest later.
        run, missing = Evidence(complete=False), Stages()
        with missing.guard("gathering evidence of the run"):
            run = self._gatherer.of_run(self.context, not self._stop and (scripted or not self._script))
        missing.problems += self._gatherer.problems
        missing.problems += self.context.problems if self.context is not None else ()
        run = replace(run, calls=self.calls, scripted=scripted)
        reports = [report for report, _ in self._kept.pairs]
        with self._stages.guard("looking for findings"):
            reports = diagnosed(self._kept.pairs, run, missing.problems)
        if reports and self.light is not None and (light := self.light.finding()) is not None:
            reports[-1] = replace(reports[-1], findings=with_finding(reports[-1].findings, light))
        rank, ranks = (self.rank.number, self.rank.of) if self.rank is not None else (None, 1)
        return Session(tuple(reports), self._script, torch.__version__, self.calls, rank, ranks)

    def save(self, path: str | PathLike[str]) -> tuple[str, ...]:
        """Write all reports to `path`, as `Report.save` does; each rank of a distributed job to its own file.

        ``watch.save("report.json")`` writes ``report.rank0.json`` on rank 0; ``explore --merge`` compares it
        with the others.

        Returns:
            The paths written.

        Raises:
            UsageError: nothing can be written under that suffix, or there.
        """
        place = named(os.fspath(path), self.rank or rank_now())
        return tuple(map(str, render.save(self.session(scripted=False), place)))

    def _describe(self) -> None:
        """Make the graphs of what was read while backward ran; a report whose graph cannot be made goes."""
        for report, _ in self._kept.pairs:
            with self._stages.guard("the walk"):
                _ = report.graph.nodes
                continue
            self._kept.forget(report)

    def explore(self, roots: Sequence[torch.Tensor], names: Names) -> None:
        """Run and explore a backward of our own from `roots`; ``.grad`` stays, the graph stays usable."""
        with unseen(but_fake=True):
            self._explore(roots, names)

    def _explore(self, roots: Sequence[torch.Tensor], names: Names) -> None:
        # For a single number torch takes None for 1; checking the shape of a 1 would import SymPy.
        gradients = [None if root.numel() == 1 else torch.ones_like(root) for root in roots]
        exploring = self._exploring(roots, names, own=True, seeds=gradients)
        returned = None
        try:
            # The check makes garbage of its own while it works.
            collected = no_collection() if self.check == "off" else nullcontext()
            with exploring, own_backward(), asked_by_engine(), collected:
                if exploring.inputs:
                    returned = torch.autograd.grad(
                        roots,
                        exploring.inputs,
                        gradients,
                        retain_graph=True,
                        allow_unused=True,
                        materialize_grads=False,
                    )
        except Exception:  # noqa: BLE001 - it is in the report, with the graph as far as it was run
            pass
        self._add(exploring.report(0, returned, script=self._script), exploring)

    @contextmanager
    def _around(self, call: BackwardCall) -> Iterator[None]:
        """What happens around one backward call of the user's."""
        if is_own():
            yield
            return
        self.calls += 1
        number, chosen = self.calls, self._chosen(self.calls)
        if capturing():
            if CAPTURED not in self.problems:
                self.problems.append(CAPTURED)
            yield
            return
        with self._stages.guard("reading the rank"):
            self.rank = rank_now() or self.rank
        light = (
            self.light.around(call, number, chosen, self.context, self._gatherer.flight)
            if self.light is not None
            else nullcontext()
        )
        with self._gatherer.around(call), light:
            if not chosen:
                try:
                    yield
                except Exception as error:
                    self._post_mortem(call, number, error)
                    raise
                return
            exploring = self._begin(call)
            if exploring is None:
                yield
            else:
                try:
                    with exploring:
                        yield
                finally:
                    self._end(exploring, call, number)
        if self._stop:
            raise StopScript

    def _chosen(self, number: int) -> bool:
        """Whether backward call `number` is explored in full."""
        if self._every is not None:
            return number % self._every == 1 % self._every
        return self._call is None or number == self._call

    def _post_mortem(self, call: BackwardCall, number: int, error: Exception) -> None:
        """Report a call that was not explored and failed: the graph is still there, its gradients are not."""
        exploring = self._begin(call)
        if exploring is not None:
            exploring.error = error
            self._end(exploring, call, number)

    def _begin(self, call: BackwardCall) -> Exploring | None:
        """Look at the graph of `call`; None where even that failed, which `problems` tells."""
        names = Names()
        try:
            with unseen():
                names = collect(call.frame, self._modules)
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.problems.append(f"reading variable names failed: {type(error).__name__}: {error}")
        try:
            with unseen():
                return self._exploring(call.roots, names, call.inputs, seeds=call.grad_tensors)
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.problems.append(f"exploring failed to begin: {type(error).__name__}: {error}")
            return None

    def _exploring(
        self,
        roots: Sequence[Any],
        names: Names,
        inputs: Sequence[Any] = (),
        own: bool = False,
        seeds: Sequence[torch.Tensor | None] = (),
    ) -> Exploring:
        context = self.context
        exploring = Exploring(
            roots,
            names,
            self.check,
            context=placed(context, names) if context else None,
            value_of=context.value_of if context and any_kept() else None,
            inputs=inputs,
            own=own,
            progress=self._progress,
            work_out=self._work_out,
            first=not self.explored,
            paths_to=self._paths_to,
            numeric=self._numeric,
            seeds=seeds,
            edits=self._gatherer.edits,
        )
        if exploring.trace is None:
            self.problems += self._gatherer.cut_roots(roots)
        exploring.looked = self._gatherer.look(exploring.trace, names, roots, context)
        return exploring

    def _end(self, exploring: Exploring, call: BackwardCall, number: int) -> None:
        try:
            with unseen():
                live = exploring.trace.live if exploring.trace is not None and self.rank is not None else ()
                report = exploring.report(number, call.result, source_of(call.frame), self._script)
                if report is not None and live and call.accumulate:
                    report = replace(report, averaged=norms(live))
                self._add(report, exploring)
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.problems.append(f"the report of call {number} failed: {type(error).__name__}: {error}")

    def _add(self, report: Report | None, exploring: Exploring) -> None:
        if report is None:
            self.problems += exploring.stages.problems
        else:
            self._kept.add(
                replace(report, failed=failed_node(report, exploring.looked.earlier)),
                replace(exploring.looked, underflows=tuple(exploring.underflows), altered=exploring.altered),
            )


def watch(
    *modules: torch.nn.Module,
    check: CheckMode = "sample",
    every: int | None = None,
    log: str | PathLike[str] | None = None,
) -> Watch:
    """Explore every backward() inside ``with explorer.watch(model) as watch:``.

    Args:
        modules: none, one or several; they only help to name what is found.
        check: as for `explore`.
        every: for long runs: explore calls 1, 1 + every, 1 + 2·every, ... in full, and of all the others
            keep a light record; of more reports than memory should hold, every second one goes.
        log: write the light record of every call to this file (``.jsonl``; see `explorer.journal`).

    Raises:
        UsageError: `every` is below 1, or `log` is a file that is no journal.
    """
    if every is not None and every < 1:
        raise UsageError(f"every={every}: give a whole number from 1")
    path = None if log is None else os.path.abspath(log)
    if path is not None:
        check_journal(path)
    return Watch(modules, check=check, every=every, log=path, keep=None if every is None else KEPT_NODES)
