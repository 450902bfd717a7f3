"""Makes the plain `Node`s and `Edge`s of a graph from what one look at its live nodes gave (`glimpse`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from explorer.formulas import formulas
from explorer.glimpse import Glimpse, Kept, Problem, Shape, Sight, Spec, Told, spelled
from explorer.graph import Edge, Node, Saved, Source, TensorSpec
from explorer.measure import dtype_name
from explorer.places import line_of
from hooks.collection import no_collection

if TYPE_CHECKING:
    from hooks.forward import NodeContext

Link = tuple[int, int, int, int]
"""An edge in the order of its fields."""


class Describer:
    """Turns every glimpse into plain data, sharing equal specs and numbering storages.

    Calling it gives all nodes and edges; `problems` then says what could not be told of them, and why. It may
    be called long after the backward: what it is given must hold no tensor and no live node.
    """

    def __init__(
        self, sight: Sight, links: Sequence[Link], roots: Sequence[tuple[int, int]], told: Told | None
    ) -> None:
        self.problems = sight.failures
        self._sight = sight
        self._links = links
        self._rooted = {node for node, _ in roots}
        self._told = told
        self._specs: dict[Any, TensorSpec] = {}
        self._storages: dict[int, int] = {}

    def __call__(self) -> tuple[tuple[Node, ...], tuple[Edge, ...]]:
        """All nodes and edges of the graph."""
        with no_collection():
            nodes = _from_the_first_call(
                tuple(self.describe(number, row) for number, row in enumerate(self._sight.rows))
            )
            edges = tuple(Edge(*link) for link in self._links)
        return nodes, edges

    def describe(self, number: int, row: Glimpse) -> Node:
        """The plain data of one node."""
        species = row.species
        known = self._known(row)
        if species.kind == "leaf":
            return Node(
                id=number,
                name=species.name,
                kind="leaf",
                label=self._sight.label(number),
                names=row.names,
                role=row.role,
                module=known.module if known else "",
                outputs=tuple(map(self._spec, row.outputs)),
                hooks=row.hooks,
            )
        return Node(
            id=number,
            name=species.name,
            kind=species.kind,
            label=self._sight.label(number),
            names=row.names,
            role="root" if number in self._rooted else "",
            module=known.module if known else "",
            module_call=known.module_call if known else 0,
            source=_source(known) if known else None,
            operation=known.operation if known else "",
            outputs=tuple(map(self._spec, row.outputs)),
            saved=tuple(map(self._saved, row.saved)) if row.saved else (),
            formula=formulas(species.name),
            sequence_nr=row.number,
            hooks=row.hooks,
            note=species.note,
        )

    def _known(self, row: Glimpse) -> NodeContext | None:
        """Where the node was made; the first failure ends the asking, and is told in `problems`."""
        if self._told is None or row.where is None:
            return None
        try:
            return self._told(row.where, row.species)
        except Exception as error:  # noqa: BLE001 - the graph is worth showing without it
            self.problems.append(f"reading the context of nodes failed: {type(error).__name__}: {error}")
            self._told = None
            return None

    def _spec(self, seen: Spec) -> TensorSpec | None:
        """The spec of one forward output; equal specs are one object."""
        shape, dtype, device, nested = seen
        if shape is None:
            return TensorSpec((), dtype_name(dtype), str(device), "nested") if nested else None
        key = (shape, dtype, device)
        found = self._specs.get(key)
        if found is None:
            plain = tuple(int(size) if type(size) is int else _symbolic(size) for size in shape)
            found = TensorSpec(plain, dtype_name(dtype), str(device), "nested" if nested else "strided")
            self._specs[key] = found
        return found

    def _saved(self, kept: Kept) -> Saved:
        name, value = kept
        if type(value) is Shape:
            return self._tensor(name, value)
        if type(value) is Problem:
            return Saved(name, problem=str(value))
        return Saved(name, text=value if type(value) is str else spelled(value))

    def _tensor(self, name: str, value: Shape) -> Saved:
        spec = self._specs.get(value.key)
        if spec is None:
            shape, dtype, device, layout = value.key
            spec = TensorSpec(
                tuple(shape), dtype_name(dtype), str(device), str(layout).removeprefix("torch.")
            )
            self._specs[value.key] = spec
        if value.pointer is None:
            return Saved(name, spec, value.bytes, leaf=value.leaf, values=value.values, owner=value.leaf)
        storage = self._storages.setdefault(value.pointer, len(self._storages))
        owner = self._sight.owners.get(value.pointer)
        return Saved(
            name,
            spec,
            value.bytes,
            storage=storage,
            leaf=value.leaf,
            values=value.values,
            owner=owner,
        )


def _from_the_first_call(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """Count calls from the first one in this graph, where those before it left nothing in it.

    A model may have run before (a shape printed, a validation with gradients on, a ``torch.func`` transform).
    What lies below one name at the top counts together: where any of it has a first call here, nothing is
    renumbered.
    """
    first: dict[str, int] = {}
    for node in nodes:
        if node.module and node.kind != "leaf":
            known = first.get(node.module)
            first[node.module] = node.module_call if known is None else min(known, node.module_call)
    outer: dict[str, int] = {}
    for module, call in first.items():
        top = module.partition(".")[0]
        outer[top] = min(outer.get(top, call), call)
    late = {module: call for module, call in first.items() if outer[module.partition(".")[0]]}
    if not late:
        return nodes
    return tuple(
        replace(node, module_call=node.module_call - late[node.module])
        if node.kind != "leaf" and node.module in late
        else node
        for node in nodes
    )


def _source(known: NodeContext) -> Source | None:
    return line_of(known.file, known.line, known.function) if known.file else None


def _symbolic(size: Any) -> int:
    """A size known only symbolically (jagged nested tensors, dynamic shapes): -1."""
    return -1
