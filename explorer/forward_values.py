"""The forward values that nodes keep, and what the engine computes from them.

A value is known where some node saved it: as its own result, or as the argument that came over an edge. From
those, `computed` makes the outputs of the nodes behind, as recipes that nobody has evaluated yet.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch

from explorer.convert import value_of
from explorer.engine.array import Array
from explorer.engine.elementwise import Missing
from explorer.engine.forward_rules import FORWARDS
from explorer.engine.forwards import Computation, Forward, Known, UnknownValueError, forward_of
from explorer.graph import Graph, Node
from explorer.trace import Trace
from explorer.values import argument_names
from hooks.saved import read

assert FORWARDS  # importing the module registers the forwards

Slot: TypeAlias = "tuple[int, int]"
Held: TypeAlias = "tuple[int, int | str]"
"""A kept tensor: an output of a node, or a constant that a node saved, by its name."""

DEEP = 6
"""So many operations in a row are composed where nothing in between is kept."""

DEAR = 60_000
"""An element that takes so many reads is not computed again."""


@dataclass(frozen=True, slots=True)
class Value:
    """One forward value: how to read or compute it, what it rests on, how it is rounded.

    `array` is None where it is known only but for an addend that is the same in every row; `assumed` tells
    that such an addend was taken as it is now. `bare` is the value without it, and without the function
    `bent` that was applied after it; `last`: the addend lies along the last axis. `depth` counts operations
    since something was kept, `cost` the reads that one element takes; `names` are the kept tensors behind it.
    """

    array: Array | None
    dtypes: frozenset[str]
    names: frozenset[Held]
    depth: int = 0
    cost: int = 1
    assumed: bool = False
    bare: Array | None = None
    bent: str = ""
    last: bool = False


@dataclass(slots=True)
class Store:
    """The values that are kept, by the output they are of; `keepers` names the nodes that saved each."""

    kept: dict[Slot, Value] = field(default_factory=dict)
    keepers: dict[Held, set[str]] = field(default_factory=dict)
    own: dict[int, dict[str, Any]] = field(default_factory=dict)
    loose: dict[int, Array] = field(default_factory=dict)  # leaves as they are now, where nobody saved them


# -------------------------------------------------------------------- what is kept


Unchanged: TypeAlias = "Callable[[torch.Tensor, Iterable[Any]], bool]"
"""Whether a leaf is surely what it was when the first of these live nodes was made."""


def kept_values(
    trace: Trace, unchanged: Unchanged | None = None, among: Collection[int] | None = None
) -> Store:
    """Everything saved that can be read where it lies, by the output whose value it is.

    A leaf that nobody saved counts where its version, or `unchanged`, says that it is what it was. Only nodes
    `among` those are read, if that is given.
    """
    graph, store = trace.graph, Store()
    chosen = sorted(range(len(graph.nodes)) if among is None else among)
    for node, live in ((graph.nodes[one], trace.live[one]) for one in chosen):
        if node.kind != "op":
            continue
        saved = {key: one.value for key, one in read(live).items() if not one.problem}
        if "Pool" in node.name:
            saved.pop("self", None)  # kept for its shape: the formulas use nothing else of it
        own = store.own[node.id] = {key: plain(value) for key, value in saved.items()}
        result = own_result(node, own)
        if result is not None:
            _keep(store, graph, (node.id, 0), result, node.name)
        names = argument_names(graph, node)
        for index in graph.outgoing[node.id]:
            edge = graph.edges[index]
            name = names[edge.source_slot] if edge.source_slot < len(names) else ""
            if name and names.count(name) == 1 and isinstance(own.get(name), Array):
                _keep(store, graph, (edge.target, edge.target_slot), own[name], node.name)
    for node, live in zip(graph.nodes, trace.live, strict=True):
        if node.kind == "leaf" and (node.id, 0) not in store.kept:
            array = plain(live.variable)
            if live.variable._version == 0:
                # never changed with autograd's knowledge: it is what it was, even if nobody saved it
                _keep(store, graph, (node.id, 0), array)
            elif unchanged is not None and unchanged(live.variable, _users(trace, node.id)):
                _keep(store, graph, (node.id, 0), array)
                if (node.id, 0) in store.kept:
                    store.kept[node.id, 0] = replace(store.kept[node.id, 0], names=frozenset())
            elif not isinstance(array, Missing):
                store.loose[node.id] = array
    return store


def own_result(node: Node, own: Mapping[str, Any]) -> Array | None:
    """What a node itself keeps of its output, None where it does not."""
    result = own.get("output" if node.name.startswith("ScaledDot") else "result")
    return result if isinstance(result, Array) else None


def plain(value: Any) -> Any:
    """A saved value as forwards see it; a tensor that does not lie on the CPU is missing."""
    tensors = value if isinstance(value, (tuple, list)) else [value]
    if any(isinstance(one, torch.Tensor) and not one.is_cpu for one in tensors):
        return Missing("it does not lie on the CPU")
    return value_of(value)


def _users(trace: Trace, index: int) -> list[Any]:
    """The live nodes that used a leaf."""
    graph = trace.graph
    return [trace.live[graph.edges[edge].source] for edge in graph.incoming[index]]


def _keep(store: Store, graph: Graph, place: Slot, array: Array, keeper: str = "") -> None:
    outputs = graph.nodes[place[0]].outputs
    spec = outputs[place[1]] if place[1] < len(outputs) else None
    dtype = getattr(array, "dtype", None)
    if isinstance(array, Missing) or spec is None or array.shape != spec.shape or dtype != spec.dtype:
        return
    if keeper:
        store.keepers.setdefault(place, set()).add(keeper)
    store.kept.setdefault(place, Value(array, frozenset((spec.dtype,)), frozenset((place,))))


def computed(graph: Graph, node: Node, store: Store, values: dict[Slot, Value]) -> list[Value]:
    """What a node computes from known inputs, per output; empty where that is not known."""
    computation, own = forward_of(node.name), store.own[node.id]
    if computation is None or not node.outputs:
        return []
    forward = computation.function
    names = argument_names(graph, node)
    given: dict[str, Any] = {}
    likely: dict[str, Array] = {}
    guarded = False
    sources: dict[int, Value | None] = {}
    for index in graph.outgoing[node.id]:
        edge = graph.edges[index]
        name = names[edge.source_slot] if edge.source_slot < len(names) else ""
        value = values.get((edge.target, edge.target_slot))
        array = None if value is None else value.array
        if name == "tensors":
            given.setdefault(name, []).append(array)
        elif name:
            given[name] = array
        sources[edge.source_slot] = value
        if edge.target in store.loose and array is None:
            likely[name] = store.loose[edge.target]
        if isinstance(own.get(name), Array) and graph.nodes[origin(graph, edge.target)].kind == "leaf":
            guarded = True
    listed = given.get("tensors")
    if listed is not None and (None in listed or len(listed) != graph.arity[node.id]):
        return []
    n = Known(own, given, node.outputs, likely if guarded else None)
    behind = [value for value in sources.values() if value is not None]
    cost = max(sum(one.cost for one in behind), 1) * _reads(computation, n)
    if cost > DEAR or 1 + max((one.depth for one in behind), default=0) > DEEP:
        return []
    arrays = _outputs(forward, n)
    bare, bent, last = _bare(node, forward, own, given, sources)
    if n.left_out or n.assumed:
        bare = ([*arrays] if n.left_out else _outputs(forward, Known(own, given, node.outputs))) or [None]
        bent, last = "", node.name != "ConvolutionBackward0" and node.name != "NativeBatchNormBackward0"
    if n.left_out or (not arrays and bare):
        arrays = [None] * len(bare)
    dtypes = {spec.dtype for spec in node.outputs if spec is not None}
    used: set[Held] = {(node.id, name) for name, value in own.items() if _is_constant(name, value, given)}
    if own.get("training") is False:  # then the running statistics go into the result
        used |= {
            (node.id, name) for name in ("running_mean", "running_var") if isinstance(own.get(name), Array)
        }
    for one in behind:
        dtypes |= one.dtypes
        used |= one.names
    depth = 1 + max((one.depth for one in behind), default=0)
    assumed = n.assumed or any(one.assumed for one in behind)
    return [
        Value(array, frozenset(dtypes), frozenset(used), depth, cost, assumed, rest, bent, last)
        for array, rest in zip(arrays, bare or [None] * len(arrays), strict=False)
    ]


def _reads(computation: Computation, n: Known) -> int:
    try:
        return max(computation.reads(n), 1)
    except (UnknownValueError, LookupError, TypeError, ValueError, AttributeError):
        return 1


def _is_constant(name: str, value: Any, given: Mapping[str, Any]) -> bool:
    """Whether a saved tensor is an argument that came over no edge."""
    if not isinstance(value, Array) or not value.shape or name in given:
        return False
    return not name.startswith(("result", "total", "running", "output", "logsumexp"))


def _bare(
    node: Node, forward: Forward, own: dict[str, Any], given: dict[str, Any],
    sources: dict[int, Value | None],
) -> tuple[list[Array | None], str, bool]:  # fmt: skip
    """The output without an addend that is the same in every row of the inputs; empty where that is lost."""
    names = [name for name in given if name != "tensors"]
    found = [value for value in sources.values() if value is not None and value.bare is not None]
    if not found or len(names) != len(sources) or any(one.bent for one in found):
        return [], "", False
    first = found[0]
    assert first.bare is not None  # that is what was looked for
    last = all(one.last for one in found)
    if node.name in _BENDING:
        return [first.bare], node.name, last
    spec = node.outputs[0]
    if node.name in _VIEWS and spec is not None:
        kept = spec.shape[:1] == first.bare.shape[:1] or (last and spec.shape[-1:] == first.bare.shape[-1:])
        if not kept:
            return [], "", False
    elif node.name not in ("AddBackward0", "SubBackward0"):
        return [], "", False
    without = {
        name: given[name] if value is None or value.bare is None else value.bare
        for name, value in zip(names, sources.values(), strict=True)
    }
    return _outputs(forward, Known(own, without, node.outputs)), "", last


_VIEWS = ("ViewBackward0", "UnsafeViewBackward0", "ReshapeAliasBackward0")
_BENDING = ("ReluBackward0", "LogSoftmaxBackward0")
"""Functions behind which differences of what went in can still be had."""


def _outputs(forward: Forward, n: Known) -> list[Array | None]:
    """The outputs of the shapes that torch tells; empty where something is not known."""
    try:
        found = forward(n)
    except (UnknownValueError, LookupError, TypeError, ValueError, AttributeError):
        return []
    outputs = [found] if isinstance(found, Array) else list(found)
    if len(outputs) > len(n.shapes):
        return []
    if any(isinstance(one, Missing) or one.shape != shape for one, shape in zip(outputs, n.shapes)):  # noqa: B905 - a node may have more outputs
        return []
    return [*outputs]


_SAME = frozenset(
    f"{name}Backward0"
    for name in (
        "T",
        "Transpose",
        "Permute",
        "View",
        "UnsafeView",
        "ReshapeAlias",
        "Alias",
        "Unsqueeze",
        "Squeeze",
    )
)


def passes_on(name: str) -> bool:
    """Whether a node of that name makes a view: the same elements, in the same memory."""
    return name in _SAME


def origin(graph: Graph, index: int) -> int:
    """The node whose elements a view shows."""
    while graph.nodes[index].name in _SAME and graph.outgoing[index]:
        index = graph.edges[graph.outgoing[index][0]].target
    return index
