"""What is to be drawn: shapes and wires that remember the nodes and edges they stand for.

Every level of detail is a pure step from one `Drawing` to the next; `members` and `edges` link each
back to the report, so that a folded shape still tells its gradient range, its worst verdict and its
findings. Wires run as the forward pass does, from the tensor's producer to its consumer.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from explorer.graph import Graph, Node
from explorer.render import words

Path = tuple[str, ...]


class Shape(NamedTuple):
    """One box of a drawing.

    `key` is its stable identifier ("n12"). `members` are the ids of the nodes it stands for, the one
    that gives it its face first; `inside` the leaves drawn inside the operation that uses them, `hidden`
    the views that were left out beside it.
    `kind` is a key of `theme.LOOKS`. `module` is the dotted path, split, of the cluster it belongs to;
    `call` counts calls of that module. `times` says how many alike this one stands for, `copies` that
    the same leaf is drawn so many times, `note` is a second line in small print.
    """

    key: str
    members: tuple[int, ...]
    kind: str
    label: str
    module: Path = ()
    call: int = 0
    inside: tuple[int, ...] = ()
    hidden: tuple[int, ...] = ()
    times: int = 1
    copies: int = 1
    note: str = ""


class Wire(NamedTuple):
    """A line from shape `source` to shape `target` (places in `Drawing.shapes`), forward.

    `edges` are the places in ``graph.edges`` it stands for. `again` marks a line from one of several
    folded alikes to the next one, which must not bend the layout.
    """

    source: int
    target: int
    edges: tuple[int, ...]
    again: bool = False


@dataclass(frozen=True, slots=True)
class Drawing:
    """Shapes and wires, the style, and sentences that say what was folded.

    `titles` names the frames of modules that stand for several alike ("h.0–11 ×12"), by module path.
    """

    shapes: tuple[Shape, ...]
    wires: tuple[Wire, ...]
    circuit: bool = False
    folded: tuple[str, ...] = ()
    titles: Mapping[Path, str] = field(default_factory=dict)


DEEPEST = 24
"""Levels of modules that are told apart; a name with more dots keeps the rest as one."""


def everything(graph: Graph) -> Drawing:
    """Each node one shape, each edge one wire."""
    modules = {node.module for node in graph.nodes if node.kind != "leaf"}
    shapes = []
    for node in graph.nodes:
        module, name = node.module, words.label(node)
        if node.kind == "leaf":
            owner, _, last = node.label.rpartition(".")
            module = module or (owner if owner in modules else "")
            name = words.clean(last, 60) if owner and owner == module else name
        path = tuple(words.clean(part, 60) for part in module.split(".", DEEPEST)) if module else ()
        shapes.append(Shape(f"n{node.id}", (node.id,), _kind(node), name, path, node.module_call))
    wires = tuple(Wire(edge.target, edge.source, (index,)) for index, edge in enumerate(graph.edges))
    return Drawing(tuple(shapes), wires)


def _kind(node: Node) -> str:
    if node.kind != "leaf":
        return node.kind
    return "parameter" if node.role == "parameter" else "input"


def is_scalar(graph: Graph) -> bool:
    """True if every tensor of the graph is known to have exactly one element."""
    specs = (node.outputs for node in graph.nodes)
    return all(outputs and all(spec is not None and spec.numel == 1 for spec in outputs) for outputs in specs)


def is_leaf(shape: Shape) -> bool:
    """True for a parameter or an input drawn by itself."""
    return shape.kind in ("parameter", "input")


def forward_order(graph: Graph) -> tuple[int, ...]:
    """Node ids in an order in which a forward pass could make them.

    A walk from the roots that leaves a node after everything it is made of, the longest line of
    operands first: weights come just before their use, and a module's nodes stay together.
    """
    height = [0] * len(graph.nodes)
    for node in reversed(graph.order):
        for index in graph.outgoing[node]:
            height[node] = max(height[node], height[graph.edges[index].target] + 1)
    done: list[int] = []
    seen: set[int] = set()
    starts = [root for root, _ in graph.roots] + [node.id for node in graph.nodes]
    for start in starts:
        waiting = [(start, False)]
        while waiting:
            node, complete = waiting.pop()
            if complete:
                done.append(node)
            elif node not in seen:
                seen.add(node)
                waiting.append((node, True))
                targets = [graph.edges[index].target for index in graph.outgoing[node]]
                if len(targets) > 1:
                    targets.sort(key=lambda target: -height[target])
                waiting.extend((target, False) for target in reversed(targets) if target not in seen)
    return tuple(done)
