"""`vanishing-gradient`, `exploding-gradient`: the gradient's size from layer to layer, or step to step."""

from __future__ import annotations

from collections import Counter
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
_SMALLER = "Initialise with a smaller gain, normalise, or clip with clip_grad_norm_."
_FEWER = (
    "Initialise the recurrent matrix orthogonally or smaller, clip with clip_grad_norm_, "
    "backpropagate through fewer steps, or use an LSTM or GRU."
)
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
    """RMS at the first layer / at the last > `EXPLODED`, and a median factor per layer > `GROWING`.

    The same from use to use of one matrix, as a recurrent network has it from step to step. (There the
    gradient of a healthy network may well shrink: what was long ago matters less.)
    """
    for flow, advice in ((_flow(report), _SMALLER), (_recurrence(report), _FEWER)):
        if flow is not None and flow.explodes:
            yield flow.finding("exploding-gradient", "grows", flow.factors.index(max(flow.factors)), advice)


@dataclass(frozen=True, slots=True)
class _Flow:
    """The layers from the loss on, and by which factor the gradient's RMS changes into each next one.

    `matrix` names the parameter whose uses they are; "" where each has its own.
    """

    layers: list[_Layer]
    factors: list[float]
    matrix: str = ""

    @classmethod
    def along(cls, layers: list[_Layer], matrix: str = "") -> _Flow | None:
        """The flow through `layers`; None through too few."""
        if len(layers) < LAYERS:
            return None
        return cls(layers, [deep.rms / shallow.rms for shallow, deep in pairwise(layers)], matrix)

    @property
    def explodes(self) -> bool:
        """Whether it grows much, and steadily."""
        return self.ratio > EXPLODED and self.mean > GROWING and self.typical > GROWING

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
        count = len(self.layers)
        if self.matrix:
            steps = f"x{self.mean:.2g} a step, {self.ratio:.1g} over {count} uses of `{self.matrix}`"
        else:
            into = worst.module or worst.label or worst.name
            steps = (
                f"x{self.mean:.2g} a layer, {self.ratio:.1g} over all {count} layers; steepest into `{into}`"
            )
        return Finding(
            code=code,
            severity="warning",
            message=f"The gradient {verb} {steps}.",
            advice=advice,
            node=worst.id,
            where=worst.source,
            nodes=tuple(layer.node.id for layer in self.layers),
        )


def _flow(report: Report) -> _Flow | None:
    """The flow through the layers: the nodes that take a matrix of parameters which no other node takes."""
    alone = (takers for takers in _takers(report.graph).values() if len(takers) == 1)
    return _Flow.along(_layers(report, {node for takers in alone for node in takers}))


def _recurrence(report: Report) -> _Flow | None:
    """The flow through the uses of one matrix, of which each works on what came of the one before."""
    user_of = {
        node: leaf
        for leaf, takers in _takers(report.graph).items()
        if len(takers) >= LAYERS
        for node in takers
    }
    layers = _layers(report, set(user_of))
    matrices = Counter(user_of[layer.node.id] for layer in layers)
    if not matrices:
        return None
    matrix, _ = matrices.most_common(1)[0]
    uses = [layer for layer in layers if user_of[layer.node.id] == matrix]
    return _Flow.along(uses, report.graph.nodes[matrix].label)


def _layers(report: Report, weighted: set[int]) -> list[_Layer]:
    """Those of `weighted` that most of the gradient of the deepest one came through, the model's last first.

    Where a value has several consumers, the one that sent the largest contribution counts: a gradient that
    is small in a side branch (an attention's keys) has not vanished while it arrives by another. A
    normalisation divides the gradient by the spread of what enters, so sizes before and after it do not
    compare: the longest stretch without one is taken. A gradient of 0, NaN or Inf ends the judgement.
    """
    graph = report.graph
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


def _takers(graph: Graph) -> dict[int, set[int]]:
    """Per parameter of at least two dimensions, the nodes that take it, transposed or not."""
    found: dict[int, set[int]] = {}
    for leaf in graph.leaves():
        spec = leaf.outputs[0] if leaf.outputs else None
        if spec is None or len(spec.shape) < 2 or (leaf.role == "input" and not leaf.label):
            continue
        takers: set[int] = set()
        waiting = [graph.edges[edge].source for edge in graph.incoming[leaf.id]]
        while waiting:
            node = waiting.pop()
            if graph.nodes[node].name in _THROUGH:
                waiting += [graph.edges[edge].source for edge in graph.incoming[node]]
            else:
                takers.add(node)
        found[leaf.id] = takers
    return found
