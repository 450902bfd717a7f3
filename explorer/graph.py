"""The autograd graph as plain data: no torch object lives here.

A `Graph` is what `explorer.walk` found by following ``grad_fn.next_functions`` from one or
more roots. Nodes are numbered in discovery order, so the same program gives the same numbers on
every run. Edges run as the gradient does: from a node to those in its ``next_functions``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any, Literal

Kind = Literal["op", "leaf", "custom", "opaque"]
Role = Literal["parameter", "input", "root", ""]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, dtype and place of one tensor, as torch reports them.

    `dtype` is torch's name without the ``torch.`` prefix ("float32"); `device` is ``str(device)``.
    """

    shape: tuple[int, ...]
    dtype: str
    device: str = "cpu"
    layout: str = "strided"

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a 0-d tensor, 0 for an empty one."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Source:
    """A line of the user's program: file, 1-based line, its text, the function it stands in."""

    file: str
    line: int
    code: str = ""
    function: str = ""


@dataclass(frozen=True, slots=True)
class Saved:
    """One value a node keeps for its backward.

    `name` is torch's own, without the ``_saved_`` prefix. A tensor has a `spec` and `bytes` (of its
    elements) and, where it is small, its `values` (flat, row-major); any other value is spelled in
    `text`. `storage` numbers the storage the tensor shares
    with other saved tensors of the same graph (0, 1, 2, ... in discovery order), so that bytes can be
    counted once. `leaf` is the id of the leaf node whose tensor this is, if it is one; `owner` that of a
    leaf with the same storage (a view of a parameter, or the parameter itself).
    `problem` holds torch's own message when the value could not be read (freed, modified in place).
    """

    name: str
    spec: TensorSpec | None = None
    bytes: int = 0
    text: str = ""
    storage: int | None = None
    leaf: int | None = None
    problem: str = ""
    values: tuple[float | complex, ...] | None = None
    owner: int | None = None


@dataclass(frozen=True, slots=True)
class Node:
    """One backward node.

    `name` is ``grad_fn.name()`` without its C++ namespace ("MulBackward0", "AccumulateGrad").
    `kind`: "op" (an operation of torch), "leaf" (AccumulateGrad), "custom" (a Python
    ``autograd.Function`` or ``torch.library`` op), "opaque" (compiled, scripted, reentrant
    checkpoint, CopySlices, errors: one node that hides others).
    `label` is the shortest name a person would use: the leaf's or variable's name, else the
    operation ("Mul"). `names` holds every name known (tied weights have several).
    `outputs` describes the *forward outputs* of the operation, one per gradient it receives;
    None where torch cannot tell. `module` is a dotted path ("layers.0.attn", "" at top level);
    `module_call` counts calls of that module (0 for the first with nodes here). `operation` is the forward
    operation ("aten::mul" or a function's name) where known. `note` explains an unusual node in a
    few words. `hooks` lists the user's own hooks on this node or its tensor.
    """

    id: int
    name: str
    kind: Kind = "op"
    label: str = ""
    names: tuple[str, ...] = ()
    role: Role = ""
    module: str = ""
    module_call: int = 0
    source: Source | None = None
    operation: str = ""
    outputs: tuple[TensorSpec | None, ...] = ()
    saved: tuple[Saved, ...] = ()
    formula: Mapping[str, str] = field(default_factory=dict)
    sequence_nr: int | None = None
    hooks: tuple[str, ...] = ()
    note: str = ""


@dataclass(frozen=True, slots=True)
class Edge:
    """``next_functions[source_slot]`` of node `source` is ``(target, target_slot)``."""

    source: int
    source_slot: int
    target: int
    target_slot: int


@dataclass(frozen=True)
class Graph:
    """Nodes, edges and the roots the walk began at.

    ``nodes[i].id == i``. `roots` holds (node id, output slot) in the order given. `arity[i]` is
    ``len(next_functions)`` of node i: slots without an edge take no gradient.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    roots: tuple[tuple[int, int], ...]
    arity: tuple[int, ...] = ()

    @classmethod
    def later(
        cls,
        describe: Callable[[], tuple[tuple[Node, ...], tuple[Edge, ...]]],
        roots: tuple[tuple[int, int], ...],
        arity: tuple[int, ...],
        problems: Sequence[str] = (),
    ) -> Graph:
        """A graph whose nodes and edges are made when somebody first asks for them, out of plain data.

        Watched training pays for what is read of its graphs, not for what could be.
        """
        graph = object.__new__(cls)
        vars(graph).update(roots=roots, arity=arity, _describe=describe, _problems=problems)
        return graph

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be found out of its nodes, and why; complete once they are made."""
        return tuple(vars(self).get("_problems", ()))

    def __getattr__(self, name: str) -> Any:
        """The nodes or edges, if they are yet to be made: Python comes here only for what is missing."""
        describe = vars(self).get("_describe") if name in ("nodes", "edges") else None
        if describe is None:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        nodes, edges = describe()
        vars(self).pop("_describe", None)
        vars(self).update(nodes=nodes, edges=edges)
        return vars(self)[name]

    def __getstate__(self) -> dict[str, Any]:
        """What a copy needs: nodes and edges, not how they would be made."""
        return {"nodes": self.nodes, "edges": self.edges, "roots": self.roots, "arity": self.arity}

    @cached_property
    def outgoing(self) -> tuple[tuple[int, ...], ...]:
        """Per node, the indices into `edges` of the edges that leave it, by source slot."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, edge in enumerate(self.edges):
            found[edge.source].append(index)
        return tuple(map(tuple, found))

    @cached_property
    def incoming(self) -> tuple[tuple[int, ...], ...]:
        """Per node, the indices into `edges` of the edges that enter it."""
        found: list[list[int]] = [[] for _ in self.nodes]
        for index, edge in enumerate(self.edges):
            found[edge.target].append(index)
        return tuple(map(tuple, found))

    @cached_property
    def order(self) -> tuple[int, ...]:
        """Node ids so that every node comes before those it sends gradients to."""
        waiting = [len(edges) for edges in self.incoming]
        ready = [node.id for node in reversed(self.nodes) if waiting[node.id] == 0]
        done: list[int] = []
        while ready:
            node = ready.pop()
            done.append(node)
            for index in reversed(self.outgoing[node]):
                target = self.edges[index].target
                waiting[target] -= 1
                if waiting[target] == 0:
                    ready.append(target)
        return tuple(done)

    def leaves(self) -> Iterator[Node]:
        """The leaf nodes, in id order."""
        return (node for node in self.nodes if node.kind == "leaf")
