"""What an exploration found: plain, frozen data that every renderer reads.

`Report` = `Graph` + gradients + verdicts + findings of one backward call. `Session` = the reports
of one script, with what was looked at in common.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from math import sqrt
from os import PathLike
from typing import Literal

from explorer.graph import Graph, Source

Status = Literal[
    "match",
    "loose",
    "low-precision accumulation",
    "mismatch",
    "overflow",
    "nan-mismatch",
    "unchecked",
]
STATUSES: tuple[Status, ...] = (
    "match",
    "loose",
    "low-precision accumulation",
    "mismatch",
    "overflow",
    "nan-mismatch",
    "unchecked",
)
BAD_STATUSES: frozenset[Status] = frozenset({"mismatch", "nan-mismatch"})
Severity = Literal["error", "warning", "info"]
CheckMode = Literal["sample", "full", "off"]
EndToEnd = Literal["full", "induction", "off"]
Number = float | complex

SMALL = 64
"""Gradients (and forward values) of at most this many elements are kept whole."""


@dataclass(frozen=True, slots=True)
class GradientRecord:
    """One gradient as it flowed.

    `norm` is the 2-norm of all elements (nan or inf as they fall); `values` the flat elements in
    row-major order where there are at most `SMALL`, else None. `nans` and `infs` count elements: both are
    0 when `finite`, and where nobody counted (a large gradient on a device). `zero`: every element is
    exactly 0 (False for an empty tensor).
    """

    shape: tuple[int, ...]
    dtype: str
    norm: float
    finite: bool = True
    zero: bool = False
    nans: int = 0
    infs: int = 0
    numel: int = 1
    values: tuple[Number, ...] | None = None

    @property
    def rms(self) -> float:
        """Root mean square of the elements: norm / sqrt(numel); 0 for an empty tensor."""
        return self.norm / sqrt(self.numel) if self.numel else 0.0


@dataclass(frozen=True, slots=True)
class Element:
    """One element of a gradient worked out in numbers.

    `place` is its index, `text` the arithmetic ("1×10 + 3×22"), `value` what torch sent. `computed` is what
    the arithmetic gives in float64, spelled only where that differs from `value`.
    """

    place: tuple[int, ...]
    text: str
    value: float
    computed: str = ""

    def __str__(self) -> str:
        result = f"{self.computed}; torch sent {self.value:.4g}" if self.computed else f"{self.value:.4g}"
        return f"element {list(self.place)}: {self.text} = {result}"


@dataclass(frozen=True, slots=True)
class Share:
    """What one path brings to a tensor: its `edges`, the 2-norm, and its share of the whole gradient.

    The share is the length of what it brings in the direction of the gradient, over the gradient's own
    length, so that the shares of all paths add up to 1.
    """

    edges: tuple[int, ...]
    norm: float
    share: float


@dataclass(frozen=True, slots=True)
class Shares:
    """What the paths to node `target` bring, the largest first, and the `norm` of all of them together.

    `complete`: every path is listed. `problem` says why nothing was measured.
    """

    target: int
    listed: tuple[Share, ...] = ()
    norm: float | None = None
    complete: bool = False
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    """One derivative, known in up to four ways; None where that way was not taken."""

    name: str
    by_hand: float | None = None
    pytorch: float | None = None
    engine: float | None = None
    numeric: float | None = None


@dataclass(frozen=True, slots=True)
class Quotients:
    """Numeric gradients beside the others: `rows` for a few elements of every leaf, and `notes` on them.

    `problem` says why there are none.
    """

    rows: tuple[Row, ...] = ()
    notes: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class NodeGradients:
    """What one node did while backward ran.

    `received[k]` is the total gradient for forward output k (summed over all consumers, after the
    user's tensor hooks), None where none came. `seconds` is the time of the node's own formula;
    with ``check="off"``, and above 100,000 nodes, all since the node before it.
    `index` is its place in the order of execution. `unread` is how many of the gradients that came had no
    data (meta and fake tensors) or could not be read (a problem says why): they are None in `received` too.
    """

    received: tuple[GradientRecord | None, ...]
    seconds: float = 0.0
    index: int = 0
    unread: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the independent check says of one node.

    `ratio` is the largest |torch - engine| / error bound seen (at most 1 for a match);
    `elements` were compared, `of` exist. `reason` names the check (local, junction, end to end),
    the worst place and both values when something is wrong, or why nothing was checked.
    """

    node: int
    status: Status
    reason: str = ""
    ratio: float | None = None
    elements: int = 0
    of: int = 0


@dataclass(frozen=True, slots=True)
class Consistency:
    """How far saved values were held against the forward: `nodes` were looked at, `compared` values kept.

    `nodes` counts those whose saved values were read and, where something tells them, computed again; of a
    large graph they are a sample. `compared` counts the outputs that could be computed again.
    """

    nodes: int = 0
    compared: int = 0


@dataclass(frozen=True, slots=True)
class CheckSummary:
    """Totals of the check over one report.

    `checked` nodes have a verdict other than "unchecked". `junctions` were summed over their
    consumers. `wrong_share` bounds, with 95 % confidence, the share of gradient elements that
    could be wrong unseen (0 when all were compared); None when nothing was compared. `consistency` is None
    where saved values were not looked at.
    """

    nodes: int = 0
    checked: int = 0
    junctions: int = 0
    statuses: Mapping[Status, int] = field(default_factory=dict)
    end_to_end: EndToEnd = "off"
    elements: int = 0
    of: int = 0
    wrong_share: float | None = None
    seconds: float = 0.0
    consistency: Consistency | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnosis: a sentence with numbers, where, and advice that can be followed."""

    code: str
    severity: Severity
    message: str
    advice: str = ""
    node: int | None = None
    where: Source | None = None
    nodes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Report:
    """Everything known about one backward call.

    `gradients[i]` belongs to ``graph.nodes[i]`` and is None if the node did not run;
    `edge_gradients[j]` is what ``graph.edges[j]`` carried (None: nothing, or not recorded).
    `forward[i]` holds the forward values of node i's outputs, flat, where they are small and known.
    `call` counts backward calls from 1; it is 0 when no backward was called. `error` is the message
    of the exception that ended this backward, if one did, and `failed` the node it was in.
    `problems` says which part of the exploration itself is missing, and why.
    `looked_for` lists the codes of the findings that were looked for. `elements[j]` works out one element
    of what ``graph.edges[j]`` carried, where its numbers could be read. `averaged` holds, in a distributed
    job, the 2-norm of the ``.grad`` of each leaf (by node) after the call, when the ranks have averaged it.
    `shares` says what each path to one node brings, and `quotients` holds the gradients four ways, where that
    was asked for.
    """

    graph: Graph
    gradients: tuple[NodeGradients | None, ...] = ()
    edge_gradients: tuple[GradientRecord | None, ...] = ()
    forward: Mapping[int, tuple[tuple[Number, ...] | None, ...]] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] = ()
    check: CheckSummary = CheckSummary()
    findings: tuple[Finding, ...] = ()
    call: int = 1
    where: Source | None = None
    root_name: str = "loss"
    seconds: float | None = None
    error: str = ""
    failed: int | None = None
    problems: tuple[str, ...] = ()
    looked_for: tuple[str, ...] = ()
    script: str = ""
    torch: str = ""
    elements: Mapping[int, Element] = field(default_factory=dict)
    averaged: Mapping[int, float] = field(default_factory=dict)
    shares: Shares | None = None
    quotients: Quotients | None = None

    def gradient(self, node: int, slot: int = 0) -> GradientRecord | None:
        """The total gradient node `node` received for its output `slot`, None if none came."""
        record = self.gradients[node] if node < len(self.gradients) else None
        if record is None or slot >= len(record.received):
            return None
        return record.received[slot]

    @property
    def wrong(self) -> bool:
        """Whether a gradient mismatches or a finding is an error (what ``--strict`` asks)."""
        return any(self.check.statuses.get(status) for status in BAD_STATUSES) or any(
            finding.severity == "error" for finding in self.findings
        )

    def verdict(self, node: int) -> Verdict | None:
        """The verdict on node `node`, None when the check was off or did not reach it."""
        return self.verdicts[node] if node < len(self.verdicts) else None

    # The renderers read this module; these methods are doors to them and hold no logic.

    def save(
        self,
        path: str | PathLike[str],
        *,
        depth: int | None = None,
        full: bool = False,
        focus: str | None = None,
    ) -> tuple[str, ...]:
        """Write the report; the suffix decides: .svg .png .pdf .dot .html .json .txt .mmd .graphml, or
        .modelexplorer.json.

        Args:
            depth: the module depth to unfold in drawings; chosen for legibility by default.
            full: draw every node.
            focus: draw only this name, module or node id with its neighbours, or the paths "A..B".

        Returns:
            The paths written.

        Raises:
            UsageError: nothing can be written under that suffix.
            LayoutError: the picture could not be laid out.
        """
        from explorer import render

        return tuple(map(str, render.save(self, path, depth=depth, full=full, focus=focus)))

    def to_json(self) -> str:
        """The report as JSON text, version 1 of the contract."""
        from explorer.render import json

        return json.dumps(self)

    def explain(self, width: int = 80) -> str:
        """The backward told step by step, a line of arithmetic each, as text of `width` columns."""
        from explorer import narrative

        return narrative.explain(self, width)

    def show(self) -> object:
        """The interactive page, for the last line of a notebook cell."""
        from explorer.render import notebook

        return notebook.Interactive(self)

    def __str__(self) -> str:
        from explorer.render import text

        return text.text(self)

    def _repr_mimebundle_(
        self, include: Container[str] | None = None, exclude: Container[str] | None = None
    ) -> dict[str, object]:
        """How a notebook shows the report: text, SVG and PNG."""
        from explorer.render import notebook

        return notebook.bundle(self)


@dataclass(frozen=True)
class Session:
    """All reports of one script (or watch), in the order of the backward calls.

    `rank` of `ranks` processes made them; None in a job of one.
    """

    reports: tuple[Report, ...]
    script: str = ""
    torch: str = ""
    calls: int = 0
    rank: int | None = None
    ranks: int = 1
