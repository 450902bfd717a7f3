"""Who overwrote a saved tensor: the variable that holds it, and the operation or step that changed it.

Named only where the tensor itself proves it: its own ``grad_fn`` is the last operation that changed it
in place, if that operation came after the node that saved it; an optimizer's step proves itself by the
version it left. Otherwise the culprit stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hooks.memory import storage_of
from hooks.nodes import AutogradNode, is_leaf
from hooks.places import Place
from hooks.steps import Steps

MODIFIED = "modified by an inplace operation"
FREED = "second time"
_VERSIONS = re.compile(r"is at version (\d+); expected version (\d+)")


@dataclass(frozen=True, slots=True)
class DamageSeen:
    """Saved value `saved` of ``live[node]`` was overwritten.

    `tensor` is a living tensor with that memory (None if none is known), `culprit` the live node of the
    operation that changed it last, `step` the line of the optimizer step that did.
    """

    node: int
    saved: str
    version: int
    expected: int
    tensor: torch.Tensor | None = None
    culprit: AutogradNode | None = None
    step: Place | None = None


def find_damage(
    live: Sequence[AutogradNode],
    problems: Iterable[tuple[int, str, str]],
    tensors: Iterable[torch.Tensor],
    steps: Steps,
) -> list[DamageSeen]:
    """Explain every problem (node index, saved name, torch's message) that tells of an overwritten tensor."""
    found = [
        (node, saved, int(match[1]), int(match[2]))
        for node, saved, message in problems
        if MODIFIED in message and (match := _VERSIONS.search(message))
    ]
    return [_explain(live, *one, list(tensors), steps) for one in found]


def _explain(
    live: Sequence[AutogradNode],
    index: int,
    saved: str,
    version: int,
    expected: int,
    tensors: list[torch.Tensor],
    steps: Steps,
) -> DamageSeen:
    node = live[index]
    storage = _raw_storage(node, saved)
    if storage is None:
        return DamageSeen(index, saved, version, expected)
    step = steps.step_that_changed(storage, expected)
    if step is not None:
        return DamageSeen(index, saved, version, expected, step[0], None, step[1])
    number = node._sequence_nr()
    for tensor in tensors:
        if storage_of(tensor) == storage and tensor._version == version:
            culprit = tensor.grad_fn
            if culprit is not None and (culprit._sequence_nr() <= number or "AsStrided" in culprit.name()):
                culprit = None
            return DamageSeen(index, saved, version, expected, tensor, culprit)
    return DamageSeen(index, saved, version, expected, None, _from_graph(live, node, storage))


def _from_graph(live: Sequence[AutogradNode], victim: AutogradNode, storage: int) -> AutogradNode | None:
    """The youngest node made after `victim` whose own saved result lies in the damaged memory."""
    number = victim._sequence_nr()
    best: AutogradNode | None = None
    for node in live:
        if is_leaf(node) or node._sequence_nr() <= number:
            continue
        if _raw_storage(node, "result") == storage and (
            best is None or node._sequence_nr() > best._sequence_nr()
        ):
            best = node
    return best


def _raw_storage(node: Any, saved: str) -> int | None:
    """The storage of a saved tensor, past torch's version check."""
    name = "_raw_saved_tensors" if saved == "saved_tensors" else f"_raw_saved_{saved}"
    try:
        raw = getattr(node, name, None)
        if raw is None or isinstance(raw, tuple):
            return None
        return storage_of(raw.data)
    except RuntimeError:
        return None
