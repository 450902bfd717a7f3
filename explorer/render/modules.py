"""Folding by module: everything below a depth as one box, repeated blocks as one block.

A module that is called several times is a new *instance* at each call. torch tells the call of the
innermost module only; the call of an outer one is the same share of its own calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import replace
from typing import NamedTuple

from explorer.graph import Graph
from explorer.render import theme, words
from explorer.render.drawing import Drawing, Path, Shape, Wire, is_leaf
from explorer.render.quotient import merged, tangled, together

Instance = tuple[tuple[str, int], ...]
"""A chain of (module name, call), outermost first."""


def instances(drawing: Drawing) -> list[Instance]:
    """For each shape the chain of module instances around it."""
    calls: dict[Path, int] = {}
    for shape in drawing.shapes:
        calls[shape.module] = max(calls.get(shape.module, 1), shape.call + 1)
    known = dict(calls)
    for path in sorted(calls, key=len, reverse=True):
        for end in range(len(path) - 1, 0, -1):
            outer = path[:end]
            if outer not in calls:
                known[outer] = min(known.get(outer, calls[path]), calls[path])
    chains: dict[tuple[Path, int], Instance] = {}
    found = []
    for shape in drawing.shapes:
        key = shape.module, shape.call
        if key not in chains:
            path = shape.module
            chains[key] = tuple(
                (
                    path[end],
                    min(shape.call * known[path[: end + 1]] // calls[path], known[path[: end + 1]] - 1),
                )
                for end in range(len(path))
            )
        found.append(chains[key])
    return found


def depth_of(drawing: Drawing) -> int:
    """The deepest nesting of modules in a drawing."""
    return max((len(shape.module) for shape in drawing.shapes), default=0)


def to_depth(drawing: Drawing, depth: int, order: dict[int, int]) -> Drawing:
    """Draw each module instance at `depth` (1 is a top-level module) as one box.

    `order` gives each node its place in the forward pass. A box that would close a cycle is split into
    the runs of the forward pass it consists of.
    """
    chains = instances(drawing)
    numbers: dict[Instance | int, int] = {}
    home = [
        numbers.setdefault(chain[: max(depth, 1)] if len(chain) >= max(depth, 1) else place, len(numbers))
        for place, chain in enumerate(chains)
    ]
    home = untangled(drawing, home, order)
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(home):
        groups.setdefault(group, []).append(place)
    faces = {
        group: _module_box(
            drawing,
            sorted(places, key=lambda place: order[drawing.shapes[place].members[0]]),
            depth,
            chains[places[0]][max(depth, 1) - 1][1],
        )
        for group, places in groups.items()
        if len(places) > 1
    }
    if not faces:
        return drawing
    folded = together(drawing, home, faces)
    said = f"modules at depth {depth} drawn as one box each"
    return replace(folded, folded=(*drawing.folded, said))


def _module_box(drawing: Drawing, places: list[int], depth: int, call: int) -> Shape:
    members, inside, hidden = merged(drawing, places)
    face = drawing.shapes[places[0]]
    path = face.module[: max(depth, 1)]
    outer, label = path[:-1], module_name(drawing, path, len(path) - 1, len(path), call)
    amount = words.count(len({*members, *inside, *hidden}), "node")
    return Shape(f"m{members[0]}", members, "module", label, outer, inside=inside, hidden=hidden, note=amount)


def module_name(drawing: Drawing, path: Path, above: int, depth: int, call: int = 0) -> str:
    """What the module at `depth` of `path` is called inside the one at `above`: "attn.proj", "h.0–11 ×12".

    `call` counts the calls before this one: the second is "D (call 2)" where calls are drawn apart.
    """
    names: list[str] = []
    for end in range(above, depth):
        title = drawing.titles.get(path[: end + 1])
        if title is not None and names and path[end].isdigit():
            names.pop()  # the title of a numbered module begins with the name of the one around it
        own = path[end] if names else words.numbered(path[end - 1] if end else "", path[end])
        names.append(title or own)
    apart = call and drawing.titles.get(path[:depth]) is None
    return ".".join(names) + (f" (call {call + 1})" if apart else "")


def untangled(drawing: Drawing, home: list[int], order: dict[int, int]) -> list[int]:
    """Split groups that would close a cycle into runs of the forward pass."""
    bad = tangled(drawing, home)
    if not bad:
        return home
    split = list(home)
    fresh, current, previous = max(home) + 1, 0, -1
    for place in sorted(range(len(home)), key=lambda place: order[drawing.shapes[place].members[0]]):
        if home[place] not in bad:
            continue
        if home[place] != previous:
            current, previous = fresh, home[place]
            fresh += 1
        split[place] = current
    return split


# ---------------------------------------------------------------- repeated blocks


def repeats(drawing: Drawing, graph: Graph, order: dict[int, int]) -> Drawing:
    """Draw sibling modules of the same structure, and calls of the same module, once.

    Only numbered siblings (of a list or a sequence) and repeated calls count as repeats, and only with
    two shapes or more; the shapes of all alike are merged place by place, so that each keeps the range
    over all of them. Those are left as they are between which other operations stand: drawn once, they
    would all lead to each of these and back.
    """
    chains = instances(drawing)
    inner: dict[Instance, list[int]] = {}
    children: dict[Instance, dict[Instance, None]] = {}

    def when(place: int) -> tuple[bool, int]:
        """Operations as they ran; leaves, drawn wherever they are used, say nothing of the order."""
        return is_leaf(drawing.shapes[place]), order[drawing.shapes[place].members[0]]

    for place in sorted(range(len(chains)), key=when):
        for end in range(1, len(chains[place]) + 1):
            chain = chains[place][:end]
            inner.setdefault(chain, []).append(place)
            children.setdefault(chain[:-1], {})[chain] = None
    apart: set[Instance] = set()
    while True:
        found = _repeats(drawing, graph, inner, children, apart)
        if not found.groups:
            return drawing
        wires = _to_the_next(drawing, found.step)
        bad = tangled(replace(drawing, wires=wires), found.home)
        woven = [
            alike[0] for alike in found.groups if any(found.home[place] in bad for place in inner[alike[0]])
        ]
        if not woven:
            return _merged_steps(replace(drawing, wires=wires), found)
        deepest = max(map(len, woven))
        apart.update(chain for chain in woven if len(chain) == deepest)


class _Repeats(NamedTuple):
    """Per shape, the shape it is drawn as and which of its group's instances it is in; the groups."""

    home: list[int]
    step: list[dict[int, int]]
    groups: list[list[Instance]]


