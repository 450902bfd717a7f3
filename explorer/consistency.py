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
from dataclasses import dataclass, replace
from math import isfinite
from typing import Any, TypeAlias

import torch

from explorer.engine.array import Array, Values
from explorer.engine.compare import _unravel as unravel
from explorer.engine.leaf import same_memory
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.run import Run
from explorer.engine.sampling import Points, plan
from explorer.evidence import Altered
from explorer.forward_values import (
    DEAR,
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
from explorer.report import Number
from explorer.trace import Trace
from hooks.edits import Edits

ValueOf: TypeAlias = "Callable[[Any, int], tuple[Number, ...] | None]"

NODES, SAMPLE, STRETCH = 5_000, 2_000, 250
"""Of graphs beyond `NODES`, `SAMPLE` are looked at, in stretches: reading what all saved would take long."""

POINTS, MORE = 6, 32
"""Elements of one output computed again, in a sample and in full."""

SMALL = 2_000
"""Outputs that take no more reads are computed again whole."""

WORK, MUCH = 1_500_000, 20_000_000
"""Reads for all of one graph, in a sample and in full."""

LEVELS = 1 << 10
"""Numbers on a grid of at most so many steps, where what was computed is on none, were rounded on purpose."""

MARGIN = 10.0
"""Times the error bound that must be exceeded: kernels of a forward are more various than of a backward."""


@dataclass(slots=True)
class _Equation:
    """What node `node` computes from its inputs, and the value of its output that was kept."""

    node: int
    computed: Value
    kept: Value
    place: Slot
    root: bool = False
    result: bool = False  # the node's own formula uses the output
    signs: bool = False  # nobody uses more of the output than its sign
    flips: bool = False  # and that differs
    failed: tuple[tuple[int, ...], float, float] | None = None
    holds: bool = False


def altered_values(
    trace: Trace,
    roots: Sequence[Any] = (),
    value_of_node: ValueOf | None = None,
    whole: bool = False,
    edits: Edits | None = None,
) -> tuple[Altered, ...]:
    """The kept values that no longer agree with the forward, before backward runs; nothing is changed.

    Args:
        trace: the graph and its live nodes.
        roots: the tensors backward starts from, in the order of ``graph.roots``.
        value_of_node: flat values recorded while the script ran, by (live node, output slot).
        whole: look at more elements.
        edits: who took hold of which memory while the script ran.
    """
    with torch.no_grad():
        store = kept_values(trace, None if edits is None else edits.unchanged, sampled(trace.graph))
        equations = list(_equations(trace, store, roots))
        points = MORE if whole else POINTS
        limit = MUCH if whole else WORK
        held: set[Held] = set()
        for one in equations:
            limit -= _judge(one, points)
            if one.holds:
                held |= one.computed.names | one.kept.names
            if limit < 0:
                break
        hands = Hands(trace, store, edits)
        found = [
            *_recorded(trace, store, value_of_node, held, hands),
            *_accused(store, trace.graph, equations, held, hands),
        ]
    return tuple({one.node: one for one in reversed(found)}.values())


def sampled(graph: Graph) -> Collection[int]:
    """The ids of the nodes that are looked at: all, or stretches spread evenly from loss to leaves."""
    count = len(graph.nodes)
    if count <= NODES:
        return range(count)
    stretches = SAMPLE // STRETCH
    starts = (one * (count - STRETCH) // (stretches - 1) for one in range(stretches))
    return {node for start in starts for node in graph.order[start : start + STRETCH]}


def _equations(trace: Trace, store: Store, roots: Sequence[Any]) -> Iterable[_Equation]:
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
                yield _Equation(index, side, kept, place, result=result, signs=_signs_alone(place, store))
            root = final.get(place)
            if root is not None and side.array is not None:
                array = plain(root.detach())
                if isinstance(array, Array) and array.shape == side.array.shape:
                    whole = Value(array, side.dtypes, frozenset())
                    yield _Equation(index, side, whole, place, root=True)


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
    if kept.numel * one.computed.cost <= SMALL:
        count = max(count, kept.numel)
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
        one.failed, finite = _one_by_one(one, side.array, kept, points, rounding, run)
        one.holds = finite and one.failed is None
    if not one.holds and side.bare is not None:
        one.failed = _in_pairs(side, kept, points, rounding, run)
    elif side.assumed:
        one.failed = None  # a bias that was changed since changes no gradient
    return run.work


Failed: TypeAlias = "tuple[tuple[int, ...], float, float] | None"


def _both(
    computed: Array, kept: Array, points: Points, rounding: Rounding, run: Run
) -> tuple[Values, list[float], Values] | None:
    """Computed values, their bounds and kept values; None where something is not finite, or nothing asked."""
    if not points:
        return None
    coords = list(zip(*points, strict=True)) if kept.shape else []
    values, errors = computed.at(coords, len(points), run)
    stored = kept.at(coords, len(points), Run(rounding, bounds=False))[0]
    errors = errors or [rounding.u * abs(value) for value in values]
    return values, errors, stored


def _one_by_one(
    one: _Equation, computed: Array, kept: Array, points: Points, rounding: Rounding, run: Run
) -> tuple[Failed, bool]:  # fmt: skip
    """The element that is farthest from its value, if far beyond the bound; whether all could be compared."""
    both = _both(computed, kept, points, rounding, run)
    if both is None:
        return None, False
    values, errors, stored = both
    worst, most, finite = None, MARGIN, True
    for point, value, have, error in zip(points, values, stored, errors, strict=True):
        if not (isfinite(value) and isfinite(have) and isfinite(error)):
            finite = False
            continue
        share = abs(value - have) / (2 * error) if error else 0.0
        if share > most and not _excused(computed, point, abs(value - have), rounding):
            worst, most = (point, have, value), share
            one.flips |= (value > 0) != (have > 0)
    if worst and finite and not one.result and not on_a_grid(values):
        more = plan(kept.shape, len(points), MORE)
        at = list(zip(*more, strict=True)) if kept.shape else []
        if on_a_grid(kept.at(at, len(more), Run(rounding, bounds=False))[0]):
            return None, True  # quantised, as straight-through estimators do it by hand
    return worst, finite


def on_a_grid(values: Sequence[float]) -> bool:
    """Whether the numbers are few different ones, or lie at equal steps, as quantised ones do.

    Four random numbers beside the smallest and the largest lie so on one of `LEVELS` grids about once in
    4 million times; fewer are asked for coarser grids.
    """
    distinct = sorted(set(values))
    if len(distinct) < 4:
        return 1 < len(distinct) < len(values) and len(values) > 3
    levels = {4: LEVELS // 32, 5: LEVELS // 4}.get(len(distinct), LEVELS)
    shares = [(value - distinct[0]) / (distinct[-1] - distinct[0]) for value in distinct[1:-1]]
    return any(all(abs(one * k - round(one * k)) < 2e-3 for one in shares) for k in range(1, levels))


def _in_pairs(side: Value, kept: Array, points: Points, rounding: Rounding, run: Run) -> Failed:
    """Differences between rows, in which what is added to every row cancels.

    Behind a relu only where it let both pass; behind log softmax, which takes a number from each row,
    differences of differences with the next column.
    """
    rows, bare = (kept.shape[0] if kept.shape else 0), side.bare
    if rows < 2 or bare is None:
        return None
    corners = [points, [((p[0] + max(rows // 2, 1)) % rows, *p[1:]) for p in points]]
    if side.bent == "ReluBackward0":
        corners = _positive(kept, plan(kept.shape, 0, 8 * len(points)), max(rows // 2, 1), len(points))
        points = corners[0]
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
            if not (isfinite(values[i]) and isfinite(errors[i]) and isfinite(stored[i])):
                return None
            gap += sign * (values[i] - stored[i])
            error += errors[i] + 2 * rounding.u * abs(stored[i])
            have.append(stored[i])
        share = abs(gap) / (2 * error) if error else 0.0
        if share > most and not _excused(bare, point, abs(gap) / len(have), rounding):
            worst, most = (point, have[0], have[0] + gap), share
    return worst


def _positive(kept: Array, points: Points, step: int, count: int) -> list[Points]:
    """Pairs of places `step` rows apart, at most `count`, both of which a relu let pass."""
    others = [((p[0] + step) % kept.shape[0], *p[1:]) for p in points]
    read = Run(rounding_of(["float64"]), bounds=False)
    here, there = (kept.at(list(zip(*some, strict=True)), len(some), read)[0] for some in (points, others))
    passed = [i for i, pair in enumerate(zip(here, there, strict=True)) if min(pair) > 0][:count]
    return [[some[i] for i in passed] for some in (points, others)]


def _excused(computed: Array, point: tuple[int, ...], gap: float, rounding: Rounding) -> bool:
    """Whether an accumulator as coarse as the dtype, or the worst case of all roundings, explains it."""
    for candidate in (replace(rounding, worst=True), replace(rounding, ua=rounding.u)):
        errors = computed.at([(i,) for i in point], 1, Run(candidate))[1]
        if errors and gap <= 4 * errors[0]:
            return True
    return False


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
                after = hands.after([place])
                if after or not hands.replaced(place[0]):
                    by = line(after[place]) if after else None
                    yield Altered(place[0], (), unravel(at, array.shape), _real(was), _real(now), by=by)
                break


def _accused(
    store: Store, graph: Graph, equations: Sequence[_Equation], held: set[Held], hands: Hands
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
        replaced = hands.replaced(one.node)
        meant = replaced or (not one.root and (not suspects or one.place not in held))
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
        if replaced and not after:
            continue
        if after:
            suspects, meant = set(after), replaced
        elif known:
            suspects = set(filter(hands.may_have_changed, suspects)) or suspects
        by = line(max(after.values(), key=lambda hold: hold.number)) if after else None
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


def _perhaps_replaced(graph: Graph, one: _Equation, hands: Hands) -> bool:
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
