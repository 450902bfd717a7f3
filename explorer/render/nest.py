"""Modules in one another, each with a drawing of its own: what lets a page open and fold one in place.

A `Nest` cuts a drawing along its modules. What stands directly in a module, shapes and folded modules,
are its *things*: numbers below ``len(drawing.shapes)`` are places of shapes, those from there on are
modules. A wire is cut into *strands*, one in every module it passes; it passes the frame of an open
module by a *door*, into it at the top and out of it at the bottom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from explorer.render import words
from explorer.render.drawing import Drawing, Path, Shape
from explorer.render.modules import instances, module_name, untangled
from explorer.render.quotient import merged

WHOLE = 0
"""The number of the module that stands for the whole drawing."""


class Door(NamedTuple):
    """Where tensors pass a module's frame.

    `out`: they leave, and `things` is the one thing inside that they leave. Else they come in, and
    `things` are the places of the shapes outside that they come from.
    """

    out: bool
    things: tuple[int, ...]


class Strand(NamedTuple):
    """The part of wires that lies in one module: from `tail` to `head`, each a thing, or door d as -1 - d."""

    tail: int
    head: int
    edges: tuple[int, ...]
    again: bool = False


@dataclass(slots=True)
class Module:
    """One module: the box it is when folded, what it is called when open, and what is in it.

    `parent` is the number of the module around it (-1: none), `level` counts those around it. `named`
    gives, of a shape that is alone in a module, that module's name.
    """

    face: Shape
    name: str
    parent: int
    level: int
    things: list[int] = field(default_factory=list)
    named: dict[int, str] = field(default_factory=dict)
    doors: tuple[Door, ...] = ()
    strands: tuple[Strand, ...] = ()


@dataclass(frozen=True, slots=True)
class Nest:
    """A drawing and its modules, an outer one before those in it; number 0 is the whole drawing.

    `around` gives for each thing the chain of things it stands in, outermost first, itself last.
    """

    drawing: Drawing
    modules: tuple[Module, ...]
    around: tuple[tuple[int, ...], ...]

    def shown(self, opened: frozenset[int]) -> int:
        """How many boxes are in sight when the modules `opened` are open and all others folded."""
        first = len(self.drawing.shapes)
        homes = {
            next((thing for thing in chain if thing >= first and thing - first not in opened), chain[-1])
            for chain in self.around[:first]
        }
        return len(homes)

    def down_to(self, depth: int | None) -> frozenset[int]:
        """The modules that are open when those at `depth` (1 is a top-level module) are folded."""
        amount = range(len(self.modules))
        return frozenset(number for number in amount if depth is None or self.modules[number].level < depth)


def nested(drawing: Drawing, order: dict[int, int]) -> Nest:
    """Cut `drawing` along its modules.

    A module with one thing in it gives way to that thing. One that would close a cycle when folded is
    split into the runs of the forward pass it consists of. `order` gives each node its place in that.
    """
    groups, chains = _groups(drawing, order), instances(drawing)
    first = len(drawing.shapes)
    modules = [Module(Shape("z0", (), "module", ""), "", -1, 0)]
    numbers: dict[tuple[int, int], int] = {}
    around: list[tuple[int, ...]] = []
    for place, chain in enumerate(groups):
        found: list[int] = []
        parent, below = WHOLE, 0
        for depth, group in enumerate(chain, 1):
            if len(group.places) < 2 or (depth < len(chain) and group.size == chain[depth].size):
                continue
            key = depth, group.places[0]
            if key not in numbers:
                numbers[key] = len(modules)
                name = module_name(
                    drawing, drawing.shapes[place].module, below, depth, chains[place][depth - 1][1]
                )
                face = _face(drawing, group, len(modules), name, depth)
                modules.append(Module(face, name, parent, modules[parent].level + 1))
                modules[parent].things.append(first + numbers[key])
            parent, below = numbers[key], depth
            found.append(first + parent)
        if below < len(drawing.shapes[place].module):
            path = drawing.shapes[place].module
            modules[parent].named[place] = module_name(drawing, path, below, len(path))
        modules[parent].things.append(place)
        around.append((*found, place))
    nest = Nest(drawing, tuple(modules), tuple(around))
    _wire(nest)
    return nest


class _Group(NamedTuple):
    """The shapes of one module instance (or a run of one), the first in the forward pass first."""

    places: tuple[int, ...]

    @property
    def size(self) -> int:
        return len(self.places)


def _groups(drawing: Drawing, order: dict[int, int]) -> list[list[_Group]]:
    """For each shape the groups it is in, outermost first, one for each level of its module's path."""
    chains = instances(drawing)
    when = [order[shape.members[0]] for shape in drawing.shapes]
    found: list[list[_Group]] = [[] for _ in chains]
    home = [0] * len(chains)
    for depth in range(1, max(map(len, chains), default=0) + 1):
        numbers: dict[object, int] = {}
        home = [
            numbers.setdefault(
                (home[place], chain[:depth]) if len(chain) >= depth else (place,), len(numbers)
            )
            for place, chain in enumerate(chains)
        ]
        home = untangled(drawing, home, order)
        together: dict[int, list[int]] = {}
        for place in sorted(range(len(chains)), key=when.__getitem__):
            together.setdefault(home[place], []).append(place)
        made = {number: _Group(tuple(places)) for number, places in together.items()}
        for place, chain in enumerate(chains):
            if len(chain) >= depth:
                found[place].append(made[home[place]])
    return found


