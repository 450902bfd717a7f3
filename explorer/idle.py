"""What the run showed of gradients that nobody used, as plain evidence."""

from __future__ import annotations

import ast
import gc
from collections.abc import Iterable, Iterator
from linecache import getlines

import torch
from torch import nn

from explorer.evidence import LeftOut, Unstepped
from explorer.facts import Known
from explorer.graph import Source
from explorer.places import line_of
from hooks.evidence import Collector
from hooks.idle import Kept, Waiting


class LeftOuts:
    """Parameters that get gradients and that no optimizer holds; those that are gone stay as last noted."""

    def __init__(self) -> None:
        self._noted: dict[int, tuple[Kept, LeftOut]] = {}

    def note(self, collector: Collector, known: Known, listless: Iterable[nn.Module]) -> None:
        """Judge all that live once more.

        Args:
            listless: modules that nobody lists; they have a finding of their own.
        """
        before = self._noted
        self._noted = {key: one for key, one in before.items() if one[0].parameter() is None}
        if not collector.idle.stepped:
            return
        told = {id(one) for module in listless for one in module.parameters()}
        free = [
            (tensor, one)
            for one in collector.idle.kept()
            if (tensor := one.parameter()) is not None
            and tensor.requires_grad
            and id(tensor) not in told
            and not known.is_optimized(tensor)
        ]
        if not free:
            return
        replaced = _orphans(collector) == sorted(tensor.ndim for tensor, _ in free)
        modes = {id(one): before[id(one)][1].training for one, _ in free if id(one) in before} | _training(
            known
        )
        for tensor, one in free:
            if replaced or one.growing:
                self._noted[id(tensor)] = (one, _left_out(known, tensor, one, modes, replaced))

    def facts(self) -> tuple[LeftOut, ...]:
        """One for each parameter that no optimizer has stepped on since, in the order they were met."""
        return tuple(fact for kept, fact in self._noted.values() if not kept.held)


def _left_out(
    known: Known, tensor: torch.Tensor, kept: Kept, modes: dict[int, bool], replaced: bool
) -> LeftOut:
    return LeftOut(known.name_of(tensor), kept.calls, modes.get(id(tensor), True), replaced)


def _orphans(collector: Collector) -> list[int]:
    """The dimensions of what an optimizer that stepped holds, no backward reached and no module has."""
    unreached = {
        id(one): one for one in collector.steps.held() if one.requires_grad and not collector.reached(one)
    }
    if not unreached:
        return []
    for thing in gc.get_objects():
        if issubclass(type(thing), nn.Module):
            for one in (vars(thing).get("_parameters") or {}).values():
                unreached.pop(id(one), None)
    return sorted(one.ndim for one in unreached.values())


def _training(known: Known) -> dict[int, bool]:
    """Whether the module that owns a parameter is in training mode, by the parameter's id."""
    return {
        id(one): module.training
        for ref, _ in known.roots.values()
        if (root := ref()) is not None
        for module in root.modules()
        for one in module.parameters(recurse=False)
    }


def unstepped(collector: Collector, known: Known) -> Iterator[Unstepped]:
    """The optimizers that clear gradients and never step, where nothing else explains it.

    A statement that only names the ``step`` (``optimizer.step``, without parentheses) is proof. Without
    one, no optimizer of the run may have stepped, backward may have reached nothing but what it holds, and
    the file may not read ``.grad``, which is what somebody does who only wants the gradients.
    """
    for one in collector.idle.waiting():
        file, line = one.place.code.co_filename, one.place.line
        bare, reads = _read(file)
        name = known.name_behind(one.parameter) or "a parameter"
        if bare is not None or (one.alone and not collector.idle.stepped and not reads):
            yield _unstepped(one, name, line_of(file, line, one.place.code.co_name), bare)


def _unstepped(one: Waiting, name: str, where: Source, bare: Source | None) -> Unstepped:
    return Unstepped(where, name, one.thrown, bare)


def _read(file: str) -> tuple[Source | None, bool]:
    """The first statement of `file` that only names a ``step``, and whether it reads a ``.grad`` anywhere."""
    try:
        tree = ast.parse("".join(getlines(file)))
    except (SyntaxError, ValueError):
        return None, True
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    named = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Attribute) and node.value.attr == "step"
    ]
    bare = line_of(file, min(named)) if named else None
    return bare, not attributes or any(node.attr == "grad" for node in attributes)
