"""Forward consistency: whether what the nodes saved is still what the forward computed.

The local check trusts saved values. One that was changed behind autograd's back (``x.data.mul_(2)``, a NumPy
array on the same memory) gives a gradient of another function, and no version counter tells. Before backward
runs, each operation whose inputs and output are both kept somewhere is computed again by the engine at a few
places: from what nodes saved, to what a node behind it saved (or to small values recorded while the script
ran, or to the loss itself).

Silence is the rule where anything is in doubt: values that nobody saved are not used (a parameter may have
been stepped since, rightly so), packed and freed ones not read. A bias, which nobody saves, is taken as it is
beside a weight that is guarded by its version, for one step changes both; and what a changed bias explains,
by differences between rows that it leaves alone, is not told, for it changes no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any, TypeAlias

import torch

from explorer.convert import value_of
from explorer.engine.array import Array, Values
from explorer.engine.elementwise import Missing
from explorer.engine.forward_rules import LARGEST_SUM
from explorer.engine.forwards import Forward, Known, UnknownValueError, forward_of
from explorer.engine.leaf import same_memory
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.run import Run
from explorer.engine.sampling import Points, plan
from explorer.evidence import Altered
from explorer.graph import Graph, Node
from explorer.report import Number
from explorer.trace import Trace
from explorer.values import argument_names
from hooks.saved import read

assert LARGEST_SUM  # importing the module registers the forwards

Slot: TypeAlias = "tuple[int, int]"
ValueOf: TypeAlias = "Callable[[Any, int], tuple[Number, ...] | None]"

NODES = 5_000
"""Larger graphs are left alone: reading what every node saved would take long."""

DEEP = 6
"""So many operations in a row are composed where nothing in between is kept."""

POINTS, MORE = 6, 32
"""Elements of one output computed again, in a sample and in full."""

DEAR = 60_000
"""An element that takes so many reads is not computed again."""

WORK, MUCH = 1_500_000, 20_000_000
"""Reads for all of one graph, in a sample and in full."""

FEW_VALUES = 3
"""An output of so few different numbers, where many were computed, was made so on purpose."""

MARGIN = 10.0
"""Times the error bound that must be exceeded: kernels of a forward are more various than of a backward."""


@dataclass(frozen=True, slots=True)
class _Value:
    """One forward value: how to read or compute it, what it rests on, how it is rounded.

    `array` is None where it is known only but for an addend that is the same in every row; `assumed` tells
    that such an addend was taken as it is now. `bare` is the value without it, and without the function
    `bent` that was applied after it; `last`: the addend lies along the last axis. `depth` counts operations
    since something was kept; `names` are the kept tensors behind it.
    """

    array: Array | None
    dtypes: frozenset[str]
    names: frozenset[Slot]
    depth: int = 0
    assumed: bool = False
    bare: Array | None = None
    bent: str = ""
    last: bool = False


@dataclass(slots=True)
class _Equation:
    """What node `node` computes from its inputs, and the value of its output that was kept."""

    node: int
    computed: _Value
    kept: _Value
    place: Slot
    root: bool = False
    result: bool = False  # the node's own formula uses the output
    failed: tuple[tuple[int, ...], float, float] | None = None
    holds: bool = False


@dataclass(slots=True)
class _Store:
    """The values that are kept, by the output they are of."""

    kept: dict[Slot, _Value] = field(default_factory=dict)
    own: dict[int, dict[str, Any]] = field(default_factory=dict)
    loose: dict[int, Array] = field(default_factory=dict)  # leaves as they are now, where nobody saved them


def altered_values(
    trace: Trace, roots: Sequence[Any] = (), value_of_node: ValueOf | None = None, whole: bool = False
) -> tuple[Altered, ...]:
    """The kept values that no longer agree with the forward, before backward runs; nothing is changed.

    Args:
        trace: the graph and its live nodes.
        roots: the tensors backward starts from, in the order of ``graph.roots``.
        value_of_node: flat values recorded while the script ran, by (live node, output slot).
        whole: look at more elements.
    """
    if len(trace.live) > NODES:
        return ()
    with torch.no_grad():
        store = _read(trace)
        equations = list(_equations(trace, store, roots))
        points = MORE if whole else POINTS
        limit = MUCH if whole else WORK
        held: set[Slot] = set()
        for one in equations:
            limit -= _judge(one, points)
            if one.holds and not one.root:
                held |= one.computed.names | one.kept.names
            if limit < 0:
                break
        found = [*_recorded(trace, store, value_of_node), *_accused(trace.graph, equations, held)]
    return tuple({one.node: one for one in reversed(found)}.values())


# -------------------------------------------------------------------- what is kept


def _read(trace: Trace) -> _Store:
    """Everything saved that can be read where it lies, by the output whose value it is."""
    graph, store = trace.graph, _Store()
    for node, live in zip(graph.nodes, trace.live, strict=True):
        if node.kind != "op":
            continue
        saved = {key: one.value for key, one in read(live).items() if not one.problem}
        own = store.own[node.id] = {key: _plain(value) for key, value in saved.items()}
        if isinstance(own.get("result"), Array):
            _keep(store, graph, (node.id, 0), own["result"])
        names = argument_names(graph, node)
        for index in graph.outgoing[node.id]:
            edge = graph.edges[index]
            name = names[edge.source_slot] if edge.source_slot < len(names) else ""
            if name and names.count(name) == 1 and isinstance(own.get(name), Array):
                _keep(store, graph, (edge.target, edge.target_slot), own[name])
    for node, live in zip(graph.nodes, trace.live, strict=True):
        if node.kind == "leaf" and (node.id, 0) not in store.kept:
            array = _plain(live.variable)
            if live.variable._version == 0:
                # never changed with autograd's knowledge: it is what it was, even if nobody saved it
                _keep(store, graph, (node.id, 0), array)
            elif not isinstance(array, Missing):
                store.loose[node.id] = array
    return store


def _plain(value: Any) -> Any:
    """A saved value as forwards see it; a tensor that does not lie on the CPU is missing."""
    tensors = value if isinstance(value, (tuple, list)) else [value]
    if any(isinstance(one, torch.Tensor) and not one.is_cpu for one in tensors):
        return Missing("it does not lie on the CPU")
    return value_of(value)


def _keep(store: _Store, graph: Graph, place: Slot, array: Array) -> None:
    outputs = graph.nodes[place[0]].outputs
    spec = outputs[place[1]] if place[1] < len(outputs) else None
    dtype = getattr(array, "dtype", None)
    if isinstance(array, Missing) or spec is None or array.shape != spec.shape or dtype != spec.dtype:
        return
    store.kept.setdefault(place, _Value(array, frozenset((spec.dtype,)), frozenset((place,))))


# -------------------------------------------------------------------- what follows from it


def _equations(trace: Trace, store: _Store, roots: Sequence[Any]) -> Iterable[_Equation]:
    """Every output that is kept and can be computed from other kept values, inputs first."""
    graph = trace.graph
    values: dict[Slot, _Value] = dict(store.kept)
    final = {
        place: root
        for place, root in zip(graph.roots, roots, strict=False)
        if isinstance(root, torch.Tensor) and root.grad_fn is not None and root._version == 0
    }
    for index in reversed(graph.order):
        if index not in store.own:
            continue
        for slot, computed in enumerate(_computed(graph, graph.nodes[index], store, values)):
            place = (index, slot)
            kept = store.kept.get(place)
            if kept is None:
                if computed.depth <= DEEP:
                    values[place] = computed
            elif kept.array is not None and not (computed.array and same_memory(computed.array, kept.array)):
                result = slot == 0 and isinstance(store.own[index].get("result"), Array)
                yield _Equation(index, computed, kept, place, result=result)
            root = final.get(place)
            if root is not None and computed.array is not None:
                array = _plain(root.detach())
                if isinstance(array, Array) and array.shape == computed.array.shape:
                    whole = _Value(array, computed.dtypes, frozenset())
                    yield _Equation(index, computed, whole, place, root=True)


def _computed(graph: Graph, node: Node, store: _Store, values: dict[Slot, _Value]) -> list[_Value]:
    """What a node computes from known inputs, per output; empty where that is not known."""
    forward, own = forward_of(node.name), store.own[node.id]
    if forward is None or not node.outputs:
        return []
    names = argument_names(graph, node)
    given: dict[str, Any] = {}
    likely: dict[str, Array] = {}
    guarded = False
    sources: dict[int, _Value | None] = {}
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
        if isinstance(own.get(name), Array) and graph.nodes[_origin(graph, edge.target)].kind == "leaf":
            guarded = True
    listed = given.get("tensors")
    if listed is not None and (None in listed or len(listed) != graph.arity[node.id]):
        return []
    n = Known(own, given, node.outputs, likely if guarded else None)
    arrays = _outputs(forward, n)
    bare, bent, last = _bare(node, forward, own, given, sources)
    if n.left_out or n.assumed:
        bare = ([*arrays] if n.left_out else _outputs(forward, Known(own, given, node.outputs))) or [None]
        bent, last = "", node.name != "ConvolutionBackward0" and node.name != "NativeBatchNormBackward0"
    if n.left_out or (not arrays and bare):
        arrays = [None] * len(bare)
    dtypes = {spec.dtype for spec in node.outputs if spec is not None}
    used: set[Slot] = set()
    behind = [value for value in sources.values() if value is not None]
    for one in behind:
        dtypes |= one.dtypes
        used |= one.names
    depth = 1 + max((one.depth for one in behind), default=0)
    assumed = n.assumed or any(one.assumed for one in behind)
    return [
        _Value(array, frozenset(dtypes), frozenset(used), depth, assumed, rest, bent, last)
        for array, rest in zip(arrays, bare or [None] * len(arrays), strict=False)
    ]


def _bare(
    node: Node, forward: Forward, own: dict[str, Any], given: dict[str, Any],
    sources: dict[int, _Value | None],
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


def _origin(graph: Graph, index: int) -> int:
    """The node whose elements a view shows."""
    while graph.nodes[index].name in _SAME and graph.outgoing[index]:
        index = graph.edges[graph.outgoing[index][0]].target
    return index


# -------------------------------------------------------------------- whether they agree


def _judge(one: _Equation, count: int) -> int:
    """Compare both sides at a few elements; gives the reads that took."""
    rounding = rounding_of(one.computed.dtypes)
    if torch.get_float32_matmul_precision() != "highest":
        rounding = replace(rounding, product=2.0**-8)
    kept, computed = one.kept.array, one.computed.array or one.computed.bare
    if kept is None or computed is None or not kept.numel or computed.is_complex:
        return 0
    shape = kept.shape
    points = plan(shape, one.node, count)
    middle = points[len(points) // 2]
    run = Run(rounding)
    computed.at([(i,) for i in middle], 1, run)
    if run.work > DEAR:
        return run.work
    if run.work > DEAR // 20:
        points = points[:3]
    side = one.computed
    if side.array is not None:
        one.failed = _one_by_one(side.array, kept, points, rounding, run, one.result)
        one.holds = one.failed is None
    if not one.holds and side.bare is not None:
        one.failed = _in_pairs(side, kept, points, rounding, run)
    elif side.assumed:
        one.failed = None  # a bias that was changed since changes no gradient
    return run.work


Failed: TypeAlias = "tuple[tuple[int, ...], float, float] | None"


def _both(
    computed: Array, kept: Array, points: Points, rounding: Rounding, run: Run
) -> tuple[Values, list[float], Values] | None:
    """Computed values, their bounds and kept values; None where something is not finite."""
    coords = list(zip(*points, strict=True)) if kept.shape else []
    values, errors = computed.at(coords, len(points), run)
    stored = kept.at(coords, len(points), Run(rounding, bounds=False))[0]
    errors = errors or [rounding.u * abs(value) for value in values]
    return (values, errors, stored) if all(map(isfinite, (*values, *errors, *stored))) else None


def _one_by_one(
    computed: Array, kept: Array, points: Points, rounding: Rounding, run: Run, result: bool
) -> Failed:  # fmt: skip
    """The element that is farthest from its value, if far beyond the bound."""
    both = _both(computed, kept, points, rounding, run)
    if both is None:
        return None
    values, errors, stored = both
    if not result and len(stored) > FEW_VALUES and len(set(stored)) <= FEW_VALUES < len(set(values)):
        return None  # quantised, as straight-through estimators do it by hand
    worst, most = None, MARGIN
    for point, value, have, error in zip(points, values, stored, errors, strict=True):
        share = abs(value - have) / (2 * error) if error else 0.0
        if share > most and not _excused(computed, point, abs(value - have), rounding):
            worst, most = (point, have, value), share
    return worst


def _in_pairs(side: _Value, kept: Array, points: Points, rounding: Rounding, run: Run) -> Failed:
    """Differences between rows, in which what is added to every row cancels.

    Behind a relu only where it let both pass; behind log softmax, which takes a number from each row,
    differences of differences with the next column.
    """
    rows, bare = (kept.shape[0] if kept.shape else 0), side.bare
    if rows < 2 or bare is None:
        return None
    corners = [points, [((p[0] + max(rows // 2, 1)) % rows, *p[1:]) for p in points]]
    if side.bent == "LogSoftmaxBackward0":
        if kept.ndim != 2:
            return None
        corners += [[(p[0], (p[1] + 1) % kept.shape[1]) for p in some] for some in corners[:2]]
    found = [_both(bare, kept, some, rounding, run) for some in corners]
    worst, most = None, MARGIN
    for i, point in enumerate(points):
        gap = error = 0.0
        have = []
        for sign, both in zip((1, -1, -1, 1), found, strict=False):
            if both is None:
                return None
            values, errors, stored = both
            gap += sign * (values[i] - stored[i])
            error += errors[i] + 2 * rounding.u * abs(stored[i])
            have.append(stored[i])
        if side.bent == "ReluBackward0" and min(have) <= 0:
            continue
        share = abs(gap) / (2 * error) if error else 0.0
        if share > most and not _excused(bare, point, abs(gap) / len(have), rounding):
            worst, most = (point, have[0], have[0] + gap), share
    return worst


def _excused(computed: Array, point: tuple[int, ...], gap: float, rounding: Rounding) -> bool:
    """Whether an accumulator as coarse as the dtype, or the worst case of all roundings, explains it."""
    for candidate in (replace(rounding, worst=True), replace(rounding, ua=rounding.u)):
        errors = computed.at([(i,) for i in point], 1, Run(candidate))[1]
        if errors and gap <= 4 * errors[0]:
            return True
    return False


# -------------------------------------------------------------------- what to say


def _recorded(trace: Trace, store: _Store, value_of_node: ValueOf | None) -> Iterable[Altered]:
    """Small values that were recorded while the script ran, and are kept as something else now."""
    if value_of_node is None:
        return
    for place, value in store.kept.items():
        node, array = trace.graph.nodes[place[0]], value.array
        recorded = value_of_node(trace.live[place[0]], place[1]) if node.kind == "op" else None
        if recorded is None or array is None or array.numel != len(recorded):
            continue
        for at, (was, now) in enumerate(zip(recorded, array.values(), strict=True)):
            if was != now and was == was:
                yield Altered(place[0], (), _unravel(at, array.shape), _real(was), _real(now))
                break


def _accused(graph: Graph, equations: Sequence[_Equation], held: set[Slot]) -> Iterable[Altered]:
    """One fact per failed equation, naming the values that no other equation speaks for.

    What came out may also have been changed, on purpose, before it was used (``y.data = y.sign()``): so
    nothing is said where other equations speak for all that went in.
    """
    for one in equations:
        if one.failed is None:
            continue
        suspects = set(one.computed.names - held)
        if not suspects and not one.result:
            continue
        if one.place not in held and not one.root:
            suspects.add(one.place)
        names = tuple(sorted({_label(graph.nodes[_origin(graph, node)]) for node, _ in suspects}))
        point, kept, computed = one.failed
        yield Altered(one.node, names, point, kept, computed, one.root)


def _label(node: Node) -> str:
    return node.label or node.name


def _real(value: Number) -> float:
    return value.real if isinstance(value, complex) else float(value)


def _unravel(flat: int, shape: Sequence[int]) -> tuple[int, ...]:
    point: list[int] = []
    for size in reversed(shape):
        point.append(flat % size)
        flat //= size
    return tuple(reversed(point))
