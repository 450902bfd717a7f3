"""One look at every live node before its backward: what it would no longer tell afterwards, as raw data.

A look has to be short, for it stands in the way of the user's backward. So only what must be read from the
live node is read, and kept as torch gives it (shapes, dtypes, plain numbers; no tensor); `describe` makes
`Node`s of it when somebody asks for the graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import torch

from explorer.copies import Copies, Numbers
from explorer.graph import Role
from explorer.known import small, small_there
from explorer.names import Names
from explorer.species import Species, species_of
from hooks.memory import storage_of
from hooks.nodes import AutogradNode, is_leaf
from hooks.registered import hooks_of, name_of
from hooks.saved import held

if TYPE_CHECKING:
    from hooks.forward import NodeContext

TEXT_LIMIT = 80
"""Saved values other than tensors are spelled in at most this many characters."""
_PLAIN = (int, float, complex, bool, list, tuple)
"""Values that `describe` spells; lists hold such numbers."""

Kept: TypeAlias = "tuple[str, Any]"
"""A saved value's name, and a `Shape`, numbers, the text of another value, or a `Problem`."""


Spec: TypeAlias = "tuple[tuple[Any, ...] | None, torch.dtype, torch.device, bool]"
"""A forward output: its shape (None for a nested tensor that has none to tell), dtype, device, and whether it
is nested. Of plain objects: torch's own ``_input_metadata`` would lie in the midst of the step's tensors, and
what is kept there from step to step keeps their memory from being used again in one piece."""
Told: TypeAlias = "Callable[[Any, Species], NodeContext | None]"
"""Puts in words what was read where a node was made, at any time after."""


class Problem(str):
    """Why a saved value could not be read."""

    __slots__ = ()


@dataclass(slots=True)
class Shape:
    """A saved tensor: what of it is told, with nothing of the tensor itself.

    `key` is (shape, dtype, device, layout); `pointer` identifies its storage, None without one.
    """

    key: tuple[Any, torch.dtype, torch.device, torch.layout]
    bytes: int
    pointer: int | None
    leaf: int | None
    values: tuple[float | complex, ...] | None

    def take(self, numbers: Numbers) -> None:
        """Let `values` be what came from a device."""
        self.values = tuple(numbers)


@dataclass(slots=True)
class Glimpse:
    """One node, as it was seen. `where` is what `Notes.told` makes a `NodeContext` of."""

    species: Species
    outputs: Sequence[Spec]
    where: Any = None
    number: int | None = None
    saved: Sequence[Kept] = ()
    names: tuple[str, ...] = ()
    hooks: tuple[str, ...] = ()
    role: Role = ""


@dataclass(frozen=True, slots=True)
class Notes:
    """Where nodes were made: `of` reads it from a live node, `told` may be called when that is long gone.

    So `told` is kept, and holds no tensor and no live node.
    """

    of: Callable[[AutogradNode], Any]
    told: Told

    @classmethod
    def at_once(cls, context: Callable[[AutogradNode], NodeContext | None]) -> Notes:
        """Of a function that reads and tells in one."""
        return cls(context, lambda found, species: found)


