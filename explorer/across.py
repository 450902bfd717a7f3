"""The ranks of a distributed job side by side: what each brought, and what they should agree on and do not.

Every rank is read from what it wrote: a report (``report.rank0.json``) or a journal (``steps.rank0.jsonl``).
A layer's own gradient differs from rank to rank, for each has its own data; its ``.grad`` after the call
(`averaged`) does not where the ranks average gradients, as DistributedDataParallel does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import hypot, isfinite

from explorer.errors import UsageError
from explorer.journal import Run, layer_of
from explorer.report import Finding, GradientRecord, Report, Session

TOLERANCE = 1e-5
"""Relative difference of two norms of one tensor: their elements are the same bits, their sums may not be."""
LISTED = 4
"""Layers that one sentence names."""


@dataclass(frozen=True, slots=True)
class RankCall:
    """One backward call of one rank: 2-norms by layer, before (`layers`) and after averaging.

    `nodes` counts the graph's nodes by name; it is empty where only a journal is known.
    """

    layers: Mapping[str, float]
    averaged: Mapping[str, float] = field(default_factory=dict)
    loss: float | None = None
    error: str = ""
    nodes: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RankRun:
    """What rank `rank` of `ranks` wrote to `path`: its calls by number; it made `total` of them."""

    path: str
    rank: int
    ranks: int
    calls: Mapping[int, RankCall]
    total: int
    findings: tuple[Finding, ...] = ()
    script: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One layer in one call: the norm of its own gradient on each rank (None: none), and of its ``.grad``."""

    layer: str
    own: tuple[float | None, ...]
    averaged: tuple[float | None, ...]
    differs: bool


@dataclass(frozen=True, slots=True)
class Table:
    """The layers of one backward call, with each rank's loss where known."""

    call: int
    losses: tuple[float | None, ...]
    rows: tuple[Row, ...]


@dataclass(frozen=True, slots=True)
class Across:
    """The comparison: the ranks in order, the tables that are shown, what differs, and whose finding is what.

    `findings` pairs each finding with the ranks that have it. `calls` were compared.
    """

    runs: tuple[RankRun, ...]
    tables: tuple[Table, ...]
    differences: tuple[str, ...]
    findings: tuple[tuple[Finding, tuple[int, ...]], ...]
    calls: int


def of_session(session: Session, path: str, place: int) -> RankRun:
    """A rank from its report; `place` is its number where the file does not say."""
    calls = {report.call: _call(report) for report in session.reports}
    findings = tuple(finding for report in session.reports for finding in report.findings)
    rank = place if session.rank is None else session.rank
    return RankRun(path, rank, session.ranks, calls, session.calls, findings, session.script)


def of_journal(run: Run, path: str, place: int) -> RankRun:
    """A rank from the last run of its journal."""
    calls = {
        step.call: RankCall(
            {name: layer.norm for name, layer in step.layers.items()}, step.averaged, step.loss, step.error
        )
        for step in run.steps
    }
    rank = place if run.rank is None else run.rank
    return RankRun(path, rank, run.ranks, calls, max(calls, default=0), (), run.script)


def compare(runs: Iterable[RankRun]) -> Across:
    """Put the ranks side by side.

    Raises:
        UsageError: there are fewer than two, or two files of one rank.
    """
    ranked = sorted(runs, key=lambda run: run.rank)
    if len(ranked) < 2:
        raise UsageError("give the files of at least two ranks, as report.rank0.json report.rank1.json")
    for one, other in pairwise(ranked):
        if one.rank == other.rank:
            raise UsageError(f"{one.path!r} and {other.path!r} are both of rank {one.rank}")
    common = sorted(set.intersection(*(set(run.calls) for run in ranked)))
    tables = [_table(ranked, call) for call in common]
    return Across(
        runs=tuple(ranked),
        tables=_shown(tables),
        differences=(*_missing(ranked, common), *_graphs(ranked, common), *_layers(ranked, tables)),
        findings=_findings(ranked),
        calls=len(common),
    )


def _call(report: Report) -> RankCall:
    """A report's leaves by layer."""
    own: dict[str, float] = {}
    averaged: dict[str, float] = {}
    for leaf in report.graph.leaves():
        layer = layer_of(leaf.label, leaf.role == "parameter")
        record: GradientRecord | None = report.gradient(leaf.id)
        if record is not None:
            own[layer] = _joined(own.get(layer, 0.0), record.norm)
        if leaf.id in report.averaged:
            averaged[layer] = _joined(averaged.get(layer, 0.0), report.averaged[leaf.id])
    root = report.graph.roots[0][0] if report.graph.roots else -1
    values = report.forward.get(root, (None,))[0]
    loss = values[0] if values is not None and len(values) == 1 else None
    names = Counter(node.name for node in report.graph.nodes)
    return RankCall(own, averaged, loss if isinstance(loss, float) else None, report.error, names)


def _joined(one: float, other: float) -> float:
    """The norm of both; nan stays nan, whatever else is infinite."""
    return one + other if one != one or other != other else hypot(one, other)


def _table(runs: Sequence[RankRun], call: int) -> Table:
    calls = [run.calls[call] for run in runs]
    layers = dict.fromkeys(layer for one in calls for layer in (*one.layers, *one.averaged))
    rows = []
    for layer in layers:
        own = tuple(one.layers.get(layer) for one in calls)
        averaged = tuple(one.averaged.get(layer) for one in calls)
        rows.append(Row(layer, own, averaged, _apart(averaged) or any(v is None for v in own) or _odd(own)))
    return Table(call, tuple(one.loss for one in calls), tuple(rows))


