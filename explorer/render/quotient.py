"""Putting shapes together: the one step every heavier folding is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from explorer.render.drawing import Drawing, Shape, Wire


def together(drawing: Drawing, home: Sequence[int], faces: Mapping[int, Shape]) -> Drawing:
    """Merge the shapes of each group; wires between two groups become one wire, those inside vanish.

    Args:
        home: for each shape the number of its group; a group's shape stands where its first member did.
        faces: the shape to draw for a group, for groups whose first member's own shape will not do.
    """
    first: dict[int, int] = {}
    shapes: list[Shape] = []
    for place, group in enumerate(home):
        if group not in first:
            first[group] = len(shapes)
            shapes.append(faces.get(group, drawing.shapes[place]))
    bundles: dict[tuple[int, int, bool], list[int]] = {}
    alone: list[Wire] = []
    sizes: dict[int, int] = {}
    for group in home:
        sizes[group] = sizes.get(group, 0) + 1
    for wire in drawing.wires:
        source, target = home[wire.source], home[wire.target]
        ends = first[source], first[target]
        if source == target:
            continue
        if sizes[source] == sizes[target] == 1:
            alone.append(wire._replace(source=ends[0], target=ends[1]))
        else:
            bundles.setdefault((*ends, wire.again), []).extend(wire.edges)
    wires = [Wire(source, target, tuple(edges), again) for (source, target, again), edges in bundles.items()]
    wires = sorted([*alone, *wires], key=lambda wire: (wire.source, wire.target, wire.edges))
    return replace(drawing, shapes=tuple(shapes), wires=tuple(wires))


def merged(
    drawing: Drawing, places: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Members, leaves inside and hidden views of several shapes together, each node once."""
    shapes = [drawing.shapes[place] for place in places]
    return (
        tuple(dict.fromkeys(member for shape in shapes for member in shape.members)),
        tuple(dict.fromkeys(leaf for shape in shapes for leaf in shape.inside)),
        tuple(dict.fromkeys(view for shape in shapes for view in shape.hidden)),
    )


def against_the_flow(drawing: Drawing) -> Drawing:
    """Mark wires that lead back in a drawing whose shapes stand for several steps of a loop.

    Shapes are ordered by a walk along the wires from the first members on; a wire to a shape the walk
    is still inside of closes a cycle.
    """
    leaving: list[list[int]] = [[] for _ in drawing.shapes]
    arriving = [0] * len(drawing.shapes)
    for wire in drawing.wires:
        if not wire.again:
            leaving[wire.source].append(wire.target)
            arriving[wire.target] += 1
    starts = [place for place, amount in enumerate(arriving) if not amount]
    state, back = [0] * len(drawing.shapes), set()
    for start in (*starts, *reversed(range(len(drawing.shapes)))):
        if state[start]:
            continue
        walk = [(start, iter(leaving[start]))]
        state[start] = 1
        while walk:
            place, rest = walk[-1]
            target = next(rest, None)
            if target is None:
                state[place] = 2
                walk.pop()
            elif state[target] == 1:
                back.add((place, target))
            elif state[target] == 0:
                state[target] = 1
                walk.append((target, iter(leaving[target])))
    wires = tuple(
        wire._replace(again=True) if (wire.source, wire.target) in back else wire for wire in drawing.wires
    )
    return replace(drawing, wires=wires)


def tangled(drawing: Drawing, home: Sequence[int]) -> frozenset[int]:
    """Groups that would lie on a cycle if the shapes were merged by `home` (`again` wires set aside)."""
    follows: dict[int, set[int]] = {group: set() for group in home}
    for wire in drawing.wires:
        if home[wire.source] != home[wire.target] and not wire.again:
            follows[home[wire.source]].add(home[wire.target])
    return _on_cycles({group: sorted(after) for group, after in follows.items()})


def _on_cycles(follows: Mapping[int, Sequence[int]]) -> frozenset[int]:
    """Vertices in a strongly connected component of two or more (Tarjan 1972, without recursion)."""
    index: dict[int, int] = {}
    low: dict[int, int] = {}
    stack: list[int] = []
    standing: set[int] = set()
    found: set[int] = set()
    for start in follows:
        if start in index:
            continue
        index[start] = low[start] = len(index)
        stack.append(start)
        standing.add(start)
        walk = [(start, iter(follows[start]))]
        while walk:
            vertex, rest = walk[-1]
            after = next(rest, None)
            if after is None:
                walk.pop()
                if walk:
                    low[walk[-1][0]] = min(low[walk[-1][0]], low[vertex])
                if low[vertex] == index[vertex]:
                    place = _last(stack, vertex)
                    component = stack[place:]
                    del stack[place:]
                    standing -= set(component)
                    found |= set(component) if len(component) > 1 else set()
            elif after not in index:
                index[after] = low[after] = len(index)
                stack.append(after)
                standing.add(after)
                walk.append((after, iter(follows[after])))
            elif after in standing:
                low[vertex] = min(low[vertex], index[after])
    return frozenset(found)


def _last(stack: Sequence[int], vertex: int) -> int:
    """Place of `vertex` in `stack`, looked for from the end, where it usually is."""
    place = len(stack) - 1
    while stack[place] != vertex:
        place -= 1
    return place