def _face(drawing: Drawing, group: _Group, number: int, name: str, depth: int) -> Shape:
    """The box that a module is when folded."""
    members, inside, hidden = merged(drawing, group.places)
    path: Path = drawing.shapes[group.places[0]].module[:depth]
    amount = words.count(len({*members, *inside, *hidden}), "node")
    return Shape(f"z{number}", members, "module", name, path, inside=inside, hidden=hidden, note=amount)


# ---------------------------------------------------------------- wires, cut into strands


class _Ways:
    """What is collected for one module while wires are cut."""

    def __init__(self) -> None:
        self.between: dict[tuple[int, int, bool], list[int]] = {}
        self.into: dict[int, dict[int, list[int]]] = {}
        self.out: dict[int, list[int]] = {}


def _wire(nest: Nest) -> None:
    """Give every module its doors and strands."""
    first = len(nest.drawing.shapes)
    ways = [_Ways() for _ in nest.modules]
    for wire in nest.drawing.wires:
        tail, head = nest.around[wire.source], nest.around[wire.target]
        depth = next(
            place for place, (one, other) in enumerate(zip(tail, head, strict=False)) if one != other
        )
        outer = ways[tail[depth - 1] - first if depth else WHOLE]
        outer.between.setdefault((tail[depth], head[depth], wire.again), []).extend(wire.edges)
        if wire.again:
            continue
        for module, thing in _passed(tail, depth, first):
            ways[module].out.setdefault(thing, []).extend(wire.edges)
        for module, thing in _passed(head, depth, first):
            ways[module].into.setdefault(wire.source, {}).setdefault(thing, []).extend(wire.edges)
    for inner, way in zip(nest.modules, ways, strict=True):
        inner.doors, inner.strands = _doors(way)


def _passed(chain: Sequence[int], depth: int, first: int) -> Iterator[tuple[int, int]]:
    """The modules whose frames a wire passes on its way to the end of `chain`, and the thing behind each."""
    return ((chain[place] - first, chain[place + 1]) for place in range(depth, len(chain) - 1))


def _doors(way: _Ways) -> tuple[tuple[Door, ...], tuple[Strand, ...]]:
    """Tensors that go to the same things share a door, and so do all that come from one thing."""
    strands = [Strand(tail, head, tuple(edges), again) for (tail, head, again), edges in way.between.items()]
    sharing: dict[frozenset[int], list[int]] = {}
    for source, heads in way.into.items():
        sharing.setdefault(frozenset(heads), []).append(source)
    doors: list[Door] = []
    for things, sources in sharing.items():
        doors.append(Door(False, tuple(sources)))
        strands += [
            Strand(-len(doors), thing, tuple(edge for source in sources for edge in way.into[source][thing]))
            for thing in sorted(things)
        ]
    for thing, edges in way.out.items():
        doors.append(Door(True, (thing,)))
        strands.append(Strand(thing, -len(doors), tuple(edges)))
    return tuple(doors), tuple(strands)
