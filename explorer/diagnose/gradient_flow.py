"""`vanishing-gradient` and `exploding-gradient`: how the gradient's size changes from layer to layer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from explorer.diagnose.registry import diagnosis
from explorer.evidence import Evidence
from explorer.graph import Graph, Node
from explorer.report import Finding, Report

VANISHED, SHRINKING = 1e-4, 0.6
"""First layer / last layer, and the factor per layer: sigmoid-20 has 3e-18 and 0.13, tanh 0.85."""
EXPLODED, GROWING = 1e3, 1.5
"""The same for growth: gain 3 has 1.5e9 and 2.87; Kaiming 0.91."""
LAYERS = 4
"""Fewer layers with parameters of their own are not judged."""
_NORMALISED = ("BatchNorm", "LayerNorm", "GroupNorm", "RmsNorm")
"""In the names of nodes that divide by the spread of what enters, and so the gradient as well."""
_THROUGH = frozenset(
    {"TBackward0", "TransposeBackward0", "PermuteBackward0", "ViewBackward0", "ToCopyBackward0"}
)


@dataclass(frozen=True, slots=True)
class _Layer:
    node: Node
    rms: float


@diagnosis("vanishing-gradient")
def vanishing_gradient(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """RMS at the first layer / at the last < `VANISHED`, and a median factor per layer < `SHRINKING`."""
    flow = _flow(report)
    if flow is not None and flow.ratio < VANISHED and flow.mean < SHRINKING and flow.typical < SHRINKING:
        yield flow.finding(
            "vanishing-gradient",
            "shrinks",
            flow.factors.index(min(flow.factors)),
            "Use ReLU or GELU with Kaiming initialisation, residual connections or normalisation.",
        )


@diagnosis("exploding-gradient")
def exploding_gradient(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """RMS at the first layer / at the last > `EXPLODED`, and a median factor per layer > `GROWING`."""
    flow = _flow(report)
    if flow is not None and flow.ratio > EXPLODED and flow.mean > GROWING and flow.typical > GROWING:
        yield flow.finding(
            "exploding-gradient",
            "grows",
            flow.factors.index(max(flow.factors)),
            "Initialise with a smaller gain, normalise, or clip with clip_grad_norm_.",
        )


@dataclass(frozen=True, slots=True)
class _Flow:
    """The layers from the loss on, and by which factor the gradient's RMS changes into each next one."""

    layers: list[_Layer]
    factors: list[float]

    @property
    def ratio(self) -> float:
        """RMS at the model's first layer / at its last."""
        return self.layers[-1].rms / self.layers[0].rms

    @property
    def mean(self) -> float:
        """The geometric mean of the factors."""
        return float(self.ratio ** (1 / len(self.factors)))

    @property
    def typical(self) -> float:
        """The median factor: one pooling step does not move it."""
        return median(self.factors)

    def finding(self, code: str, verb: str, steepest: int, advice: str) -> Finding:
        """The finding `code`; `steepest` is the index of the factor that stands out."""
        worst = self.layers[steepest + 1].node
        return Finding(
            code=code,
            severity="warning",
            message=f"The gradient {verb} x{self.mean:.2g} a layer, {self.ratio:.1g} over all "
            f"{len(self.layers)} layers; steepest into `{worst.module or worst.label or worst.name}`.",
            advice=advice,
            node=worst.id,
            where=worst.source,
            nodes=tuple(layer.node.id for layer in self.layers),
        )


def _flow(report: Report) -> _Flow | None:
    layers = _layers(report)
    if len(layers) < LAYERS:
        return None
    return _Flow(layers, [deep.rms / shallow.rms for shallow, deep in pairwise(layers)])


def _layers(report: Report) -> list[_Layer]:
    """The layers that most of the gradient of the deepest one came through, last layer of the model first.

    A layer is the node that takes a matrix of parameters which no other node takes (recurrent weights
    are left out: shrinking over time is another matter). Where a value has several consumers, the one that
    sent the largest contribution counts: a gradient that is small in a side branch (an attention's keys)
    has not vanished while it arrives by another. A normalisation divides the gradient by the spread of
    what enters, so sizes before and after it do not compare: the longest stretch without one is taken.
    A gradient of 0, NaN or Inf ends the judgement.
    """
    graph = report.graph
    weighted = _weighted(graph)
    if len(weighted) < LAYERS:
        return []
    depth: dict[int, int] = {}
    for number in graph.order:
        above = [depth[graph.edges[edge].source] for edge in graph.incoming[number]]
        depth[number] = max(above, default=0) + (number in weighted)
    at = max(weighted, key=lambda number: depth[number], default=None)
    stretches: list[list[_Layer]] = [[]]
    while at is not None:
        if any(name in graph.nodes[at].name for name in _NORMALISED):
            stretches.append([])
        if at in weighted:
            record = report.gradient(at)
            if record is None or not record.finite or record.rms == 0:
                return []
            stretches[-1].append(_Layer(graph.nodes[at], record.rms))
        at = _most_from(report, at)
    return max(stretches, key=len)[::-1]


def _most_from(report: Report, number: int) -> int | None:
    """The consumer that sent node `number` the most, None for a root; the first where that is not known."""
    incoming = report.graph.incoming[number]
    sent = {edge: report.edge_gradients[edge] for edge in incoming}
    known = {edge: record.norm for edge, record in sent.items() if record is not None and record.finite}
    edge = max(known or incoming, key=lambda edge: known.get(edge, 0.0), default=None)
    return None if edge is None else report.graph.edges[edge].source


def _weighted(graph: Graph) -> set[int]:
    """The nodes that take a parameter of at least two dimensions which nobody else takes."""
    found: set[int] = set()
    for leaf in graph.leaves():
        spec = leaf.outputs[0] if leaf.outputs else None
        if spec is None or len(spec.shape) < 2 or (leaf.role == "input" and not leaf.label):
            continue
        takers = {graph.edges[edge].source for edge in graph.incoming[leaf.id]}
        while len(takers) == 1 and graph.nodes[next(iter(takers))].name in _THROUGH:
            takers = {graph.edges[edge].source for edge in graph.incoming[next(iter(takers))]}
        if len(takers) == 1:
            found |= takers
    return found
