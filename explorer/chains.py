"""Every chain-rule path from the root to one node: its local derivatives, its share of the gradient.

The gradient of a variable is the sum, over all paths from the output to it, of the product of the local
derivatives along the path. Paths are counted exactly without listing them (a sum over the graph, in
integers of any size), and the largest contributions are listed best first. Where a path crosses tensors
its contribution is not one number; then the shares of the last edges are shown, whose sizes were recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from math import inf, isclose, isnan, log, prod

from explorer.derivatives import AGREE, Local, local_derivatives, scalar_of, wire_names
from explorer.errors import UsageError
from explorer.report import Report
from explorer.values import Forward

__all__ = ["Group", "Path", "Paths", "paths"]

State = tuple[int, int]
"""(node, output slot): where a gradient stands."""

MEASURED = 200
"""Of so many paths through tensors each is run by itself."""

SHOWN = 12
"""A longer path is written with its middle left out."""


@dataclass(frozen=True, slots=True)
class Path:
    """One way from the root to the variable.

    `nodes` runs from the root to the variable, `edges` (indices into ``graph.edges``) joins them, `local`
    has one derivative per edge (None where it is not one number), and `contribution` is the root's own
    gradient times all of them (None where one is missing).
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    local: tuple[float | None, ...]
    contribution: float | None
    norm: float | None = None


@dataclass(frozen=True, slots=True)
class Group:
    """All paths that end with one edge: how many, and the 2-norm of what came along it, None if unknown."""

    edge: int
    count: int
    norm: float | None


@dataclass(frozen=True)
class Paths:
    """The paths to `target`: the exact `count`, those `listed`, and the `total` of all contributions.

    `total` is None where it is not one number. `gradient` is what the target received in the recorded
    backward. `groups` splits the paths by their last edge; `note` says what is shown and why.
    """

    target: int
    count: int
    total: float | None
    gradient: float | None
    listed: tuple[Path, ...]
    groups: tuple[Group, ...]
    note: str
    text: str

    def __str__(self) -> str:
        return self.text

    def __iter__(self) -> Iterator[Path]:
        """The listed paths, the largest contribution first."""
        return iter(self.listed)

    def __len__(self) -> int:
        """How many paths are listed; `count` says how many there are."""
        return len(self.listed)

    def __getitem__(self, place: int) -> Path:
        return self.listed[place]


def paths(
    report: Report,
    target: int,
    limit: int = 10,
    forward: Forward | None = None,
    norm: Callable[[Path], float | None] | None = None,
) -> Paths:
    """The chain-rule paths from the roots of `report` to node `target`, the `limit` largest listed.

    `norm` says how much a path through tensors brings (see `explorer.contributions`); it is asked where all
    of at most `MEASURED` paths are listed.

    Raises `UsageError` for a node number outside the graph. A target that no path reaches has count 0.
    """
    if not 0 <= target < len(report.graph.nodes):
        raise UsageError(f"no node {target}: the graph has nodes 0 to {len(report.graph.nodes) - 1}")
    search = _Search(report, target, local_derivatives(report, forward))
    count, groups = search.count()
    total = search.total()
    listed = search.largest(limit) if limit > 0 and count else ()
    if norm is not None and total is None and len(listed) == count <= MEASURED:
        measured = [replace(path, norm=norm(path)) for path in listed]
        listed = tuple(sorted(measured, key=lambda path: -(path.norm or 0.0)))
    gradient = _received(report, target)
    note = _note(report, target, count, total, gradient, listed)
    text = _text(report, target, count, total, listed, groups, note, forward)
    return Paths(target, count, total, gradient, listed, groups, note, text)


def target_of(report: Report, name: str) -> int:
    """The node called `name`, a variable's or parameter's name.

    Raises:
        UsageError: no node, or several, have that name; the message lists those there are.
    """
    found = [node.id for node in report.graph.nodes if name in (node.label, *node.names)]
    if len(found) == 1:
        return found[0]
    named = sorted({node.label for node in report.graph.nodes if node.names})
    if not found:
        raise UsageError(
            f"nothing in the graph is called {name!r}; there are {', '.join(named[:20]) or 'no names'}"
        )
    raise UsageError(f"{len(found)} nodes are called {name!r}: {', '.join(map(str, found[:20]))}")


