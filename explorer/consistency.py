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

from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any, TypeAlias

import torch

from explorer.agreement import MORE, Equation, judge, on_a_grid
from explorer.engine.array import Array
from explorer.engine.compare import _unravel as unravel
from explorer.engine.leaf import same_memory
from explorer.evidence import Altered
from explorer.forward_values import (
    Held,
    Slot,
    Store,
    Value,
    computed,
    kept_values,
    origin,
    own_result,
    plain,
)
from explorer.graph import Graph
from explorer.hands import Hands, line
from explorer.report import Consistency, Number
from explorer.trace import Trace
from hooks.collection import no_collection
from hooks.edits import Edits

ValueOf: TypeAlias = "Callable[[Any, int], tuple[Number, ...] | None]"

NODES, ALL, SAMPLE, STRETCH = 5_000, 50_000, 2_000, 250
"""Of graphs beyond `NODES` (in full, `ALL`), `SAMPLE` are looked at, in stretches: reading takes long."""

POINTS = 6
"""Elements of one output computed again in a sample; in full, `MORE`."""

WORK, MUCH = 1_500_000, 20_000_000
"""Reads for all of one graph, in a sample and in full."""


def altered_values(
    trace: Trace,
    roots: Sequence[Any] = (),
    value_of_node: ValueOf | None = None,
    whole: bool = False,
    edits: Edits | None = None,
) -> tuple[tuple[Altered, ...], Consistency]:
    """The kept values that no longer agree with the forward, before backward runs; nothing is changed.

    The second is how many nodes and values were looked at for that.

    Args:
        trace: the graph and its live nodes.
        roots: the tensors backward starts from, in the order of ``graph.roots``.
        value_of_node: flat values recorded while the script ran, by (live node, output slot).
        whole: look at more elements.
        edits: who took hold of which memory while the script ran.
    """
    with torch.no_grad(), no_collection():  # what is made here stays until the end
        among = sampled(trace.graph, ALL if whole else NODES)
        store = kept_values(trace, None if edits is None else edits.unchanged, among)
        equations = list(_equations(trace, store, roots))
        judged, held = _judged(equations, whole)
        hands = Hands(trace, store, edits)
        found = [
            *_recorded(trace, store, value_of_node, held, hands),
            *_accused(store, trace.graph, equations, held, hands),
        ]
    left = {one.node for one in equations[judged:]} - {one.node for one in equations[:judged]}
    altered = tuple({one.node: one for one in reversed(found)}.values())
    return altered, Consistency(len(among) - len(left), judged)


def _judged(equations: Sequence[Equation], whole: bool) -> tuple[int, set[Held]]:
    """How many equations were judged before the reads ran out, and the values that some speak for."""
    limit, held = MUCH if whole else WORK, set[Held]()
    for count, one in enumerate(equations):
        if limit < 0:
            return count, held
        limit -= judge(one, MORE if whole else POINTS)
        if one.holds:
            held |= one.computed.names | one.kept.names
    return len(equations), held


