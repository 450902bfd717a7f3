"""Drawing a part: the surroundings of a name, module or node, or the paths between two of them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from difflib import get_close_matches

from explorer.errors import UsageError
from explorer.graph import Graph, Node
from explorer.render import words
from explorer.render.drawing import Drawing
from explorer.render.simplify import without


def focused(drawing: Drawing, graph: Graph, what: str) -> Drawing:
    """The part of `drawing` that `what` names.

    `what` is a node id, a name, an operation or a module, drawn with its neighbours; or two of these
    joined by "..", drawn with every path between them. `drawing` has one shape per node.

    Raises:
        UsageError: nothing has that name; the message lists similar names.
    """
    first, between, second = what.partition("..")
    if between and first and second:
        ends = find(graph, first), find(graph, second)
        chosen = _paths(graph, *ends) or _paths(graph, *reversed(ends))
        if not chosen:
            raise UsageError(f"there is no path between {first!r} and {second!r} in the graph")
        said = f"only the paths between {words.clean(first, 40)} and {words.clean(second, 40)}"
    else:
        named = find(graph, what)
        chosen = set(named)
        for node in named:
            chosen |= {graph.edges[index].target for index in graph.outgoing[node]}
            chosen |= {graph.edges[index].source for index in graph.incoming[node]}
        said = f"only {words.clean(what, 40)} and its neighbours"
    others = [place for place, shape in enumerate(drawing.shapes) if shape.members[0] not in chosen]
    return replace(without(drawing, others), folded=(*drawing.folded, said))


def find(graph: Graph, name: str) -> tuple[int, ...]:
    """Ids of the nodes that `name` means: an id, else names, else modules, else operations."""
    if not name.strip():
        raise UsageError("the part to draw has an empty name; name a variable, a module or a node")
    digits = name.removeprefix("n")
    if digits.isdecimal() and int(digits) < len(graph.nodes):
        return (int(digits),)
    tests: tuple[Callable[[Node], bool], ...] = (
        lambda node: name == node.label or name in node.names,
        lambda node: node.module == name or node.module.startswith(f"{name}."),
        lambda node: name.lower() in (node.name.lower(), words.operation(node).lower()),
        lambda node: node.label.endswith(f".{name}") or f".{name}." in f".{node.module}.",
    )
    for test in tests:
        found = tuple(node.id for node in graph.nodes if test(node))
        if found:
            return found
    known = (
        {node.label for node in graph.nodes}
        | {node.module for node in graph.nodes}
        | {words.operation(node) for node in graph.nodes}
    )
    close = get_close_matches(name, sorted(known - {""}), n=5, cutoff=0.4)
    hint = f"; did you mean {', '.join(map(repr, close))}?" if close else ""
    raise UsageError(f"nothing in the graph is called {name!r}{hint}")


def _paths(graph: Graph, starts: Iterable[int], ends: Iterable[int]) -> set[int]:
    """Nodes on a path along the gradient from one of `starts` to one of `ends`."""
    down = _reached(starts, [[graph.edges[index].target for index in edges] for edges in graph.outgoing])
    up = _reached(ends, [[graph.edges[index].source for index in edges] for edges in graph.incoming])
    return down & up


def _reached(starts: Iterable[int], after: Sequence[Collection[int]]) -> set[int]:
    found = set(starts)
    waiting = list(found)
    while waiting:
        for other in after[waiting.pop()]:
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