class _Search:
    """The part of the graph between the roots and the target, and three sweeps over it."""

    def __init__(self, report: Report, target: int, local: Mapping[tuple[int, int], Local]) -> None:
        self.report, self.graph, self.target, self.local = report, report.graph, target, local
        self.reaches = self._reaching()
        self.seeds = {root: _seed(report, root) for root in dict.fromkeys(report.graph.roots)}
        self.order = [node for node in self.graph.order if node in self.reaches]

    def _reaching(self) -> frozenset[int]:
        """The nodes from which the target can be reached, itself included."""
        found, waiting = {self.target}, [self.target]
        while waiting:
            for index in self.graph.incoming[waiting.pop()]:
                source = self.graph.edges[index].source
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return frozenset(found)

    def onward(self, node: int) -> list[int]:
        """The edges of `node` that lead towards the target; none from the target itself."""
        if node == self.target:
            return []
        return [
            index for index in self.graph.outgoing[node] if self.graph.edges[index].target in self.reaches
        ]

    def count(self) -> tuple[int, tuple[Group, ...]]:
        """How many paths there are, and how they split by their last edge."""
        ways = dict.fromkeys(self.reaches, 0)
        for node, _ in self.graph.roots:
            if node in ways:
                ways[node] += 1
        for node in self.order:
            for index in self.onward(node):
                ways[self.graph.edges[index].target] += ways[node]
        groups = tuple(
            Group(index, ways[self.graph.edges[index].source], _edge_norm(self.report, index))
            for index in self.graph.incoming[self.target]
            if ways[self.graph.edges[index].source]
        )
        return ways[self.target], groups

    def total(self) -> float | None:
        """The sum of all contributions, from the same sweep as backward itself; None without numbers."""
        amount: dict[State, float] = {}
        for root, seed in self.seeds.items():
            if root[0] in self.reaches:
                if seed is None:
                    return None
                amount[root] = amount.get(root, 0.0) + seed
        arriving = self._slots()
        for node in self.order:
            for index in self.onward(node):
                edge = self.graph.edges[index]
                state = (edge.target, edge.target_slot)
                for slot in arriving[node]:
                    value = self.local[index, slot].value if (index, slot) in self.local else None
                    if value is None:
                        return None
                    amount[state] = amount.get(state, 0.0) + amount[node, slot] * value
        return sum(number for (node, _), number in amount.items() if node == self.target)

    def _slots(self) -> dict[int, list[int]]:
        """The output slots of each node at which a path arrives, ascending."""
        found: dict[int, set[int]] = {node: set() for node in self.reaches}
        for node, slot in self.graph.roots:
            if node in found:
                found[node].add(slot)
        for node in self.order:
            if found[node]:
                for index in self.onward(node):
                    edge = self.graph.edges[index]
                    found[edge.target].add(edge.target_slot)
        return {node: sorted(slots) for node, slots in found.items()}

    def size(self, index: int, slot: int) -> float:
        """The logarithm of |local derivative|; 0 (a factor of 1) where it is not one number."""
        found = self.local.get((index, slot))
        return _log(found.value) if found and found.value is not None else 0.0

    def largest(self, limit: int) -> tuple[Path, ...]:
        """The `limit` paths of largest |contribution|, largest first, ties in the order of discovery.

        From the target upwards, each state keeps its `limit` best ways on: a best way begins with an edge
        and goes on along one of the best ways of where it leads. So the work is edges × limit, however
        many paths there are. Where derivatives are missing they count as 1, which then orders nothing.
        """
        ways: dict[State, list[_Way]] = {}
        arriving = self._slots()
        for node in reversed(self.order):
            for slot in arriving[node]:
                ways[node, slot] = [_Way(0.0, -1, node, slot, 0)] if node == self.target else []
                for index in self.onward(node):
                    edge = self.graph.edges[index]
                    size = self.size(index, slot)
                    state = (edge.target, edge.target_slot)
                    ways[node, slot] += [
                        _Way(size + way.size, index, *state, rank) for rank, way in enumerate(ways[state])
                    ]
                ways[node, slot] = sorted(ways[node, slot], key=_Way.order)[:limit]
        starts = [
            _Way(way.size + (_log(seed) if seed is not None else 0.0), -1, *root, rank)
            for root, seed in self.seeds.items()
            for rank, way in enumerate(ways.get(root, ()))
        ]
        return tuple(self._path(start, ways) for start in sorted(starts, key=_Way.order)[:limit])

    def _path(self, start: _Way, ways: Mapping[State, list[_Way]]) -> Path:
        """The path that begins as `start` says, followed to the target."""
        state, rank = (start.node, start.slot), start.rank
        nodes, edges, local = [state[0]], [], []
        seed = self.seeds[state]
        while state[0] != self.target:
            way = ways[state][rank]
            edges.append(way.edge)
            local.append(self.local[way.edge, state[1]].value if (way.edge, state[1]) in self.local else None)
            state, rank = (way.node, way.slot), way.rank
            nodes.append(state[0])
        numbers = [number for number in local if number is not None]
        whole = seed is not None and len(numbers) == len(local)
        contribution = prod(numbers, start=seed) if whole and seed is not None else None
        return Path(tuple(nodes), tuple(edges), tuple(local), contribution)


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the best ways on from a state: the logarithm of its |product|, its first edge, the state that
    edge leads to, and which of that state's best ways it goes on with."""

    size: float
    edge: int
    node: int
    slot: int
    rank: int

    def order(self) -> float:
        """Smaller is better."""
        return -self.size


def _log(number: float | None) -> float:
    """log |number|: -inf for 0; nan sorts with the largest."""
    if number is None or isnan(number):
        return inf
    return log(abs(number)) if number else -inf


