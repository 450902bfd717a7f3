"""Reports made by hand: nodes one by one, and numbers that look like a backward's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from explorer.graph import Edge, Graph, Node, Source, TensorSpec
from explorer.report import (
    CheckSummary,
    GradientRecord,
    NodeGradients,
    Report,
    Status,
    Verdict,
)


class Builder:
    """Writes a graph down in backward order: every node before those it sends gradients to."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.edges: list[Edge] = []
        self.arity: list[int] = []

    def add(
        self,
        name: str,
        consumers: Iterable[int | tuple[int, int]] = (),
        *,
        shape: tuple[int, ...] | None = (),
        label: str = "",
        role: str = "",
        module: str = "",
        call: int = 0,
        kind: str = "",
        line: int = 0,
        **more: object,
    ) -> int:
        """A node that takes its gradient from `consumers`, each an id or (id, source slot)."""
        number = len(self.nodes)
        leaf = name == "AccumulateGrad"
        self.nodes.append(
            Node(
                number,
                name,
                kind=kind or ("leaf" if leaf else "op"),  # type: ignore[arg-type]  # tests name it freely
                label=label,
                role=role or ("parameter" if leaf else ""),  # type: ignore[arg-type]  # tests name it freely
                module=module,
                module_call=call,
                outputs=() if shape is None else (TensorSpec(shape, "float32"),),
                source=Source("model.py", line) if line else None,
                **more,  # type: ignore[arg-type]  # passed through to Node
            )
        )
        self.arity.append(0)
        for consumer in consumers:
            source, slot = consumer if isinstance(consumer, tuple) else (consumer, self.arity[consumer])
            self.edges.append(Edge(source, slot, number, 0))
            self.arity[source] = max(self.arity[source], slot + 1)
        return number

    def op(self, name: str, *consumers: int | tuple[int, int], **more: object) -> int:
        """An operation; `name` without "Backward0"."""
        return self.add(f"{name}Backward0", consumers, **more)  # type: ignore[arg-type]  # as in add

    def leaf(self, label: str, *consumers: int | tuple[int, int], **more: object) -> int:
        """A leaf."""
        return self.add("AccumulateGrad", consumers, label=label, **more)  # type: ignore[arg-type]  # as in add

    def graph(self) -> Graph:
        """The graph, rooted at node 0."""
        return Graph(tuple(self.nodes), tuple(self.edges), ((0, 0),), tuple(self.arity))


def record(rms: float, shape: Sequence[int] = (), **more: object) -> GradientRecord:
    """A gradient of the given RMS; a scalar keeps its value."""
    numel = math.prod(shape)
    values = (rms,) if numel == 1 else None
    fields = {"zero": rms == 0, "finite": math.isfinite(rms), "values": values, **more}
    return GradientRecord(tuple(shape), "float32", abs(rms) * math.sqrt(numel), numel=numel, **fields)  # type: ignore[arg-type]  # free fields


def checked(graph: Graph, status: Status = "match") -> tuple[tuple[Verdict, ...], CheckSummary]:
    """Every node with the same verdict, all elements compared."""
    sizes = [sum(spec.numel for spec in node.outputs if spec is not None) for node in graph.nodes]
    verdicts = tuple(
        Verdict(node.id, status, "local", 0.25, amount, amount)
        for node, amount in zip(graph.nodes, sizes, strict=True)
    )
    total = len(graph.nodes)
    summary = CheckSummary(
        total, total, total - 1, {status: total}, "full", sum(sizes), sum(sizes), 0.0, 0.012
    )
    return verdicts, summary


def filled(graph: Graph, level: Callable[[Node], float], **more: object) -> Report:
    """A report whose gradients have the RMS that `level` gives each node."""
    verdicts, check = checked(graph)
    levels = [level(node) for node in graph.nodes]
    shapes = [node.outputs[0].shape if node.outputs and node.outputs[0] else () for node in graph.nodes]
    fields: dict[str, object] = {
        "graph": graph,
        "gradients": tuple(
            NodeGradients((record(rms, shape),), 2e-5, place)
            for place, (rms, shape) in enumerate(zip(levels, shapes, strict=True))
        ),
        "edge_gradients": tuple(record(levels[edge.target], shapes[edge.target]) for edge in graph.edges),
        "verdicts": verdicts,
        "check": check,
        "torch": "2.13.0",
        **more,
    }
    return Report(**fields)  # type: ignore[arg-type]  # fields of Report


def wave(node: Node) -> float:
    """RMS levels over four decades that do not repeat with the structure."""
    return float(10 ** (-3 + 1.5 * math.sin(0.37 * node.id)))