@dataclass(slots=True)
class Sight:
    """All nodes as they were seen, with what they have in common.

    `owners` maps a storage to the leaf that owns it. `problems` lists (node, saved name, torch's message).
    """

    rows: list[Glimpse] = field(default_factory=list)
    owners: dict[int, int] = field(default_factory=dict)
    custom: list[int] = field(default_factory=list)
    problems: list[tuple[int, str, str]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    copies: Copies = field(default_factory=Copies)

    def label(self, index: int) -> str:
        """The label that node `index` will have."""
        row = self.rows[index]
        return row.names[0] if row.names else row.species.label


def look(
    live: Sequence[AutogradNode],
    ids: Mapping[AutogradNode, int],
    names: Names,
    notes: Notes | None,
    saved: bool,
    values: bool,
) -> Sight:
    """Look at every node of `live`.

    Args:
        ids: the place of each node in `live`.
        names: what the caller calls leaves and results.
        notes: where nodes were made, where that was observed; its first failure ends the asking.
        saved: whether to list what nodes saved.
        values: whether to copy saved tensors of few elements.
    """
    sight = Sight()
    leaves = _leaves(live, sight)
    results = _results(ids, names)
    rows, of = sight.rows, notes.of if notes is not None else None
    for index, node in enumerate(live):
        species = species_of(node)
        row = Glimpse(species, _specs(node))
        rows.append(row)
        if of is not None:
            try:
                row.where = of(node)
            except Exception as error:  # noqa: BLE001 - the graph is worth showing without it
                sight.failures.append(f"reading the context of nodes failed: {type(error).__name__}: {error}")
                of = None
        if species.kind == "leaf":
            _leaf(row, node.variable, names)
            continue
        row.number = node._sequence_nr()
        if species.kind == "custom":
            sight.custom.append(index)
        if index in results:
            row.names = results[index]
        row.hooks = _result_hooks(node, names, len(row.outputs), bool(row.names))
        if saved and species.keeps:
            row.saved = _saved(index, node, leaves, values, sight)
    with torch.no_grad():
        sight.copies.fetch()
    return sight


def _leaves(live: Sequence[AutogradNode], sight: Sight) -> dict[int, int]:
    """The leaf nodes by the id of their tensor; whose storage is whose goes to `sight`."""
    found: dict[int, int] = {}
    for index, node in enumerate(live):
        if is_leaf(node):
            variable = node.variable
            found[id(variable)] = index  # the node holds the tensor as long as this lives
            pointer = storage_of(variable)
            if pointer is not None:
                sight.owners.setdefault(pointer, index)
    return found


def _results(ids: Mapping[AutogradNode, int], names: Names) -> dict[int, tuple[str, ...]]:
    """The names of the outputs of nodes in this graph, in the order of the outputs."""
    found: dict[int, list[tuple[int, list[str]]]] = {}
    for (node, slot), given in names.results.items():
        index = ids.get(node)
        if index is not None:
            found.setdefault(index, []).append((slot, given))
    return {
        index: tuple(name for _, given in sorted(rows, key=lambda row: row[0]) for name in given)
        for index, rows in found.items()
    }


def _specs(node: AutogradNode) -> list[Spec]:
    """The specs of the node's forward outputs."""
    found: list[Spec] = []
    for metadata in node._input_metadata:
        try:
            shape = tuple(metadata.shape)
        except RuntimeError:
            shape = None
        found.append((shape, metadata.dtype, metadata.device, metadata.is_nested_tensor))
    return found


def _leaf(row: Glimpse, tensor: torch.Tensor, names: Names) -> None:
    row.names = names.of_leaf(tensor)
    row.role = "parameter" if names.is_parameter(tensor) else "input"
    row.hooks = _hook_names("tensor hook", tensor._backward_hooks)
    row.hooks += _hook_names("post-accumulate hook", getattr(tensor, "_post_accumulate_grad_hooks", None))


def _result_hooks(node: AutogradNode, names: Names, outputs: int, named: bool) -> tuple[str, ...]:
    """Hooks noted when they were registered, and those on outputs of `node` that some variable holds."""
    noted = hooks_of(node)
    found = tuple(f"tensor hook {name}" for _, name in noted)
    for slot in range(outputs) if named else ():
        tensor = names.holders.get((node, slot))
        if tensor is not None:
            if not any(slot == place for place, _ in noted):
                found += _hook_names("tensor hook", tensor._backward_hooks)
            found += ("retain_grad",) if tensor.retains_grad else ()
    return found


def _hook_names(what: str, hooks: Any) -> tuple[str, ...]:
    """What is registered in one of torch's hook dictionaries, by the functions' own names."""
    if not hooks:
        return ()
    return tuple(f"{what} {name_of(hook)}" for hook in list(hooks.values()))


def _saved(
    index: int, node: AutogradNode, leaves: Mapping[int, int], values: bool, sight: Sight
) -> list[Kept]:
    found: list[Kept] = []
    for name, value, problem in held(node):
        if problem:
            sight.problems.append((index, name, problem))
            found.append((name, Problem(problem)))
        elif isinstance(value, torch.Tensor):
            shape = _shape(value, leaves, values)
            if values and not value.is_cpu:
                small_there(value, sight.copies, shape.take)
            found.append((name, shape))
        elif value is not None:
            found.append((name, value if type(value) in _PLAIN else spelled(value)))
    return found


def _shape(value: torch.Tensor, leaves: Mapping[int, int], values: bool) -> Shape:
    pointer = storage_of(value)
    return Shape(
        (value.shape if not value.is_nested else (), value.dtype, value.device, value.layout),
        _bytes_of_parts(value) if pointer is None else value.nbytes,
        pointer,
        leaves.get(id(value)),
        small(value) if values else None,
    )


def spelled(value: Any) -> str:
    """A saved plain value in words; never the ``repr`` of an object of the user's."""
    kind = type(value)
    if kind in (int, float, complex, bool, str, type(None)):
        text = repr(value)
    elif kind in (list, tuple):
        text = "[" + ", ".join(spelled(item) for item in value[:TEXT_LIMIT]) + "]"
    elif kind.__module__.partition(".")[0] == "torch":
        text = str(value)
    else:
        text = kind.__name__
    return text if len(text) <= TEXT_LIMIT else text[: TEXT_LIMIT - 1] + "…"


def _bytes_of_parts(value: torch.Tensor) -> int:
    """Bytes of a sparse tensor's values; 0 where torch does not tell."""
    try:
        return value._values().nbytes if value.is_sparse else 0
    except RuntimeError:
        return 0
