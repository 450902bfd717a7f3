"""Why is this ``.grad`` None, or zero? The proof, as text and as data.

`why(tensor, loss)` follows the graph of `loss` and, if the tensor is in it, runs a backward of its own
(``.grad`` stays untouched). If it is not, the tensors in the caller's variables tell how far it got: the
last that depends on it, and one that shares its memory but has no graph (a ``detach``).
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from explorer.errors import UsageError
from explorer.graph import Graph, Node, Source
from explorer.names import Names, collect
from explorer.report import Report
from explorer.trace import trace
from explorer.watching import Watch
from hooks.backward import user_frame
from hooks.memory import storage_of
from hooks.nodes import is_leaf
from hooks.unseen import unseen

Reason = Literal[
    "reached",
    "zeroed",
    "no gradient came",
    "not a leaf",
    "frozen",
    "not reached",
    "cut",
    "loss requires no gradient",
]


@dataclass(frozen=True, slots=True)
class Why:
    """The answer: `reason` in a word, `text` in a sentence, and the proof.

    `path` are the nodes of the graph of the loss from the loss to the tensor ((), if there is none),
    `at` the place to look at, `gradient` the norm of what arrives (None: nothing does, or it has no data,
    as on the device meta).
    """

    reason: Reason
    text: str
    path: tuple[Node, ...] = ()
    at: Source | None = None
    gradient: float | None = None

    def __str__(self) -> str:
        return self.text


def why(tensor: torch.Tensor, loss: torch.Tensor) -> Why:
    """Why `tensor` has the gradient it has (or none) after ``loss.backward()``.

    Args:
        tensor: a parameter or any other tensor.
        loss: what backward starts from.

    Raises:
        TypeError: one of them is no tensor.
    """
    with unseen(but_fake=True):
        for given in (tensor, loss):
            if not isinstance(given, torch.Tensor):
                raise TypeError(f"why() takes two tensors, not {type(given).__name__}")
        names = collect(user_frame(sys._getframe(1)))
        name = _name(tensor, names, "the tensor")
        if not tensor.requires_grad:
            return Why(
                "frozen", f"`{name}` does not require a gradient: call `{name}.requires_grad_()` first."
            )
        if not loss.requires_grad:
            cut = _twin(loss, names)
            there = f"; it shares its memory with `{cut}`, from which it was detached" if cut else ""
            loss_name = _name(loss, names, "the loss")
            return Why("loss requires no gradient", f"`{loss_name}` requires no gradient itself{there}.")
        target, slot = _place(tensor)
        found = trace([loss], names=names)
        number = next((i for i, node in enumerate(found.live) if node is target), None)
        if number is None:
            return _not_reached(tensor, name, names, target)
        path = tuple(found.graph.nodes[i] for i in _path(found.graph, number))
        del found
        watch = Watch(check="off")
        watch.explore([loss], names)
        return _reached(tensor.is_leaf, name, watch.report, number, slot, path)


def why_named(report: Report, name: str, scope: Mapping[str, Any]) -> Why:
    """The same answer for the tensor a script calls `name`, from a report of its backward.

    Args:
        scope: the script's globals; a name of the graph itself (a parameter's, a local variable's) does too.

    Raises:
        UsageError: neither the graph nor `scope` knows the name; the message lists some that are known.
    """
    graph = report.graph
    number = next((node.id for node in graph.nodes if name in (node.label, *node.names)), None)
    if number is not None:
        path = tuple(graph.nodes[i] for i in _path(graph, number))
        return _reached(graph.nodes[number].kind == "leaf", name, report, number, 0, path)
    names = collect(scopes=[scope])
    known = {said: tensor for tensor in names.held if isinstance(tensor, torch.Tensor)
             for said in names.tensors.get(id(tensor), ())}  # fmt: skip
    if name not in known:
        listed = ", ".join(sorted({*known, *(node.label for node in graph.nodes if node.names)})[:20])
        raise UsageError(f"no tensor is called {name!r}; there are {listed or 'no names'}")
    tensor = known[name]
    if not tensor.requires_grad:
        return Why("frozen", f"`{name}` does not require a gradient: call `{name}.requires_grad_()` first.")
    return _not_reached(tensor, name, names, _place(tensor)[0])


def _reached(leaf: bool, name: str, report: Report, number: int, slot: int, path: tuple[Node, ...]) -> Why:
    """The tensor is in the graph: what arrives, and where it became nothing."""
    record = report.gradient(number, slot)
    steps = f"{len(path)} {'node' if len(path) == 1 else 'nodes'} from the loss"
    ran = report.gradients[number]
    if record is None and ran is not None and ran.unread:
        return Why("reached", f"`{name}` gets a gradient without data, {steps}.", path, path[-1].source)
    if record is None:
        at = next((node for node in path if report.gradient(node.id) is None), path[-1])
        where = f" at line {at.source.line}" if at.source else ""
        text = f"`{name}` is in the graph, {steps}, but {at.name}{where} is given no gradient."
        return Why("no gradient came", text, path, at.source)
    if record.zero:
        killers = [node for node in path if _kills(report, node)]
        at = killers[0] if killers else path[0]
        where = f" at line {at.source.line}" if at.source else ""
        text = f"`{name}` gets exactly 0: it is zeroed by {at.name}{where}, {steps}."
        return Why("zeroed", text, path, at.source, 0.0)
    if not leaf:
        text = (
            f"`{name}` is not a leaf: a gradient of norm {record.norm:.4g} passes through, but `.grad` "
            f"stays None unless `{name}.retain_grad()` is called before backward()."
        )
        return Why("not a leaf", text, path, path[-1].source, record.norm)
    text = f"`{name}` gets a gradient of norm {record.norm:.4g}, {steps}."
    return Why("reached", text, path, path[-1].source, record.norm)


def _kills(report: Report, node: Node) -> bool:
    received = [report.gradient(node.id, slot) for slot in range(max(1, len(node.outputs)))]
    sent = [report.edge_gradients[edge] for edge in report.graph.outgoing[node.id]]
    return any(one is not None and not one.zero for one in received) and all(
        one is None or one.zero for one in sent
    )


def _not_reached(tensor: torch.Tensor, name: str, names: Names, target: Any) -> Why:
    """The tensor is not in the graph of the loss: how far does it get among the caller's variables?"""
    last: tuple[int, str, torch.Tensor] | None = None
    for held in names.held:
        if not isinstance(held, torch.Tensor) or held is tensor or held.grad_fn is None:
            continue
        if last is not None and held.grad_fn._sequence_nr() <= last[0]:
            continue
        if any(node is target for node in trace([held], saved=False).live):
            last = (held.grad_fn._sequence_nr(), _name(held, names, "a tensor"), held)
    if last is None:
        return Why("not reached", f"`{name}` is not in the graph of the loss: no variable depends on it.")
    twin = _twin(last[2], names)
    if twin is not None:
        text = f"`{name}` is cut off at `{last[1]}`: `{twin}` has its memory and no graph (detach)."
        return Why("cut", text)
    text = f"`{name}` is not in the graph of the loss: `{last[1]}` depends on it, and the loss not on that."
    return Why("not reached", text)


def _place(tensor: torch.Tensor) -> tuple[Any, int]:
    edge = torch.autograd.graph.get_gradient_edge(tensor)
    return edge.node, 0 if is_leaf(edge.node) else edge.output_nr


def _path(graph: Graph, number: int) -> tuple[int, ...]:
    """The shortest way from a root to node `number`; node numbers are in breadth-first order."""
    steps = [number]
    while graph.incoming[steps[-1]] and all(steps[-1] != root for root, _ in graph.roots):
        steps.append(min(graph.edges[edge].source for edge in graph.incoming[steps[-1]]))
    return tuple(reversed(steps))


def _twin(tensor: torch.Tensor, names: Names) -> str | None:
    """A variable with the same memory on the other side of a detach."""
    storage = storage_of(tensor)
    for held in names.held if storage is not None else ():
        if not isinstance(held, torch.Tensor) or held.requires_grad == tensor.requires_grad:
            continue
        if storage_of(held) == storage:
            return _name(held, names, "a tensor")
    return None


def _name(tensor: torch.Tensor, names: Names, otherwise: str) -> str:
    spelled = names.tensors.get(id(tensor), ())
    return spelled[0] if spelled else otherwise
