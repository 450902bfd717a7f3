"""Hints of losses: rows that are ignored, the target of a row and a class beside it, blanks and labels."""

from __future__ import annotations

from typing import Any

from explorer.engine.array import Array
from explorer.engine.contract import Point
from explorer.engine.hints.reading import READS, Hinted, known, read, seen
from explorer.engine.registry import Site, hinted
from explorer.engine.rules.indexing import unravel


@hinted("NllLossBackward0", "NllLoss2DBackward0")
def nll(n: Site, g: Array) -> Hinted:
    """Of ignored rows the class that would have been hit; of others the target and a class beside it.

    Rows are looked at whose target is the smallest, the largest, or beside `ignore_index`: there a wrong
    `ignore_index`, or one that is taken for a class, shows.
    """
    shape = n.shape(0)
    classes = shape[1 if len(shape) > 1 else 0]
    some = seen(n.target, 8 * READS)  # there is one such node in a model, and padding may be rare
    targets = some.values
    ignore = n.ignore_index
    if not targets:
        return []

    def at(place: int, target: int) -> Point:
        point = unravel(some.places[place], some.shape)
        return (*point[:1], target, *point[1:]) if len(shape) > 1 else (target,)

    kept = next((target for target in targets if target != ignore), 0)
    found = []
    if ignore in targets:
        first, last = targets.index(ignore), len(targets) - 1 - targets[::-1].index(ignore)
        found = [at(first, ignore % classes), at(last, ignore % classes), at(first, kept)]
    for target in dict.fromkeys([kept, targets[-1], min(targets), max(targets), ignore - 1, ignore + 1, 0]):
        if target != ignore and target in targets:
            place = targets.index(target)
            found += [at(place, target), at(place, (target + 1) % classes)]
    return [found]


@hinted("MultiMarginLossBackward0", "MultilabelMarginLossBackward0")
def margin(n: Site, g: Array) -> Hinted:
    """The target of the middle row and the class beside it."""
    x, target = n.self, n.target
    if not known(x) or not isinstance(target, Array) or not target.numel:
        return []
    classes = x.shape[-1]
    row = x.shape[0] // 2 if x.ndim == 2 else 0
    flat = row * (classes if target.ndim == x.ndim else 1)
    label = max(int(read(target.reshape(target.numel), ((flat,),))[0]), 0)
    lead = (row,) if x.ndim == 2 else ()
    return [[(*lead, label), (*lead, (label + 1) % classes)]]


@hinted("CtcLossBackward0", "CtcLossBackward1")
def ctc(n: Site, g: Array, *_: Array | None) -> Hinted:
    """At the first and the last step of three items: blank, labels, another class; and a step too late."""
    p, targets = n.log_probs, n.targets
    if not known(p, targets):
        return []
    total, batch, classes = p.shape
    found: dict[Point, None] = {}
    for item in (0, batch // 2, batch - 1):
        length, count = _length(n.input_lengths, item), _length(n.target_lengths, item)
        start = item * targets.shape[1] if targets.ndim > 1 else sum(_lengths(n.target_lengths, item))
        labels = read(targets.reshape(targets.numel), (range(start, min(start + count, targets.numel)),))
        wanted = [n.blank, *labels[:1], *labels[-1:]]
        other = next((c for c in range(classes) if c != n.blank and c not in labels), n.blank)
        for step in (0, length - 1, length):
            for label in (*wanted, other):
                if 0 <= step < total:
                    found[step, item, int(label)] = None
    return [list(found)]


def _lengths(lengths: Any, count: int) -> list[int]:
    """The first `count` lengths, of a tensor or a tuple."""
    values = read(lengths, (range(count),)) if isinstance(lengths, Array) else lengths[:count]
    return [int(one) for one in values]


def _length(lengths: Any, item: int) -> int:
    return int(read(lengths, ((item,),))[0] if isinstance(lengths, Array) else lengths[item])
