"""What a shape says about the gradients of its members: read off the report, never computed anew."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import hypot, isfinite, log10, sqrt
from statistics import median

from explorer.graph import Graph
from explorer.render import theme, words
from explorer.render.drawing import Shape
from explorer.report import BAD_STATUSES, Finding, GradientRecord, Report, Verdict


@dataclass(frozen=True, slots=True)
class Mark:
    """The state of one shape.

    `low` and `high` bound the RMS of its members' gradients (None: nothing finite flowed), `least` is the
    smallest that is not 0. `state`:
    "flow", "hazard" (NaN or Inf; `nans` and `infs` are 0 where nobody counted), "zero" (all exactly),
    "none" (no gradient came), "unreached" (never ran), or "" (nothing was recorded). `worst` is the worst
    verdict, `findings` are the members'. `unread`: gradients did come, but without data (meta tensors).
    """

    state: str
    low: float | None = None
    high: float | None = None
    nans: int = 0
    infs: int = 0
    numel: int = 0
    worst: Verdict | None = None
    findings: tuple[Finding, ...] = ()
    least: float | None = None
    unread: bool = False

    @property
    def wrong(self) -> bool:
        """True if the check disagrees with a member."""
        return self.worst is not None and self.worst.status in BAD_STATUSES

    def words(self) -> str:
        """The gradient in a few words: "1.5e−2", "NaN × 3 of 16", "0 (exact)", "not reached"."""
        if self.state == "hazard":
            parts = [
                f"{name} × {words.count(n)}" for name, n in (("NaN", self.nans), ("Inf", self.infs)) if n
            ]
            return f"{' + '.join(parts)} of {words.count(self.numel)}" if parts else "NaN or Inf"
        if self.state == "zero":
            return theme.ZERO
        if self.state == "none":
            return theme.NO_DATA if self.unread else theme.NO_GRADIENT
        if self.state == "unreached":
            return theme.NOT_REACHED
        if self.low is None or self.high is None:
            return ""
        least, most = words.scientific(self.low), words.scientific(self.high)
        return least if least == most else f"{least} … {most}"


_SEVERITY = {"error": 0, "warning": 1, "info": 2}
_BADNESS = {
    "match": 0,
    "loose": 1,
    "low-precision accumulation": 2,
    "unchecked": 3,
    "overflow": 4,
    "nan-mismatch": 5,
    "mismatch": 6,
}


@dataclass(frozen=True)
class Scale:
    """What all marks of one drawing share: the centre of the colours and the span of the widths."""

    centre: float | None
    least: float
    most: float

    def level(self, rms: float) -> int:
        """The class of `rms`, 0 to 6: the decades from the centre, rounded; 3 is the centre."""
        if self.centre is None or not isfinite(rms) or rms <= 0:
            return theme.CENTRE
        return max(0, min(6, theme.CENTRE + round(log10(rms) - log10(self.centre))))

    def width(self, rms: float) -> float:
        """Pen width of a wire that carries `rms`, by its logarithm between the least and the most."""
        if not isfinite(rms):
            return theme.WIDTH_MOST
        if rms <= 0 or self.least >= self.most:
            return theme.WIDTH_LEAST if rms <= 0 else 1.4
        share = (log10(rms) - log10(self.least)) / (log10(self.most) - log10(self.least))
        return theme.WIDTH_LEAST + (theme.WIDTH_MOST - theme.WIDTH_LEAST) * max(0.0, min(1.0, share))


def scale(report: Report) -> Scale:
    """The scale of one report: median RMS of its nodes, least and most RMS of its wires."""
    flowing = [rms for rms in (node_rms(report, node.id) for node in report.graph.nodes) if _flows(rms)]
    edges = [record.rms for record in report.edge_gradients if record is not None and _flows(record.rms)]
    edges = edges or [rms for rms in flowing if rms is not None]
    centre = median(rms for rms in flowing if rms is not None) if flowing else None
    return Scale(centre, min(edges, default=0.0), max(edges, default=0.0))


def _flows(rms: float | None) -> bool:
    return rms is not None and isfinite(rms) and rms > 0


def node_rms(report: Report, node: int) -> float | None:
    """RMS of all gradients node `node` received, over its outputs together; None if none came."""
    return rms_of(received(report, node))


def rms_of(records: Sequence[GradientRecord]) -> float | None:
    """RMS of several gradients together; None of none."""
    if len(records) == 1:  # as nearly always; a graph may have a million of them
        return records[0].rms
    numel = sum(record.numel for record in records)
    if not records:
        return None
    return hypot(*(record.norm for record in records)) / sqrt(numel) if numel else 0.0


def received(report: Report, node: int) -> tuple[GradientRecord, ...]:
    """The gradients node `node` received, without the slots that got none."""
    ran = report.gradients[node] if node < len(report.gradients) else None
    if ran is None:
        return ()
    return tuple([record for record in ran.received if record is not None])


def cast(graph: Graph, node: int) -> tuple[str, str] | None:
    """The dtypes before and after an operation that changes them, where both are known."""
    after = ""
    for spec in graph.nodes[node].outputs:
        if spec is not None:
            if after and spec.dtype != after:
                return None
            after = spec.dtype
    if not after:
        return None
    for index in graph.outgoing[node]:
        edge = graph.edges[index]
        specs = graph.nodes[edge.target].outputs
        before = specs[edge.target_slot] if edge.target_slot < len(specs) else None
        if before is not None and before.dtype != after:
            return before.dtype, after
    return None


def changes(graph: Graph, shape: Shape) -> str:
    """The dtype changes in a shape, in a few words: "float32 → bfloat16", "6 dtype changes", ""."""
    found = [cast(graph, node) for node in (*shape.members, *shape.hidden)]
    known = [change for change in found if change is not None]
    if len(set(known)) == 1:
        before, after = known[0]
        return f"{before} {theme.CAST} {after}{words.times(len(known))}"
    return words.count(len(known), "dtype change") if known else ""


def hooks(graph: Graph, shape: Shape) -> tuple[str, ...]:
    """The user's hooks on the nodes of a shape, those on leaves drawn inside it among them."""
    return tuple(
        hook.replace(".<locals>", "")
        for node in (*shape.members, *shape.inside, *shape.hidden)
        for hook in graph.nodes[node].hooks
    )


