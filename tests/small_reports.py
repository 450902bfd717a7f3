"""Small reports: one built from live torch by the shortest means, for tests of the stages that read reports.

Nothing here uses the explorer's own walk or hooks, so that what is tested meets an independent witness.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch

from explorer.graph import Edge, Graph, Node, Saved, TensorSpec
from explorer.report import GradientRecord, NodeGradients, Number, Report

Flat = tuple[Number, ...]


def record(tensor: torch.Tensor | None) -> GradientRecord | None:
    """The record of one gradient, with all its values."""
    if tensor is None:
        return None
    values = tuple(tensor.detach().flatten().tolist())
    norm = float(sum(abs(value) ** 2 for value in values) ** 0.5)
    return GradientRecord(tuple(tensor.shape), _dtype(tensor.dtype), norm, numel=len(values), values=values)


def report_of(
    loss: torch.Tensor, gradient: torch.Tensor | None = None, **leaves: torch.Tensor
) -> tuple[Report, dict[tuple[int, str], Flat]]:
    """The report of one backward from `loss`, and the values of its saved tensors.

    Leaves are named by keyword; their values are the only forward values recorded.
    """
    nodes, numbers = _nodes(loss)
    names = {leaf: name for name, leaf in leaves.items()}
    received: dict[int, NodeGradients] = {}
    sent: dict[tuple[int, int], torch.Tensor] = {}
    saved = _saved(nodes)
    forward: dict[int, tuple[Flat | None, ...]] = {}
    described: list[Node] = []
    for number, node in enumerate(nodes):
        leaf = getattr(node, "variable", None)
        label = names.get(leaf, "") if leaf is not None else ""
        if leaf is not None:
            forward[number] = (tuple(leaf.detach().flatten().tolist()),)
        described.append(
            Node(
                number,
                node.name().rsplit("::", 1)[-1],
                "op" if leaf is None else "leaf",
                label or node.name().split("Backward")[0],
                (label,) if label else (),
                outputs=tuple(
                    TensorSpec(tuple(meta.shape), _dtype(meta.dtype)) for meta in node._input_metadata
                ),
                saved=tuple(
                    Saved(name, TensorSpec(tuple(value.shape), _dtype(value.dtype)))
                    if isinstance(value, torch.Tensor)
                    else Saved(name, text=str(value))
                    for name, value in _settings(node).items()
                ),
            )
        )  # fmt: skip
    handles = []
    for number, node in enumerate(nodes):

        def before(grads, number=number):  # type: ignore[no-untyped-def]  # torch's hook, typed by torch
            received[number] = NodeGradients(tuple(map(record, grads)), index=len(received))

        def after(grads, _outer, number=number):  # type: ignore[no-untyped-def]  # the same
            sent.update({(number, slot): grad for slot, grad in enumerate(grads) if grad is not None})

        handles += [node.register_prehook(before), node.register_hook(after)]
    try:
        loss.backward(gradient, retain_graph=True)
    finally:
        for handle in handles:
            handle.remove()
    edges = tuple(
        Edge(number, slot, numbers[target], target_slot)
        for number, node in enumerate(nodes)
        for slot, (target, target_slot) in enumerate(node.next_functions)
        if target is not None
    )
    assert loss.grad_fn is not None
    graph = Graph(
        tuple(described),
        edges,
        ((numbers[loss.grad_fn], loss.output_nr),),
        tuple(len(node.next_functions) for node in nodes),
    )
    report = Report(
        graph,
        tuple(received.get(number) for number in range(len(nodes))),
        tuple(record(sent.get((edge.source, edge.source_slot))) for edge in edges),
        forward,
    )
    return report, saved


def hand_made(
    names: Mapping[int, str],
    edges: tuple[tuple[int, int, int, int], ...],
    labels: Mapping[int, str],
    gradients: Mapping[int, float],
    forward: Mapping[int, float] = {},
    saved: Mapping[int, tuple[Saved, ...]] = {},
) -> Report:
    """A scalar float64 report written by hand: node names, edges, labels, gradients and forward values."""
    spec = (TensorSpec((), "float64"),)
    nodes = tuple(
        Node(
            number,
            name,
            "leaf" if name == "AccumulateGrad" else "op",
            labels.get(number, name.split("Backward")[0]),
            (labels[number],) if number in labels else (),
            outputs=spec,
            saved=saved.get(number, ()),
        )
        for number, name in names.items()
    )
    graph = Graph(nodes, tuple(Edge(*edge) for edge in edges), ((0, 0),))
    arity = tuple(
        max((edge.source_slot + 1 for edge in graph.edges if edge.source == n), default=0) for n in names
    )
    return Report(
        replace(graph, arity=arity),
        tuple(
            NodeGradients((scalar(gradients[number]),), index=number) if number in gradients else None
            for number in names
        ),
        forward={number: ((value,),) for number, value in forward.items()},
    )  # fmt: skip


def scalar(number: float) -> GradientRecord:
    """The record of one float64 number."""
    return GradientRecord((), "float64", abs(number), zero=number == 0, values=(number,))


def _nodes(loss: torch.Tensor) -> tuple[list[torch.autograd.graph.Node], dict[object, int]]:
    """Every node of the graph, breadth first, and the number of each."""
    assert loss.grad_fn is not None
    nodes = [loss.grad_fn]
    numbers: dict[object, int] = {loss.grad_fn: 0}
    for node in nodes:
        for target, _ in node.next_functions:
            if target is not None and target not in numbers:
                numbers[target] = len(nodes)
                nodes.append(target)
    return nodes, numbers


def _settings(node: torch.autograd.graph.Node) -> dict[str, object]:
    """The saved values, tensors among them."""
    found = {}
    for name in dir(node):
        if name.startswith("_saved_"):
            value = getattr(node, name)
            if value is not None:
                found[name.removeprefix("_saved_")] = value
    return found


def _saved(nodes: list[torch.autograd.graph.Node]) -> dict[tuple[int, str], Flat]:
    """The values of the saved tensors."""
    return {
        (number, name.removeprefix("_saved_")): tuple(value.detach().flatten().tolist())
        for number, node in enumerate(nodes)
        for name in dir(node)
        if name.startswith("_saved_") and isinstance(value := getattr(node, name), torch.Tensor)
    }


def _dtype(dtype: torch.dtype) -> str:
    """torch's name of a dtype without its prefix."""
    return str(dtype).removeprefix("torch.")