def _apart(values: Sequence[float | None]) -> bool:
    """Whether norms that should be one number are not."""
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        return bool(known)
    if not all(map(isfinite, known)):
        return len({repr(value) for value in known}) > 1
    return max(known) - min(known) > TOLERANCE * max(known)


def _odd(values: Sequence[float | None]) -> bool:
    """Whether some ranks, and not all, have a non-finite gradient."""
    return len({isfinite(value) for value in values if value is not None}) > 1


def _shown(tables: Sequence[Table]) -> tuple[Table, ...]:
    """The first and the last call, and the first that differs."""
    differing = [place for place, table in enumerate(tables) if any(row.differs for row in table.rows)]
    places = sorted({0, len(tables) - 1, *differing[:1]}) if tables else []
    return tuple(tables[place] for place in places)


def _missing(runs: Sequence[RankRun], common: Sequence[int]) -> Iterable[str]:
    """Ranks that are not here, and calls that not all of them made."""
    there = {run.rank for run in runs}
    absent = sorted(set(range(max(run.ranks for run in runs))) - there)
    if absent:
        yield f"{_ranks(absent)} of {max(run.ranks for run in runs)} not among the files"
    totals = {run.rank: run.total for run in runs}
    if len(set(totals.values())) > 1:
        said = ", ".join(f"{total:,} on rank {rank}" for rank, total in totals.items())
        yield f"the ranks made different numbers of backward calls: {said}"
    if not common:
        yield "no backward call was recorded on every rank"
    for run in runs:
        for number, call in run.calls.items():
            if call.error:
                yield f"rank {run.rank}: backward call {number} ended with {call.error}"
                break


def _graphs(runs: Sequence[RankRun], common: Sequence[int]) -> Iterable[str]:
    """The first call whose graphs are not made of the same nodes."""
    for number in common:
        nodes = [Counter(run.calls[number].nodes) for run in runs]
        for run, other in zip(runs[1:], nodes[1:], strict=True):
            if other == nodes[0]:
                continue
            parts = [_counted(other - nodes[0], f"more on rank {run.rank}")]
            parts.append(_counted(nodes[0] - other, f"more on rank {runs[0].rank}"))
            yield f"call {number}: the graphs differ: " + "; ".join(part for part in parts if part)
            return


def _counted(names: Counter[str], where: str) -> str:
    listed = ", ".join(f"{count} {name}" for name, count in names.most_common(LISTED))
    return f"{listed} {where}" if listed else ""


def _layers(runs: Sequence[RankRun], tables: Sequence[Table]) -> Iterable[str]:
    """What is wrong with layers, each kind told for the first call that shows it."""
    ranks = [run.rank for run in runs]
    silent: dict[tuple[int, ...], list[tuple[int, str]]] = {}
    apart: list[tuple[int, str]] = []
    broken: dict[tuple[int, ...], list[tuple[int, str]]] = {}
    unreduced = True
    for table in tables:
        for row in table.rows:
            without = tuple(rank for rank, own in zip(ranks, row.own, strict=True) if own is None)
            if 0 < len(without) < len(ranks):
                silent.setdefault(without, []).append((table.call, row.layer))
            bad = tuple(
                rank
                for rank, own in zip(ranks, row.own, strict=True)
                if own is not None and not isfinite(own)
            )
            if bad:
                broken.setdefault(bad, []).append((table.call, row.layer))
            if _apart(row.averaged):
                apart.append((table.call, row.layer))
                pairs = zip(row.own, row.averaged, strict=True)
                unreduced = unreduced and all(not _apart((own, after)) for own, after in pairs)
    for without, places in silent.items():
        yield f"{_places(places)} got no gradient on {_ranks(without)}, and one on the others"
    for bad, places in broken.items():
        yield f"{_places(places)}: the gradient is not finite on {_ranks(bad)}"
    if apart:
        why = (
            "each rank kept its own gradient. Is the model wrapped in DistributedDataParallel, and the call "
            "outside no_sync()?"
            if unreduced
            else "the ranks no longer train one model"
        )
        yield f"{_places(apart)}: .grad differs from rank to rank after the call: {why}"


def _places(places: Sequence[tuple[int, str]]) -> str:
    first = places[0][0]
    layers = [layer for call, layer in places if call == first]
    named = ", ".join(f"`{layer}`" for layer in layers[:LISTED])
    left = len(layers) - LISTED
    more = f" and {left} {'layer' if left == 1 else 'layers'} more" if left > 0 else ""
    calls = len({call for call, _ in places})
    return f"call {first}{f' (the first of {calls:,})' if calls > 1 else ''}: {named}{more}"


def _ranks(ranks: Sequence[int]) -> str:
    return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))}"


def _findings(runs: Sequence[RankRun]) -> tuple[tuple[Finding, tuple[int, ...]], ...]:
    """Each finding once, with the ranks that have it; those of every rank come first."""
    found: dict[tuple[str, str, object], tuple[Finding, list[int]]] = {}
    for run in runs:
        for finding in run.findings:
            line = None if finding.where is None else (finding.where.file, finding.where.line)
            _, ranks = found.setdefault((finding.code, finding.severity, line), (finding, []))
            if run.rank not in ranks:
                ranks.append(run.rank)
    ordered = sorted(found.values(), key=lambda item: -len(item[1]))
    return tuple((finding, tuple(ranks)) for finding, ranks in ordered)
