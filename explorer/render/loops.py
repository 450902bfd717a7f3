"""Folding what modules cannot tell: loops in plain code, and graphs with no structure at all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace

from explorer.graph import Graph
from explorer.render import theme, words
from explorer.render.drawing import Drawing, Shape
from explorer.render.quotient import against_the_flow, merged, together

PARTS = 24
"""Boxes of the coarsest drawing."""
ROUNDS = 2
"""How far around a node its neighbours must be alike for the node to be."""


def by_line(drawing: Drawing, graph: Graph) -> Drawing:
    """Draw the passes of a loop once: operations of one name, made by one line, are one shape."""

    def key(shape: Shape) -> Hashable:
        node = graph.nodes[shape.members[0]]
        if node.source is None or node.kind == "leaf":
            return None
        return node.source.file, node.source.line, node.name, shape.module, shape.label, len(shape.inside)

    def note(shape: Shape) -> str:
        source = graph.nodes[shape.members[0]].source
        return f"{source.file.replace(chr(92), '/').rpartition('/')[2]}:{source.line}" if source else ""

    return _once(drawing, [key(shape) for shape in drawing.shapes], note, "passes of a loop drawn once")


def alike(drawing: Drawing, graph: Graph) -> Drawing:
    """Draw operations once whose surroundings are alike (Weisfeiler and Leman 1968, `ROUNDS` rounds)."""
    numbers: dict[Hashable, int] = {}
    colours = [
        numbers.setdefault(
            (words.operation(graph.nodes[shape.members[0]]), shape.kind, shape.module), len(numbers)
        )
        for shape in drawing.shapes
    ]
    before: list[list[int]] = [[] for _ in colours]
    after: list[list[int]] = [[] for _ in colours]
    for wire in drawing.wires:
        before[wire.target].append(wire.source)
        after[wire.source].append(wire.target)
    for _ in range(ROUNDS):
        numbers = {}
        colours = [
            numbers.setdefault(
                (
                    colour,
                    _palette(colours, before[place]),
                    _palette(colours, after[place]),
                ),
                len(numbers),
            )
            for place, colour in enumerate(colours)
        ]
    return _once(drawing, colours, lambda _: "", "operations with the same surroundings drawn once")


def _palette(colours: Sequence[int], places: Sequence[int]) -> int | tuple[int, ...]:
    """The colours of some places, whatever their order."""
    if len(places) == 1:
        return colours[places[0]]
    return tuple(sorted([colours[place] for place in places]))


def _once(drawing: Drawing, keys: Sequence[Hashable], note: Callable[[Shape], str], said: str) -> Drawing:
    """One shape for all shapes of a key; None stands alone."""
    numbers: dict[Hashable, int] = {}
    home = [
        numbers.setdefault(("alone", place) if key is None else key, len(numbers))
        for place, key in enumerate(keys)
    ]
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(home):
        groups.setdefault(group, []).append(place)
    faces = {}
    for group, places in groups.items():
        if len(places) > 1:
            members, inside, hidden = merged(drawing, places)
            face = drawing.shapes[places[0]]
            times = sum(drawing.shapes[place].times for place in places)
            faces[group] = face._replace(
                members=members, inside=inside, hidden=hidden, times=times, note=note(face), copies=1
            )
    if not faces:
        return drawing
    folded = against_the_flow(together(drawing, home, faces))
    return replace(folded, folded=(*drawing.folded, said))


def parts(drawing: Drawing, graph: Graph, order: dict[int, int], amount: int = PARTS) -> Drawing:
    """Cut the forward pass into `amount` stretches and draw each as one box that lists its operations."""
    roots = {root for root, _ in graph.roots}
    places = sorted(
        (place for place, shape in enumerate(drawing.shapes) if roots.isdisjoint(shape.members)),
        key=lambda place: order[drawing.shapes[place].members[0]],
    )
    size = max(1, -(-len(places) // amount))
    home = list(range(len(places), len(places) + len(drawing.shapes)))
    faces = {}
    for number, begin in enumerate(range(0, len(places), size)):
        run = places[begin : begin + size]
        for place in run:
            home[place] = number
        if len(run) > 1:
            faces[number] = _stretch(drawing, graph, run)
    folded = against_the_flow(together(drawing, home, faces))
    said = f"the forward pass cut into {len(set(home)):,} stretches"
    return replace(folded, folded=(*drawing.folded, said), titles={})


def _stretch(drawing: Drawing, graph: Graph, run: list[int]) -> Shape:
    members, inside, hidden = merged(drawing, run)
    names = Counter(
        words.operation(graph.nodes[member]) for member in members if graph.nodes[member].kind != "leaf"
    )
    common = ", ".join(
        f"{words.clean(name, 20)} {theme.TIMES}{times:,}" for name, times in names.most_common(3)
    )
    modules = Counter(drawing.shapes[place].module for place in run)
    path = modules.most_common(1)[0][0]
    label = ".".join(path[-2:]) if path else words.count(len(members), "node")
    return Shape(
        f"f{members[0]}",
        members,
        "fold",
        label,
        inside=inside,
        hidden=hidden,
        note=common + ", …" * (len(names) > 3),
    )