def _seed(report: Report, root: State) -> float | None:
    """The gradient that backward began with at `root`: what was received there, else 1 for a scalar.

    A root that is also inside the graph of another root receives more than its own beginning; then 1.
    """
    node, slot = root
    outputs = report.graph.nodes[node].outputs
    spec = outputs[slot] if slot < len(outputs) else None
    record = report.gradient(node, slot)
    if record is not None and not report.graph.incoming[node] and report.graph.roots.count(root) == 1:
        return scalar_of(record)
    return 1.0 if spec is None or spec.numel == 1 else None


def _received(report: Report, target: int) -> float | None:
    """The single number the target received, summed over its outputs; None where it is no number."""
    record = report.gradients[target] if target < len(report.gradients) else None
    if record is None:
        return None
    numbers = [scalar_of(part) for part in record.received if part is not None]
    known = [number for number in numbers if number is not None]
    return sum(known) if known and len(known) == len(numbers) else None


def _edge_norm(report: Report, index: int) -> float | None:
    """The 2-norm of what the edge carried, None where it was not recorded."""
    if index < len(report.edge_gradients):
        record = report.edge_gradients[index]
        if record is not None:
            return record.norm
    edge = report.graph.edges[index]
    if len(report.graph.incoming[edge.target]) == 1:
        total = report.gradient(edge.target, edge.target_slot)
        return total.norm if total else None
    return None


def _note(
    report: Report,
    target: int,
    count: int,
    total: float | None,
    gradient: float | None,
    listed: tuple[Path, ...],
) -> str:
    """What the numbers mean, and what is shown where there are none."""
    if not count:
        return "no path leads there: its gradient is 0 (None in PyTorch)"
    if total is None:
        return (
            "tensors lie on the way, so a path's contribution is not one number; shown instead: the paths "
            "grouped by their last edge, with the norm of the gradient that came along it (norms of parts do "
            "not add up to the norm of the sum)"
            if _crosses_tensors(report, listed)
            else "some local derivatives are not known, so the contributions cannot be multiplied out"
        )
    if gradient is None:
        return "the gradient itself was not recorded as one number"
    outputs = report.graph.nodes[target].outputs
    spec = outputs[0] if outputs else None
    close = AGREE.get(spec.dtype if spec else "float32", 1e-4)
    if isclose(total, gradient, rel_tol=close, abs_tol=close * 1e-3) or (isnan(total) and isnan(gradient)):
        return ""
    return (
        f"the paths sum to {total:.6g} but {gradient:.6g} was received: a hook changed a gradient on the "
        "way, a value was changed in place, or a node is wrong (see the check)"
    )


def _crosses_tensors(report: Report, listed: tuple[Path, ...]) -> bool:
    """Whether a listed path goes through anything of more than one element."""
    return any(
        spec is not None and spec.numel != 1
        for path in listed
        for node in path.nodes
        for spec in report.graph.nodes[node].outputs
    )


def _text(
    report: Report,
    target: int,
    count: int,
    total: float | None,
    listed: tuple[Path, ...],
    groups: tuple[Group, ...],
    note: str,
    forward: Forward | None,
) -> str:
    """The whole result in words, ending with a line break."""
    names = wire_names(report, forward)
    paths_word = "path" if count == 1 else "paths"
    lines = [f"{count:,} {paths_word} from {_root(report, names)} to {names[target]}"]
    if listed and len(listed) < count:
        lines[0] += f"; the {len(listed)} {'largest' if total is not None else 'first'} are listed"
    for number, path in enumerate(listed, 1):
        lines.append(f"{number:>3}. {_chain(path, names)}")
        if path.contribution is not None:
            factors = " × ".join(_short(value) for value in path.local if value is not None) or "1"
            if len(path.local) > SHOWN:
                factors = f"product of {len(path.local)} local derivatives"
            lines.append(f"     {factors} = {_short(path.contribution)}")
        elif path.norm is not None:
            lines.append(f"     brings a gradient of norm {path.norm:.6g}")
    if total is not None and count:
        lines.append(f"sum of all {count:,}: {_short(total)}" if count > 1 else f"gradient: {_short(total)}")
    elif groups:
        for group in groups:
            edge = report.graph.edges[group.edge]
            size = "not recorded" if group.norm is None else f"norm {group.norm:.6g}"
            many = f"{group.count:,} {'path' if group.count == 1 else 'paths together'}"
            lines.append(
                f"     through {names[edge.source]} ({report.graph.nodes[edge.source].name}): {many}, {size}"
            )
    if note:
        lines.append(note)
    return "\n".join(lines) + "\n"


def _root(report: Report, names: tuple[str, ...]) -> str:
    """The roots by name."""
    return ", ".join(dict.fromkeys(names[node] for node, _ in report.graph.roots))


def _chain(path: Path, names: tuple[str, ...]) -> str:
    """The nodes of a path by name, a long one without its middle."""
    words = [names[node] for node in path.nodes]
    if len(words) > SHOWN:
        words = [*words[: SHOWN // 2], f"… {len(words) - SHOWN} more …", *words[-SHOWN // 2 :]]
    return " → ".join(words)


def _short(number: float) -> str:
    """Six significant digits, a negative number in brackets so that products read well."""
    return f"({number:.6g})" if number < 0 else f"{number:.6g}"
