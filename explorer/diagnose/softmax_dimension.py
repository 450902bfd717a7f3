"""`softmax-dimension`: a softmax runs along another dimension than the one its loss takes for the classes."""

from __future__ import annotations

from collections.abc import Iterator

from explorer.diagnose.registry import diagnosis
from explorer.diagnose.softmaxes import dimension, input_of, line
from explorer.evidence import Evidence
from explorer.graph import Graph, Node
from explorer.report import Finding, Report

_LOSSES = ("NllLossBackward0", "NllLoss2DBackward0")
_SOFTMAXES = ("SoftmaxBackward0", "LogSoftmaxBackward0")
_BETWEEN = frozenset(
    {"LogBackward0", "AddBackward0", "ClampBackward1", "ClampMinBackward0"}
    | {"CloneBackward0", "ToCopyBackward0"}
)
"""What may lie between the two: the logarithm, and before it a small constant added, or the least value."""


@diagnosis("softmax-dimension")
def softmax_dimension(report: Report, evidence: Evidence) -> Iterator[Finding]:
    """nll_loss over a softmax or log_softmax that ran along another dimension than the classes'.

    ``torch.nn.functional.nll_loss`` takes the classes along dimension 1, of a single sample along 0. Where
    both dimensions are of one size nothing is said: pairs of two kinds are judged both ways on purpose.
    """
    graph = report.graph
    told: set[int] = set()
    for node in graph.nodes:
        first = _softmax(graph, node) if node.name in _LOSSES else None
        along = dimension(first) if first is not None else None
        if first is None or along is None:
            continue
        at, shape = along
        classes = min(1, len(shape) - 1)
        if at == classes or shape[at] == shape[classes] or line(first) in told:
            continue
        told.add(line(first))
        over = f"the {shape[at]} samples" if at == 0 else f"dimension {at}"
        sizes = ", ".join(map(str, shape))
        yield Finding(
            code="softmax-dimension",
            severity="warning",
            message=f"The softmax before `nll_loss` runs over {over} ([{sizes}], dim={at}); "
            f"the loss takes the {shape[classes]} classes along dimension {classes}.",
            advice=f"Give the softmax `dim={classes}`, or leave it out and use cross_entropy.",
            node=first.id,
            where=first.source,
            nodes=(node.id, first.id),
        )


def _softmax(graph: Graph, loss: Node) -> Node | None:
    """The softmax whose result, or its logarithm, `loss` was given; None where more lies between."""
    found = input_of(graph, loss)
    while found is not None and found.name in _BETWEEN:
        if len(graph.outgoing[found.id]) > 1:  # a sum of two
            return None
        below = input_of(graph, found)
        if below is None or below.outputs[:1] != found.outputs[:1]:
            return None
        found = below
    return found if found is not None and found.name in _SOFTMAXES else None