def _repeats(
    drawing: Drawing,
    graph: Graph,
    inner: dict[Instance, list[int]],
    children: dict[Instance, dict[Instance, None]],
    apart: Collection[Instance],
) -> _Repeats:
    """What is alike, from the outside in; a group that begins with an instance of `apart` is none."""
    home = list(range(len(drawing.shapes)))
    step: list[dict[int, int]] = [{} for _ in home]
    groups: list[list[Instance]] = []
    waiting: list[Instance] = [()]
    while waiting:
        parent = waiting.pop()
        for alike in _alike(drawing, graph, list(children.get(parent, ())), inner):
            if alike[0] in apart:
                waiting.extend(alike)
                continue
            waiting.append(alike[0])
            if len(alike) == 1:
                continue
            models = _ranked(drawing, graph, inner[alike[0]], alike[0])
            for index, chain in enumerate(alike):
                for model, place in zip(models, _ranked(drawing, graph, inner[chain], chain), strict=True):
                    home[place] = model
                    step[place][len(groups)] = index
            groups.append(alike)
    for place in range(len(home)):
        model = place
        while home[model] != model:
            model = home[model]
            step[place] = {**step[model], **step[place]}
        home[place] = model
    return _Repeats(home, step, groups)


def _to_the_next(drawing: Drawing, step: list[dict[int, int]]) -> tuple[Wire, ...]:
    """The wires, those from one instance of a group to another marked as such."""
    return tuple(
        wire._replace(again=True)
        if any(step[wire.target].get(group, index) != index for group, index in step[wire.source].items())
        else wire
        for wire in drawing.wires
    )


