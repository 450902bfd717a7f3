"""Every chain-rule path from the root to one node: its local derivatives, its share of the gradient.

The gradient of a variable is the sum, over all paths from the output to it, of the product of the local
derivatives along the path. Paths are counted exactly without listing them, and the largest contributions are
listed best first (`explorer.routes`). Where a path crosses tensors its contribution is not one number; then
its size is told, where it was measured (`explorer.contributions`), else the paths grouped by last edge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod

from explorer.chain_words import Telling
from explorer.derivatives import Local, local_derivatives, scalar_of
from explorer.errors import UsageError
from explorer.report import Report, Shares
from explorer.routes import Search, State, logarithm
from explorer.values import Forward

__all__ = ["Group", "Path", "Paths", "paths", "target_of"]


@dataclass(frozen=True, slots=True)
class Path:
    """One way from the root to the variable.

    `nodes` runs from the root to the variable, `edges` (indices into ``graph.edges``) joins them, `local`
    has one derivative per edge (None where it is not one number), and `contribution` is the root's own
    gradient times all of them (None where one is missing). Where tensors lie on the way and it was measured,
    `norm` is the 2-norm of what the path brings, and `share` how much of the gradient's length that makes up
    in the gradient's direction: the shares of all paths add up to 1.
    """

    nodes: tuple[int, ...]
    edges: tuple[int, ...]
    local: tuple[float | None, ...]
    contribution: float | None
    norm: float | None = None
    share: float | None = None


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
    backward. `groups` splits the paths by their last edge; `note` says what is shown and why. `shares` is
    what was measured where tensors lie on the way.
    """

    target: int
    count: int
    total: float | None
    gradient: float | None
    listed: tuple[Path, ...]
    groups: tuple[Group, ...]
    note: str
    text: str
    shares: Shares | None = None

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
    shares: Shares | None = None,
) -> Paths:
    """The chain-rule paths from the roots of `report` to node `target`, the `limit` largest listed.

    `shares` says how much paths through tensors bring (see `explorer.contributions`); by default what the
    report itself holds of this target.

    Raises `UsageError` for a node number outside the graph. A target that no path reaches has count 0.
    """
    if not 0 <= target < len(report.graph.nodes):
        raise UsageError(f"no node {target}: the graph has nodes 0 to {len(report.graph.nodes) - 1}")
    if shares is None and report.shares is not None and report.shares.target == target:
        shares = report.shares
    found = _Found(report, target, local_derivatives(report, forward))
    ways = found.search.ways()
    count, groups = ways[target], found.groups(ways)
    total = found.total()
    measured = shares if shares is not None and total is None and not shares.problem else None
    listed: tuple[Path, ...] = ()
    if measured is not None:
        listed = tuple(
            found.measured(share.edges, share.norm, share.share) for share in measured.listed[:limit]
        )
    elif limit > 0 and count:
        listed = found.largest(limit)
    gradient = _received(report, target)
    told = Telling(report, target, count, total, listed, groups, shares if total is None else None)
    note = told.note(gradient)
    return Paths(target, count, total, gradient, listed, groups, note, told.text(note, forward), measured)


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


class _Found:
    """The search for one target, and the numbers along its ways."""

    def __init__(self, report: Report, target: int, local: Mapping[tuple[int, int], Local]) -> None:
        self.report, self.graph, self.local = report, report.graph, local
        self.search = Search(report.graph, target)
        self.seeds = {root: _seed(report, root) for root in dict.fromkeys(report.graph.roots)}

    def groups(self, ways: Mapping[int, int]) -> tuple[Group, ...]:
        """How the paths split by their last edge."""
        return tuple(
            Group(index, ways[self.graph.edges[index].source], _edge_norm(self.report, index))
            for index in self.graph.incoming[self.search.target]
            if ways[self.graph.edges[index].source]
        )

    def total(self) -> float | None:
        """The sum of all contributions, from the same sweep as backward itself; None without numbers."""
        amount: dict[State, float] = {}
        for root, seed in self.seeds.items():
            if root[0] in self.search.reaches:
                if seed is None:
                    return None
                amount[root] = amount.get(root, 0.0) + seed
        for node in self.search.order:
            for index in self.search.onward(node):
                edge = self.graph.edges[index]
                state = (edge.target, edge.target_slot)
                for slot in self.search.slots[node]:
                    value = self.local[index, slot].value if (index, slot) in self.local else None
                    if value is None:
                        return None
                    amount[state] = amount.get(state, 0.0) + amount[node, slot] * value
        return sum(number for (node, _), number in amount.items() if node == self.search.target)

    def size(self, index: int, slot: int) -> float:
        """The logarithm of |local derivative|; 0 (a factor of 1) where it is not one number."""
        found = self.local.get((index, slot))
        return logarithm(found.value) if found and found.value is not None else 0.0

    def largest(self, limit: int) -> tuple[Path, ...]:
        """The `limit` paths of largest |contribution|; derivatives that are missing order nothing."""
        begins = {root: 0.0 if seed is None else logarithm(seed) for root, seed in self.seeds.items()}
        return tuple(self.path(*found) for found in self.search.largest(limit, self.size, begins))

    def path(self, root: State, edges: tuple[int, ...]) -> Path:
        """The path along `edges` from `root`, with its numbers."""
        slot, local = root[1], []
        for index in edges:
            local.append(self.local[index, slot].value if (index, slot) in self.local else None)
            slot = self.graph.edges[index].target_slot
        nodes = (root[0], *(self.graph.edges[index].target for index in edges))
        numbers = [number for number in local if number is not None]
        seed = self.seeds[root]
        whole = seed is not None and len(numbers) == len(local)
        contribution = prod(numbers, start=seed) if whole and seed is not None else None
        return Path(nodes, edges, tuple(local), contribution)

    def measured(self, edges: tuple[int, ...], norm: float, share: float) -> Path:
        """A path through tensors, with what it brings."""
        begin = self.graph.edges[edges[0]].source if edges else self.search.target
        root = next(root for root in self.seeds if root[0] == begin)
        found = self.path(root, edges)
        return Path(found.nodes, found.edges, found.local, None, norm, share)


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