def findings_by_node(report: Report) -> dict[int, tuple[Finding, ...]]:
    """Every finding under each node it names, errors first."""
    found: dict[int, list[Finding]] = {}
    for finding in sorted(report.findings, key=lambda finding: _SEVERITY[finding.severity]):
        named = dict.fromkeys((*((finding.node,) if finding.node is not None else ()), *finding.nodes))
        for node in named:
            found.setdefault(node, []).append(finding)
    return {node: tuple(items) for node, items in found.items()}


def mark(report: Report, shape: Shape, findings: dict[int, tuple[Finding, ...]]) -> Mark:
    """The mark of one shape, from its members; from the leaves inside too where they are worse."""
    return _mark(report, shape.members, (*shape.inside, *shape.hidden), findings)


def mark_of_nodes(report: Report, nodes: tuple[int, ...], findings: dict[int, tuple[Finding, ...]]) -> Mark:
    """The mark of some nodes by themselves."""
    return _mark(report, nodes, (), findings)


def _mark(
    report: Report, shown: tuple[int, ...], beside: tuple[int, ...], findings: dict[int, tuple[Finding, ...]]
) -> Mark:
    """The mark of the nodes `shown`, judged with those that are drawn in them; there may be a million."""
    judged = (*shown, *beside)
    worst = max(
        (
            verdict
            for verdict in map(report.verdict, judged if report.verdicts else ())
            if verdict is not None
        ),
        key=lambda verdict: _BADNESS[verdict.status],
        default=None,
    )
    listed = (finding for node in judged for finding in findings.get(node, ())) if findings else ()
    said = tuple(dict.fromkeys(listed))
    if not report.gradients:
        return Mark("", worst=worst, findings=said)
    own = [received(report, node) for node in shown]
    every = chain(chain.from_iterable(own), (record for node in beside for record in received(report, node)))
    broken = [record for record in every if not record.finite]
    if broken:
        counted = all(record.nans or record.infs for record in broken)
        nans, infs = (
            (sum(record.nans for record in broken), sum(record.infs for record in broken))
            if counted
            else (0, 0)
        )
        total = sum(record.numel for record in broken)
        return Mark("hazard", nans=nans, infs=infs, numel=total, worst=worst, findings=said)
    levels = [rms for rms in map(rms_of, own) if rms is not None]
    if not levels:
        ran = [one for node in shown if node < len(report.gradients) and (one := report.gradients[node])]
        unread = any(one.unread for one in ran)
        return Mark("none" if ran else "unreached", worst=worst, findings=said, unread=unread)
    if all(record.zero for records in own for record in records):
        return Mark("zero", 0.0, 0.0, worst=worst, findings=said)
    least = min((level for level in levels if level > 0), default=None)
    return Mark("flow", min(levels), max(levels), worst=worst, findings=said, least=least)