def _alike(
    drawing: Drawing, graph: Graph, siblings: list[Instance], inner: dict[Instance, list[int]]
) -> list[list[Instance]]:
    """Siblings put together where they are alike; all others by themselves."""
    found: dict[object, list[Instance]] = {}
    called = {chain[-1][0] for chain in siblings if chain[-1][1]}
    for chain in siblings:
        name = chain[-1][0]
        key: object = chain
        if len(inner[chain]) > 1 and (name.isdigit() or name in called):
            places = _ranked(drawing, graph, inner[chain], chain)
            built = tuple(_rank(drawing.shapes[place], graph, chain) for place in places)
            key = built if name.isdigit() else (name, built)
        found.setdefault(key, []).append(chain)
    return list(found.values())


def _ranked(drawing: Drawing, graph: Graph, places: Iterable[int], chain: Instance) -> list[int]:
    """The shapes of an instance in an order that instances of the same structure share."""
    return sorted(places, key=lambda place: _rank(drawing.shapes[place], graph, chain))


def _rank(shape: Shape, graph: Graph, chain: Instance) -> tuple[Path, str, str, int]:
    node = graph.nodes[shape.members[0]]
    named = [shape.label] if node.kind == "leaf" else []
    named += sorted({graph.nodes[leaf].label.rpartition(".")[2] for leaf in shape.inside})
    return shape.module[len(chain) :], words.operation(node), " ".join(named), len(shape.inside)


def _title(alike: list[Instance]) -> str:
    """ "h.0–11 ×12" for siblings, "cell ×500 calls" for calls."""
    names = [chain[-1][0] for chain in alike]
    outer = f"{alike[0][-2][0]}." if len(alike[0]) > 1 else ""
    if len(set(names)) == 1:
        shown = f"{outer}{names[0]}" if names[0].isdigit() else names[0]
        return f"{shown} {theme.TIMES}{len(alike):,} calls"
    numbers = sorted(int(name) for name in set(names))
    whole = numbers[-1] - numbers[0] + 1 == len(numbers)
    listed = (
        f"{numbers[0]}–{numbers[-1]}"
        if whole
        else ",".join(map(str, numbers[:6])) + ",…" * (len(numbers) > 6)
    )
    return f"{outer}{listed} {theme.TIMES}{len(alike):,}"


def _merged_steps(drawing: Drawing, found: _Repeats) -> Drawing:
    """The drawing with the shapes of each group drawn once."""
    merging: dict[int, list[int]] = {}
    for place, model in enumerate(found.home):
        merging.setdefault(model, []).append(place)
    faces = {}
    for model, places in merging.items():
        if len(places) > 1:
            members, inside, hidden = merged(drawing, [model, *(place for place in places if place != model)])
            faces[model] = drawing.shapes[model]._replace(
                members=members, inside=inside, hidden=hidden, times=len(places)
            )
    calls = Counter((chain[:-1], chain[-1][0]) for chain in _all(instances(drawing)))
    titles = {
        tuple(name for name, _ in alike[0]): _title(alike)
        for alike in found.groups
        if len({chain[-1][0] for chain in alike}) > 1 or calls[alike[0][:-1], alike[0][-1][0]] == len(alike)
    }  # one frame holds all calls of a module: where some are drawn apart, it cannot say how many alike
    said = [f"{_title(alike)} drawn once" for alike in found.groups]
    folded = together(drawing, found.home, faces)
    few = said if len(said) <= 4 else [*said[:3], f"and {len(said) - 3} more repeats"]
    return replace(folded, folded=(*drawing.folded, *few), titles={**drawing.titles, **titles})


def _all(chains: Iterable[Instance]) -> set[Instance]:
    """The instances of `chains` and those around them."""
    return {chain[:end] for chain in set(chains) for end in range(1, len(chain) + 1)}
