"""The backward pass of the stand-alone engine: from one tensor to every leaf, through the rules.

Of a tensor it reads `array`, `made` and `requires_grad` (`explorer.engine.tape` has the class).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

from explorer.engine.array import Array
from explorer.engine.elementwise import Full
from explorer.engine.leaf import Leaf
from explorer.engine.registry import Site, apply_rule, rule_for
from explorer.engine.rounding import ROUNDINGS
from explorer.engine.run import Run
from explorer.errors import EngineError
from explorer.graph import TensorSpec

if TYPE_CHECKING:
    from explorer.engine.tape import Tensor

_numbers = count()


@dataclass(frozen=True, slots=True, eq=False)
class Made:
    """How a tensor was made: the node's name, what it keeps, its inputs, and its number in time."""

    name: str
    saved: Mapping[str, Any]
    inputs: tuple[Tensor, ...]
    output: TensorSpec
    number: int = field(default_factory=lambda: next(_numbers))


def leaf_gradients(root: Tensor, start: Array) -> Iterator[tuple[Tensor, Array]]:
    """Every leaf that `root` was made from, with its gradient when `root` receives `start`.

    Tensors are met latest first, so that all of a tensor's gradients have come before they are sent on.

    Raises:
        EngineError: a node has no rule, or its rule failed.
    """
    arrived: dict[Tensor, Array] = {root: start}
    for tensor in _latest_first(root):
        g = arrived.pop(tensor, None)
        if g is None:
            continue
        if tensor.made is None:
            yield tensor, g
            continue
        for source, sent in zip(tensor.made.inputs, _sent_on(tensor.made, g), strict=True):
            if sent is not None:
                arrived[source] = sent if source not in arrived else evaluated(arrived[source] + sent)


def _latest_first(root: Tensor) -> list[Tensor]:
    """Every tensor that `root` was made from and that wants a gradient, the latest made first."""
    found = {root: None}  # a dict, for its order: the same program goes the same way
    waiting = [root]
    while waiting:
        made = waiting.pop().made
        for source in made.inputs if made is not None else ():
            if source.requires_grad and source not in found:
                found[source] = None
                waiting.append(source)
    return sorted(found, key=lambda one: -1 if one.made is None else one.made.number, reverse=True)


def _sent_on(made: Made, g: Array) -> list[Array | None]:
    """The gradients for the inputs of one node, evaluated."""
    rule = rule_for(made.name)
    if rule is None:
        raise EngineError(f"no rule for {made.name}")
    specs = [TensorSpec(one.shape, "float64") if one.requires_grad else None for one in made.inputs]
    found = apply_rule(rule, Site(made.name, made.saved, specs, [made.output]), [g])
    return [None if one is None else evaluated(one) for one in found]


def evaluated(value: Array) -> Array:
    """All elements of a recipe, computed and kept."""
    if isinstance(value, Full) or (type(value) is Leaf and type(value.memory) is list):
        return value
    if value.numel == 0:
        return Full(0.0, value.shape)
    values, _ = value.eval(value.full_box, Run(ROUNDINGS["float64"], bounds=False))
    return Leaf(list(values), value.shape)