def sampled(graph: Graph, most: int = NODES) -> Collection[int]:
    """The ids of the nodes that are looked at: all up to `most`, or stretches evenly from loss to leaves."""
    count = len(graph.nodes)
    if count <= most:
        return range(count)
    stretches = SAMPLE // STRETCH
    starts = (one * (count - STRETCH) // (stretches - 1) for one in range(stretches))
    return {node for start in starts for node in graph.order[start : start + STRETCH]}


def _equations(trace: Trace, store: Store, roots: Sequence[Any]) -> Iterable[Equation]:
    """Every output that is kept and can be computed from other kept values, inputs first."""
    graph = trace.graph
    values: dict[Slot, Value] = dict(store.kept)
    final = {
        place: root
        for place, root in zip(graph.roots, roots, strict=False)
        if isinstance(root, torch.Tensor) and root.grad_fn is not None and root._version == 0
    }
    for index in reversed(graph.order):
        if index not in store.own:
            continue
        for slot, side in enumerate(computed(graph, graph.nodes[index], store, values)):
            place = (index, slot)
            kept = store.kept.get(place)
            if kept is None:
                values[place] = side
            elif kept.array is not None and not (side.array and same_memory(side.array, kept.array)):
                own = own_result(graph.nodes[index], store.own[index])
                result = slot == 0 and own is not None and same_memory(own, kept.array)
                yield Equation(index, side, kept, place, result=result, signs=_signs_alone(place, store))
            root = final.get(place)
            if root is not None and side.array is not None:
                array = plain(root.detach())
                if isinstance(array, Array) and array.shape == side.array.shape:
                    whole = Value(array, side.dtypes, frozenset())
                    yield Equation(index, side, whole, place, root=True)


# -------------------------------------------------------------------- what to say


def _recorded(
    trace: Trace, store: Store, value_of_node: ValueOf | None, held: set[Held], hands: Hands
) -> Iterable[Altered]:
    """Small values that were recorded while the script ran, and are kept as something else now.

    A value that what came after speaks for was replaced before it was used: left alone.
    """
    if value_of_node is None:
        return
    for place, value in store.kept.items():
        node, array = trace.graph.nodes[place[0]], value.array
        recorded = value_of_node(trace.live[place[0]], place[1]) if node.kind == "op" else None
        if recorded is None or array is None or array.numel != len(recorded) or place in held:
            continue
        held_now, signs = array.values(), _signs_alone(place, store)
        if on_a_grid(list(map(_real, held_now))) and not on_a_grid(list(map(_real, recorded))):
            continue
        for at, (was, now) in enumerate(zip(recorded, held_now, strict=True)):
            if was != now and was == was and not (signs and (_real(was) > 0) == (_real(now) > 0)):
                unordered = hands.unordered(place[0])
                after = {} if unordered else hands.after([place])
                if after or not hands.replaced(place[0]):
                    by, where = line(after[place]) if after else None, unravel(at, array.shape)
                    yield Altered(place[0], (), where, _real(was), _real(now), perhaps_meant=unordered, by=by)
                break


def _accused(
    store: Store, graph: Graph, equations: Sequence[Equation], held: set[Held], hands: Hands
) -> Iterable[Altered]:
    """One fact per failed equation, naming the values that no other equation speaks for.

    What came out, or a value on the way that nobody kept, may also have been replaced on purpose before it
    was used (``y.data = y.sign()``). The notes of who laid hands on which memory tell; without them nothing
    is said where other equations speak for all that went in, and less loudly where none speaks for
    what came out, or where there are values on the way.
    """
    implicated = [one.computed.names for one in equations if one.failed is not None]
    for one in equations:
        if one.failed is None:
            continue
        known = hands.know(one.node)
        names = one.computed.names - held
        suspects = {place for place in names if _matters(place, store)}
        harmless = names - suspects  # an edit of these would explain it, and change no gradient
        if one.root and known and hands.touched(one.node):
            continue  # the loss itself
        if one.root and not known:  # it may have been edited, which is as likely as a constant
            suspects = {place for place in suspects if not isinstance(place[1], str)}
        free = one.signs and not one.flips and one.place not in held  # so is an edit of the output
        if not suspects and (free or not one.result):
            continue
        if free and known and hands.may_have_changed(one.place) and not hands.after(suspects):
            continue
        if known and any(map(hands.may_have_changed, harmless)) and not hands.after({*suspects, one.place}):
            continue
        replaced, unordered = hands.replaced(one.node), hands.unordered(one.node)
        meant = replaced or unordered or (not one.root and (not suspects or one.place not in held))
        meant = meant or (not known and _perhaps_replaced(graph, one, hands))
        if (
            (harmless or free)
            and not known
            and not (one.result and any(one.place in other for other in implicated))
        ):
            meant = True
        if one.place not in held and not one.root:
            suspects.add(one.place)
        spoken_for = (place for place in one.computed.names if _matters(place, store))
        after = hands.after(suspects) or hands.after([*spoken_for, *([] if one.root else [one.place])])
        if unordered:
            after = {}  # some hand may have come first, unnoted here: no line is to blame
        if replaced and not after:
            continue
        if after:
            suspects, meant = set(after), replaced
        elif known:
            suspects = set(filter(hands.may_have_changed, suspects)) or suspects
        by = line(max(after.values(), key=lambda hold: hold.moment)) if after else None
        spelled = tuple(sorted({_name(graph, place) for place in suspects}))
        point, kept, computed = one.failed
        yield Altered(one.node, spelled, point, kept, computed, one.root, meant, by)


_SIGN = frozenset(("ReluBackward0", "LeakyReluBackward0", "AbsBackward0", "ThresholdBackward0"))
"""Nodes that use no more than the sign of what they keep."""


def _signs_alone(place: Slot, store: Store) -> bool:
    """Whether nobody uses more of a kept tensor than its sign."""
    keepers = store.keepers.get(place)
    return keepers is not None and keepers <= _SIGN


def _matters(place: Held, store: Store) -> bool:
    """Whether the values of a kept tensor go into a gradient; a leaf that nobody saved goes into none."""
    return isinstance(place[1], str) or bool(store.keepers.get((place[0], place[1]), set()) - _SIGN)


def _perhaps_replaced(graph: Graph, one: Equation, hands: Hands) -> bool:
    """Whether there are values on the way to a result that scripts replace: scores, or losses of elements."""
    between = hands.between(one.node)
    return any("Loss" in graph.nodes[node].name for node in between) if one.root else bool(between)


def _name(graph: Graph, place: Held) -> str:
    """The name of a kept tensor: of the leaf or operation it shows, or of a constant by its argument."""
    index, slot = place
    if isinstance(slot, str):
        return f"{slot} of {graph.nodes[index].name}"
    node = graph.nodes[origin(graph, index)]
    return node.label or node.name


def _real(value: Number) -> float:
    return value.real if isinstance(value, complex) else float(value)
