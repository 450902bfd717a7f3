"""What the run showed of gradients that nobody used, as plain evidence."""

from __future__ import annotations

import ast
import gc
import sys
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
from hooks.places import USER, kind_of

LOOKED_AT = 100_000
"""Things in one object among which parameters are looked for."""


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
        if free:
            stepping = _held_by_who_steps()
            free = [(tensor, one) for tensor, one in free if id(tensor) not in stepping]
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
    """The dimensions of what an optimizer that stepped holds, no gradient came to and no module has.

    Of master copies in a wider dtype, a gradient was put into each before a step.
    """
    unreached = {
        id(one): one
        for one in collector.steps.held()
        if one.requires_grad and not collector.reached(one) and not collector.idle.was_fed(one)
    }
    if not unreached:
        return []
    for thing in gc.get_objects():
        if issubclass(type(thing), nn.Module):
            for one in (vars(thing).get("_parameters") or {}).values():
                unreached.pop(id(one), None)
    return sorted(one.ndim for one in unreached.values())


def _held_by_who_steps() -> set[int]:
    """The ids of all tensors that lie in a living object with a method ``step``, in plain containers.

    That is any optimizer, torch's or somebody's own, whether its first step was taken or is yet to come.
    """
    kinds: dict[type, bool] = {}
    found: set[int] = set()
    for thing in gc.get_objects():
        kind = type(thing)
        if kind not in kinds:
            kinds[kind] = not issubclass(kind, nn.Module) and any("step" in vars(one) for one in kind.__mro__)
        if kinds[kind]:
            found |= _tensors_in(getattr(thing, "__dict__", None))
    return found


def _tensors_in(content: object) -> set[int]:
    """The ids of the tensors in nested lists, tuples and dicts, the keys of dicts left out."""
    found: set[int] = set()
    waiting, seen = [content], 0
    while waiting and seen < LOOKED_AT:
        one = waiting.pop()
        seen += 1
        if isinstance(one, torch.Tensor):
            found.add(id(one))
        elif isinstance(one, dict):
            waiting += one.values()
        elif isinstance(one, (list, tuple)):
            waiting += one
    return found


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

    A statement that only names the ``step`` (``optimizer.step``, without parentheses) of what is cleared is
    proof. Without one, no optimizer of the run may have stepped, backward may have reached nothing but what
    it holds, and no file of the user's may read ``.grad``, which is what somebody does who only wants the
    gradients.
    """
    for one in collector.idle.waiting():
        file, line = one.place.code.co_filename, one.place.line
        bare = _bare_step(file, line)
        name = known.name_behind(one.parameter) or "a parameter"
        if bare is not None or (one.alone and not collector.idle.stepped and not _reads_gradients(file)):
            yield _unstepped(one, name, line_of(file, line, one.place.code.co_name), bare)


def _unstepped(one: Waiting, name: str, where: Source, bare: Source | None) -> Unstepped:
    return Unstepped(where, name, one.thrown, bare)


def _bare_step(file: str, line: int) -> Source | None:
    """The first statement of `file` that names the ``step`` of what `line` calls ``zero_grad`` of."""
    nodes = _nodes(file)
    cleared = {
        ast.dump(node.func.value)
        for node in nodes
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "zero_grad"
        and node.lineno <= line <= (node.end_lineno or line)
    }
    named = [
        node.lineno
        for node in nodes
        if isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Attribute)
        and node.value.attr == "step"
        and ast.dump(node.value.value) in cleared
    ]
    return line_of(file, min(named)) if named else None


def _reads_gradients(file: str) -> bool:
    """Whether `file`, or a file of the user's that it imports, reads a ``.grad``; one without source may."""
    nodes = _nodes(file)
    return not nodes or any(
        isinstance(node, ast.Attribute) and node.attr == "grad"
        for one in (nodes, *map(_nodes, _imported(nodes)))
        for node in one
    )


def _imported(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The files of the user's own modules that the nodes import, as far as they are loaded."""
    names: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    for name in sorted(names):
        file = getattr(sys.modules.get(name), "__file__", None)
        if isinstance(file, str) and kind_of(file) == USER:
            yield file


def _nodes(file: str) -> list[ast.AST]:
    """The syntax tree of `file` as a list; empty without source."""
    try:
        return list(ast.walk(ast.parse("".join(getlines(file)))))[1:]
    except (SyntaxError, ValueError):
        return []
