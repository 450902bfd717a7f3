"""The facts of a run apart from its graphs: which parameters there are, what holds, runs and reaches them.

`Known` keeps the parameters weakly as they are met; `of_run` makes the plain `Evidence` of what is known.
"""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from linecache import getline
from typing import Any

import torch
from torch import nn

from explorer.evidence import Evidence, Growth, ParameterFact, Ran, Reused, Starved
from explorer.graph import Source
from explorer.names import Names
from explorer.places import line_of
from hooks.evidence import Collector
from hooks.modules import listed, wrapped_as
from hooks.places import USER, Place, kind_of

RunsOf = Callable[[nn.Module], Any]
"""How often a module's forward ran, with gradients and without; None where the forward was not observed."""


@dataclass
class Known:
    """Weakly, what the run showed of modules and parameters: filled by `look` and `remember`.

    Backward calls in several threads fill and read it at once: whoever goes through it goes through a list.
    """

    names: dict[int, tuple[weakref.ref[torch.Tensor], str, str]] = field(default_factory=dict)
    roots: dict[int, tuple[weakref.ref[nn.Module], str]] = field(default_factory=dict)
    optimized: dict[int, weakref.ref[torch.Tensor]] = field(default_factory=dict)
    optimizing: bool = False

    def parameters(self) -> list[torch.Tensor]:
        """Every parameter known of that still lives."""
        return [tensor for ref, _, _ in list(self.names.values()) if (tensor := ref()) is not None]

    def is_optimized(self, tensor: torch.Tensor) -> bool:
        """Whether an optimizer is known to hold it."""
        held = self.optimized.get(id(tensor))
        return held is not None and held() is tensor

    def name_of(self, tensor: torch.Tensor) -> str:
        """Its best name, "a parameter" without one."""
        known = self.names.get(id(tensor))
        return known[1] if known is not None and known[0]() is tensor else "a parameter"

    def name_behind(self, ref: weakref.ref[torch.Tensor]) -> str:
        """The same for a tensor that may be gone; "" without one."""
        # A tensor has one plain weak reference, however often it is asked for.
        return next((name for one, name, _ in list(self.names.values()) if one is ref), "")


def remember(known: Known, names: Names) -> None:
    """Add the parameters that the caller's modules and optimizers own."""
    for held in names.held:
        if isinstance(held, torch.optim.Optimizer):
            known.optimizing = True
            for group in held.param_groups:
                for parameter in group["params"]:
                    known.optimized[id(parameter)] = weakref.ref(parameter)
        elif isinstance(held, torch.Tensor) and names.is_parameter(held) and held.is_leaf:
            spelled = names.of_leaf(held)
            if spelled:
                known.names.setdefault(id(held), (weakref.ref(held), spelled[0], ""))


def remember_modules(known: Known, roots: Iterable[nn.Module]) -> None:
    """Add the parameters of root modules that ran, under their own paths."""
    for root in roots:
        if id(root) in known.roots:
            continue
        known.roots[id(root)] = (weakref.ref(root), type(root).__name__)
        for path, module in listed(root):
            for key, parameter in module.named_parameters(recurse=False):
                name = f"{path}.{key}" if path else key
                earlier = known.names.get(id(parameter))
                spelled = earlier[1] if earlier is not None and earlier[0]() is parameter else name
                known.names[id(parameter)] = (weakref.ref(parameter), spelled, path)


def remember_steps(collector: Collector, known: Known) -> None:
    """Add the parameters of optimizers that took a step."""
    for parameter in collector.steps.held():
        known.optimizing = True
        known.optimized[id(parameter)] = weakref.ref(parameter)


def of_run(collector: Collector, known: Known, runs_of: RunsOf | None) -> Evidence:
    """What the whole run showed; `calls` and what belongs to one report are left to the caller."""
    remember_steps(collector, known)
    reused = collector.steps.reused
    growth = collector.history.growth
    return Evidence(
        optimizing=known.optimizing,
        derived=collector.derived,
        parameters=tuple(facts_of(collector, known, runs_of)),
        reused=None
        if reused is None
        else Reused(
            source_of(reused.place),
            known.name_behind(reused.parameter),
            reused.before,
            reused.total,
        ),
        starved=tuple(
            Starved(source_of(one.place), known.name_behind(one.parameter) or "a parameter", one.steps)
            for one in collector.steps.starved()
            if collector.was_reached(one.parameter)
        ),
        growth=None
        if growth is None
        else Growth(line_of(growth.file, growth.line), growth.counts, growth.variable, growth.kept),
        reads=tuple(_read(file, line) for file, line in collector.reads.places),
    )


