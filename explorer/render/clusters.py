"""Modules as nested clusters: which shapes stand in which, and which frames are worth drawing."""

from __future__ import annotations

from dataclasses import dataclass, field

from explorer.render import words
from explorer.render.drawing import Drawing, Path, Shape, is_leaf


@dataclass(slots=True)
class Cluster:
    """One frame: its dotted path, the name on it, the places of its own shapes, the frames in it.

    `named` gives the module's name of shapes whose own frame was left out.
    """

    path: Path
    name: str = ""
    shapes: list[int] = field(default_factory=list)
    inner: dict[tuple[str, int], Cluster] = field(default_factory=dict)
    named: dict[int, str] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Shapes and frames directly inside."""
        return len(self.shapes) + len(self.inner)


def tree(drawing: Drawing) -> Cluster:
    """The frames of a drawing, without those that would hold nothing but one frame or one shape.

    A module called several times has one frame per call where it holds no other module.
    """
    parents = {shape.module[:end] for shape in drawing.shapes for end in range(len(shape.module))}
    top = Cluster(())
    for place, shape in enumerate(drawing.shapes):
        frame = top
        for end in range(1, len(shape.module) + 1):
            path = shape.module[:end]
            call = shape.call if end == len(shape.module) and path not in parents else 0
            frame = frame.inner.setdefault((shape.module[end - 1], call), Cluster(path))
        frame.shapes.append(place)
    for frame in reversed(preorder(top)):
        _tighten(frame, drawing)
    return top


def preorder(top: Cluster) -> list[Cluster]:
    """All frames, each before those inside it."""
    found, waiting = [], [top]
    while waiting:
        frame = waiting.pop()
        found.append(frame)
        waiting.extend(reversed(frame.inner.values()))
    return found


def _tighten(frame: Cluster, drawing: Drawing) -> None:
    """Name the frames of `frame`; one that holds a single frame or shape gives way to it."""
    kept = {}
    for (name, call), inner in frame.inner.items():
        shown = words.numbered(frame.path[-1] if frame.path else "", name)
        shown = drawing.titles.get((*frame.path, name), shown)
        if inner.shapes and inner.size == 1:
            place = inner.shapes[0]
            frame.shapes.append(place)
            frame.named[place] = f"{shown}.{inner.named[place]}" if place in inner.named else shown
            continue
        if not inner.shapes and inner.size == 1:
            (inner,) = inner.inner.values()
            tail = inner.name.removeprefix(f"{name}.")
            shown = f"{shown} · {inner.name}" if (*frame.path, name) in drawing.titles else f"{shown}.{tail}"
        inner.name = f"{shown} (call {call + 1})" if call else shown
        kept[name, call] = inner
    frame.inner = kept


def told(drawing: Drawing, shape: Shape) -> bool:
    """True if a frame around `shape` already says how many alike it stands for."""
    return any(shape.module[:end] in drawing.titles for end in range(1, len(shape.module) + 1))


def headroom(drawing: Drawing) -> dict[int, int]:
    """By place in `drawing.wires`, how many rows a wire spans at least; those that span one are left out.

    A wire from outside meets the parameters of its target, which stand in the rows above it. Ending lower
    than they begin, it lets their frame stand under the one the wire comes from, not beside it.
    """
    above: list[list[int]] = [[] for _ in drawing.shapes]
    below: list[list[int]] = [[] for _ in drawing.shapes]
    for wire in drawing.wires:
        if not wire.again:
            above[wire.target].append(wire.source)
            below[wire.source].append(wire.target)
    rows = [1 if is_leaf(shape) else 0 for shape in drawing.shapes]
    module = [shape.module for shape in drawing.shapes]
    waiting = [place for place, amount in enumerate(rows) if amount]
    while waiting:  # what is made of parameters of the same frame alone, such as a transposed weight
        for place in below[waiting.pop()]:
            own = [rows[one] if module[one] == module[place] else 0 for one in above[place]]
            if not rows[place] and all(own):
                rows[place] = 1 + max(own)
                waiting.append(place)
    found = {}
    for number, wire in enumerate(drawing.wires):
        end = module[wire.target]
        if wire.again or module[wire.source] == end or is_leaf(drawing.shapes[wire.source]):
            continue
        over = max((rows[one] for one in above[wire.target] if module[one] == end), default=0)
        if over:
            found[number] = over + 1
    return found
