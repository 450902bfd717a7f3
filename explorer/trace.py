"""Follows ``grad_fn`` and ``next_functions`` from one or more roots and describes what it finds.

Two steps: `_traverse` collects live nodes and edges breadth first, each node numbered when first seen
(the root is 0, then its neighbours in slot order); `_Describer` turns each live node into plain data.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from explorer.errors import NothingDifferentiableError
from explorer.formulas import formulas
from explorer.graph import Edge, Graph, Node, Role, Saved, Source, TensorSpec
from explorer.names import Names
from explorer.places import line_of
from explorer.species import Species, species_of
from hooks.collection import no_collection
from hooks.nodes import AutogradNode
from hooks.registered import hooks_of, name_of
from hooks.release import keep
from hooks.saved import SavedValue, read

if TYPE_CHECKING:
    from hooks.forward import NodeContext

Context: TypeAlias = "Callable[[AutogradNode], NodeContext | None]"

TEXT_LIMIT = 80
"""Saved values other than tensors are spelled in at most this many characters."""


@dataclass(frozen=True, slots=True)
class Trace:
    """A graph and the live nodes it was read from: ``live[i]`` is ``graph.nodes[i]``.

    Short-lived: it keeps the autograd graph alive, and with it saved tensors not yet freed.
    """

    graph: Graph
    live: tuple[AutogradNode, ...]
    problems: tuple[str, ...] = ()
    """What could not be found out of the nodes, and why."""


def walk(*tensors: Any) -> Graph:
    """The autograd graph behind `tensors` as plain data.

    Args:
        tensors: one or more results of differentiable operations, leaves that require a gradient, or
            ``torch.autograd.graph.GradientEdge``s. Their order is that of the graph's roots.

    Returns:
        The graph; node 0 is the first root.

    Raises:
        NothingDifferentiableError: one of `tensors` has no ``grad_fn`` and requires no gradient.
    """
    return trace(tensors).graph


def trace(
    roots: Sequence[Any], *, context: Context | None = None, names: Names | None = None, saved: bool = True
) -> Trace:
    """Walk from `roots` and keep the live nodes for the stages after this one.

    Args:
        roots: as for `walk`.
        context: gives module, source line and operation of a live node, where known.
        names: the names of leaves and intermediates, as `explorer.names.collect` finds them.
        saved: list what each node saved; False leaves ``Node.saved`` empty.

    Raises:
        NothingDifferentiableError: a root has no ``grad_fn`` and requires no gradient, or none is given.
    """
    starts = [_start(root, place) for place, root in enumerate(roots)]
    if not starts:
        raise NothingDifferentiableError("no tensor to explore was given")
    live: list[AutogradNode] = []
    edges: list[tuple[int, int, int, int]] = []
    arity: list[int] = []
    with no_collection():
        try:
            ids = _traverse(starts, live, edges, arity)
        finally:
            # Whatever was touched has to be released with care, even if the walk was interrupted.
            keep(live, [root for root in roots if isinstance(root, torch.Tensor)])
        describer = _Describer(ids, context, names or Names(), saved)
        rooted = {node for node, _ in starts}
        nodes = tuple(describer.describe(number, node, node in rooted) for number, node in enumerate(live))
        places = tuple((ids[node], slot) for node, slot in starts)
        graph = Graph(nodes, tuple(Edge(*edge) for edge in edges), places, tuple(arity))
        return Trace(graph, tuple(live), tuple(describer.problems))


def _start(root: Any, place: int) -> tuple[AutogradNode, int]:
    """(live node, output slot) of one root."""
    if not isinstance(root, torch.Tensor):
        return root.node, root.output_nr
    if root.grad_fn is None and not root.requires_grad:
        raise NothingDifferentiableError(
            f"tensor {place} (shape {tuple(root.shape)}) has no grad_fn and requires no gradient: "
            "compute it from a tensor with requires_grad=True, outside torch.no_grad()"
        )
    edge = torch.autograd.graph.get_gradient_edge(root)
    return edge.node, edge.output_nr


def _traverse(
    starts: Sequence[tuple[AutogradNode, int]],
    live: list[AutogradNode],
    edges: list[tuple[int, int, int, int]],
    arity: list[int],
) -> dict[AutogradNode, int]:
    """Fill `live`, `edges` and `arity` breadth first; return the id of every node."""
    ids: dict[AutogradNode, int] = {}
    for node, _ in starts:
        if node not in ids:
            ids[node] = len(live)
            live.append(node)
    known = ids.get
    for source, node in enumerate(live):  # grows while it is read
        following = node.next_functions
        arity.append(len(following))
        for slot, (target, target_slot) in enumerate(following):
            if target is None:
                continue
            number = known(target)
            if number is None:
                number = ids[target] = len(live)
                live.append(target)
            edges.append((source, slot, number, target_slot))
    return ids


class _Describer:
    """Turns live nodes into plain data, sharing equal specs and numbering storages."""

    def __init__(
        self, ids: dict[AutogradNode, int], context: Context | None, names: Names, saved: bool
    ) -> None:
        self.problems: list[str] = []
        self._context = context
        self._names = names
        self._saved = saved
        self._specs: dict[Any, TensorSpec] = {}
        self._storages: dict[int, int] = {}
        self._leaves: dict[int, int] = {}
        self._owners: dict[int, int] = {}
        for node, number in ids.items():
            if _is_leaf(node):
                self._leaves[id(node.variable)] = number
                pointer = _storage(node.variable)
                if pointer is not None:
                    self._owners.setdefault(pointer, number)

    def describe(self, number: int, node: AutogradNode, root: bool) -> Node:
        """The plain data of one live node."""
        species = species_of(node)
        if species.kind == "leaf":
            return self._leaf(number, node, species)
        known = self._known(node)
        outputs = tuple(map(self._spec, node._input_metadata))
        names = self._names.of_result(node, 0)
        if len(outputs) > 1:
            names += tuple(
                name for slot in range(1, len(outputs)) for name in self._names.of_result(node, slot)
            )
        return Node(
            id=number,
            name=species.name,
            kind=species.kind,
            label=names[0] if names else species.label,
            names=names,
            role="root" if root else "",
            module=known.module if known else "",
            module_call=known.module_call if known else 0,
            source=_source(known) if known else None,
            operation=known.operation if known else "",
            outputs=outputs,
            saved=self._read_saved(node) if self._saved and species.keeps else (),
            formula=formulas(species.name),
            sequence_nr=node._sequence_nr(),
            hooks=self._result_hooks(node, len(outputs), bool(names)),
            note=species.note,
        )

    def _leaf(self, number: int, node: AutogradNode, species: Species) -> Node:
        tensor = node.variable
        names = self._names.of_leaf(tensor)
        role: Role = "parameter" if self._names.is_parameter(tensor) else "input"
        known = self._known(node)
        hooks = _hook_names("tensor hook", tensor._backward_hooks)
        hooks += _hook_names("post-accumulate hook", getattr(tensor, "_post_accumulate_grad_hooks", None))
        return Node(
            id=number,
            name=species.name,
            kind="leaf",
            label=names[0] if names else species.label,
            names=names,
            role=role,
            module=known.module if known else "",
            outputs=tuple(map(self._spec, node._input_metadata)),
            hooks=hooks,
        )

    def _known(self, node: AutogradNode) -> NodeContext | None:
        """Where `node` was made; the first failure ends the asking, and is told in `problems`."""
        if self._context is None:
            return None
        try:
            return self._context(node)
        except Exception as error:  # noqa: BLE001 - the graph is worth showing without it
            self.problems.append(f"reading the context of nodes failed: {type(error).__name__}: {error}")
            self._context = None
            return None

    def _result_hooks(self, node: AutogradNode, outputs: int, held: bool) -> tuple[str, ...]:
        """Hooks noted when they were registered, and those on outputs of `node` that some variable holds."""
        noted = hooks_of(node)
        found = tuple(f"tensor hook {name}" for _, name in noted)
        for slot in range(outputs) if held else ():
            tensor = self._names.holders.get((node, slot))
            if tensor is not None:
                if not any(slot == place for place, _ in noted):
                    found += _hook_names("tensor hook", tensor._backward_hooks)
                found += ("retain_grad",) if tensor.retains_grad else ()
        return found

    def _spec(self, metadata: Any) -> TensorSpec | None:
        """The spec of one forward output; equal specs are one object."""
        try:
            shape = tuple(metadata.shape)
        except RuntimeError:
            # A strided nested tensor has no shape to tell.
            if not metadata.is_nested_tensor:
                return None
            return TensorSpec((), _dtype_name(metadata.dtype), str(metadata.device), "nested")
        key = (shape, metadata.dtype, metadata.device)
        found = self._specs.get(key)
        if found is None:
            plain = tuple(int(size) if type(size) is int else _symbolic(size) for size in shape)
            layout = "nested" if metadata.is_nested_tensor else "strided"
            found = TensorSpec(plain, _dtype_name(metadata.dtype), str(metadata.device), layout)
            self._specs[key] = found
        return found

    def _read_saved(self, node: AutogradNode) -> tuple[Saved, ...]:
        return tuple(
            self._one_saved(name, value)
            for name, value in read(node).items()
            if value.problem or value.value is not None
        )

    def _one_saved(self, name: str, saved: SavedValue) -> Saved:
        value = saved.value
        if saved.problem:
            return Saved(name, problem=saved.problem)
        if not isinstance(value, torch.Tensor):
            return Saved(name, text=_spelled(value))
        layout = str(value.layout).removeprefix("torch.")
        key = (value.shape if not value.is_nested else (), value.dtype, value.device, layout)
        spec = self._specs.get(key)
        if spec is None:
            spec = TensorSpec(tuple(key[0]), _dtype_name(value.dtype), str(value.device), layout)
            self._specs[key] = spec
        leaf = self._leaves.get(id(value))
        pointer = _storage(value)
        if pointer is None:
            return Saved(name, spec, _bytes_of_parts(value), leaf=leaf, owner=leaf)
        storage = self._storages.setdefault(pointer, len(self._storages))
        owner = self._owners.get(pointer)
        return Saved(name, spec, value.nbytes, storage=storage, leaf=leaf, owner=owner)


def _storage(tensor: torch.Tensor) -> int | None:
    """What identifies the storage of `tensor`; None for sparse and other tensors without one storage."""
    try:
        return int(tensor.untyped_storage()._cdata)
    except (RuntimeError, NotImplementedError):
        return None


def _is_leaf(node: AutogradNode) -> bool:
    return species_of(node).kind == "leaf"


def _source(known: NodeContext) -> Source | None:
    return line_of(known.file, known.line, known.function) if known.file else None


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _symbolic(size: Any) -> int:
    """A size known only symbolically (jagged nested tensors, dynamic shapes): -1."""
    return -1


def _bytes_of_parts(value: torch.Tensor) -> int:
    """Bytes of a sparse tensor's values; 0 where torch does not tell."""
    try:
        return value._values().nbytes if value.is_sparse else 0
    except RuntimeError:
        return 0


def _spelled(value: Any) -> str:
    """A saved plain value in words; never the ``repr`` of an object of the user's."""
    kind = type(value)
    if kind in (int, float, complex, bool, str, type(None)):
        text = repr(value)
    elif kind in (list, tuple):
        text = "[" + ", ".join(_spelled(item) for item in value[:TEXT_LIMIT]) + "]"
    elif kind.__module__.partition(".")[0] == "torch":
        text = str(value)
    else:
        text = kind.__name__
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def _hook_names(what: str, hooks: Any) -> tuple[str, ...]:
    """What is registered in one of torch's hook dictionaries, by the functions' own names."""
    if not hooks:
        return ()
    return tuple(f"{what} {name_of(hook)}" for hook in list(hooks.values()))