def facts_of(collector: Collector, known: Known, runs_of: RunsOf | None) -> Iterable[ParameterFact]:
    ran, siblings = _runs(known, runs_of)
    beside = {
        name.rpartition(".")[0]
        for ref, name, _ in list(known.names.values())
        if (tensor := ref()) is not None and collector.reached(tensor)
    }
    idle = _idle(collector, known)
    for ref, name, path in list(known.names.values()):
        parameter = ref()
        if parameter is None or not parameter.requires_grad:
            continue
        reached = collector.reached(parameter)
        yield ParameterFact(
            name=name,
            reached=reached,
            optimized=known.is_optimized(parameter),
            module=path,
            ran=ran.get(id(parameter), "unknown"),
            siblings_ran=siblings.get(id(parameter), False),
            identity=id(parameter),
            where=None if reached else _made(known, path),
            exits=() if reached else _exits(collector, parameter),
            beside_reached=name.rpartition(".")[0] in beside,
            model_used=id(parameter) not in idle,
        )


def _runs(known: Known, runs_of: RunsOf | None) -> tuple[Mapping[int, Ran], Mapping[int, bool]]:
    """Per parameter: how its module ran, and whether anything of its tree ran with gradients."""
    ran: dict[int, Ran] = {}
    siblings: dict[int, bool] = {}
    for ref, _ in list(known.roots.values()) if runs_of is not None else ():
        root = ref()
        if root is None or runs_of is None:
            continue
        some = any(runs_of(module).grad for module in root.modules())
        for module in root.modules():
            runs = runs_of(module)
            how: Ran = "with gradients" if runs.grad else "without gradients" if runs.no_grad else "never"
            for parameter in module.parameters(recurse=False):
                if ran.get(id(parameter)) != "with gradients":
                    ran[id(parameter)] = how
                siblings[id(parameter)] = siblings.get(id(parameter), False) or some
    return ran, siblings


def _idle(collector: Collector, known: Known) -> set[int]:
    """The parameters of models of which no backward reaches and no optimizer holds any."""
    idle: set[int] = set()
    used: set[int] = set()
    for ref, _ in list(known.roots.values()):
        root = ref()
        own = list(root.parameters()) if root is not None else []
        some = any(collector.reached(one) or known.is_optimized(one) for one in own)
        (used if some else idle).update(map(id, own))
    return idle - used


def _exits(collector: Collector, parameter: torch.Tensor) -> tuple[tuple[Source, str], ...]:
    """The lines where something computed from `parameter` left the graph, in the order they were met."""
    seen = ((source_of(cut.place), cut.how) for cut in collector.cuts.exits_of(parameter))
    return tuple(dict.fromkeys((where, how) for where, how in seen if where is not None))


def _made(known: Known, path: str) -> Source | None:
    """The line of the root's ``__init__`` that makes the module at `path`."""
    name = path.partition(".")[0]
    for ref, _ in list(known.roots.values()):
        root = ref()
        while root is not None and wrapped_as(root):
            root = getattr(root, wrapped_as(root))
        code = (
            getattr(vars(type(root)).get("__init__"), "__code__", None)
            if name and hasattr(root, name)
            else None
        )
        if root is None or code is None or kind_of(code.co_filename) != USER:
            continue
        lines = sorted({line for _, _, line in code.co_lines() if line})
        for line in lines:
            if getline(code.co_filename, line).strip().startswith(f"self.{name} ="):
                return line_of(code.co_filename, line, "__init__")
    return None


def _read(file: str, line: int) -> tuple[Source, str]:
    """The line that read a ``.grad``, and what it read it of, where the source tells."""
    where = line_of(file, line)
    try:
        tree = ast.parse(getline(file, line).strip().rstrip(":"))
    except (SyntaxError, ValueError):
        return where, ""
    owners = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "grad"]
    return where, ast.unparse(owners[0]) if len(owners) == 1 else ""


def source_of(place: Place | None) -> Source | None:
    return None if place is None else line_of(place.code.co_filename, place.line, place.code.co_name)
