"""The light steps of folding: leaves once per use, views left out, leaves inside their operation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

from explorer.graph import Graph
from explorer.render import theme, words
from explorer.render.drawing import Drawing, Shape, Wire, is_leaf
from explorer.render.marks import cast
from explorer.report import BAD_STATUSES, Report

SHARED = 4
"""A leaf used more often than this is drawn once per use: shared leaves, not many nodes, kill a layout."""
LOOSE = 3
"""More leaves than these that nothing uses are drawn as one."""


def kept(report: Report) -> frozenset[int]:
    """Nodes that must not be left out: roots, those with a hook or another dtype, and the accused."""
    found = {root for root, _ in report.graph.roots}
    found |= {node.id for node in report.graph.nodes if node.hooks or cast(report.graph, node.id)}
    found |= {verdict.node for verdict in report.verdicts if verdict.status in BAD_STATUSES}
    for finding in report.findings:
        found |= {*finding.nodes, *((finding.node,) if finding.node is not None else ())}
    return frozenset(found)


def leaves_per_use(drawing: Drawing) -> Drawing:
    """Draw a leaf that is used often once for each use; copies share its name and its members."""
    uses = Counter(wire.source for wire in drawing.wires)
    often = {
        place
        for place, shape in enumerate(drawing.shapes)
        if is_leaf(shape) and uses[place] > SHARED and shape.copies == 1
    }
    if not often:
        return drawing
    shapes = [
        shape if place not in often else shape._replace(copies=uses[place])
        for place, shape in enumerate(drawing.shapes)
    ]
    wires, drawn = [], Counter[int]()
    for wire in drawing.wires:
        drawn[wire.source] += 1
        if wire.source in often:
            user = drawing.shapes[wire.target]
            copy = shapes[wire.source]._replace(module=user.module, call=user.call)
            if drawn[wire.source] == 1:
                shapes[wire.source] = copy
            else:
                shapes.append(copy._replace(key=f"{copy.key}_{drawn[wire.source]}"))
                wire = wire._replace(source=len(shapes) - 1)
        wires.append(wire)
    said = f"{words.count(len(often), 'leaf')} drawn once per use, linked by name"
    return replace(drawing, shapes=tuple(shapes), wires=tuple(wires), folded=(*drawing.folded, said))


def without_views(drawing: Drawing, graph: Graph, keep: Collection[int]) -> Drawing:
    """Leave out reshapes with one wire in and one out; the shape that uses them hides them."""
    arriving = Counter(wire.target for wire in drawing.wires)
    leaving = Counter(wire.source for wire in drawing.wires)
    views = {
        place
        for place, shape in enumerate(drawing.shapes)
        if arriving[place] == 1
        and leaving[place] == 1
        and shape.kind == "op"
        and shape.members[0] not in keep
        and words.operation(graph.nodes[shape.members[0]]) in theme.VIEWS
    }
    if not views:
        return drawing
    after = {wire.source: wire.target for wire in drawing.wires if wire.source in views}
    hidden: dict[int, list[int]] = {}
    for view in sorted(views):
        user = after[view]
        while user in views:
            user = after[user]
        hidden.setdefault(user, []).extend(drawing.shapes[view].members)
    shapes = tuple(
        shape._replace(hidden=(*shape.hidden, *hidden.get(place, ())))
        for place, shape in enumerate(drawing.shapes)
    )
    into = {wire.target: wire for wire in drawing.wires if wire.target in views}
    wires = []
    for wire in drawing.wires:
        if wire.target in views:
            continue
        edges, source = list(wire.edges), wire.source
        while source in views:
            edges.extend(into[source].edges)
            source = into[source].source
        wires.append(wire._replace(source=source, edges=tuple(edges)))
    said = f"{words.count(len(views), 'reshape')} left out"
    drawing = replace(drawing, shapes=shapes, wires=tuple(wires), folded=(*drawing.folded, said))
    return without(drawing, views)


def leaves_inside(drawing: Drawing) -> Drawing:
    """Draw each parameter inside the operations that use it; leaves that nothing uses as one shape."""
    users: dict[int, list[int]] = {}
    for wire in drawing.wires:
        if drawing.shapes[wire.source].kind == "parameter":
            users.setdefault(wire.source, []).append(wire.target)
    inside: dict[int, list[int]] = {}
    for leaf, targets in users.items():
        for target in dict.fromkeys(targets):
            inside.setdefault(target, []).extend(drawing.shapes[leaf].members)
    shapes = tuple(
        shape._replace(inside=(*shape.inside, *inside[place])) if place in inside else shape
        for place, shape in enumerate(drawing.shapes)
    )
    said = f"{words.count(len(users), 'parameter')} drawn inside the operation that uses them"
    folded = (*drawing.folded, said) if users else drawing.folded
    drawing = replace(drawing, shapes=shapes, folded=folded)
    return _loose_as_one(without(drawing, users))


def _loose_as_one(drawing: Drawing) -> Drawing:
    used = {wire.source for wire in drawing.wires} | {wire.target for wire in drawing.wires}
    loose = [place for place, shape in enumerate(drawing.shapes) if is_leaf(shape) and place not in used]
    if len(loose) <= LOOSE:
        return drawing
    members = tuple(member for place in loose for member in drawing.shapes[place].members)
    shape = Shape(
        f"f{members[0]}", members, "fold", words.count(len(loose), "leaf"), note="not in this graph"
    )
    drawing = replace(drawing, shapes=(*drawing.shapes, shape))
    return without(drawing, loose)


def without(drawing: Drawing, gone: Collection[int]) -> Drawing:
    """The drawing without the shapes at the places `gone`, and without wires from or to them."""
    if not gone:
        return drawing
    absent = set(gone)
    moved: dict[int, int] = {}
    shapes: list[Shape] = []
    for place, shape in enumerate(drawing.shapes):
        if place not in absent:
            moved[place] = len(shapes)
            shapes.append(shape)
    wires = tuple(
        Wire(moved[wire.source], moved[wire.target], wire.edges, wire.again)
        for wire in drawing.wires
        if wire.source in moved and wire.target in moved
    )
    return replace(drawing, shapes=tuple(shapes), wires=wires)
