"""Turns what the live collector saw into the plain `Evidence` of the diagnoses.

`Gatherer` is the one object the pipeline holds; see its methods for when each is called.
"""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import getsourcefile
from linecache import getline
from types import TracebackType
from typing import Any

import torch
from torch import nn

from explorer.diagnose.non_finite_gradient import NAN_RETURNED
from explorer.evidence import (
    Cut,
    Damage,
    Evidence,
    Growth,
    Looked,
    ParameterFact,
    Ran,
    Reused,
    Starved,
    Unlisted,
)
from explorer.graph import Graph, Node, Source
from explorer.names import Names
from explorer.places import line_of
from explorer.report import Report
from explorer.trace import Trace
from explorer.units import count_units, find_broadcasts
from hooks.backward import BackwardCall
from hooks.damage import FREED, MODIFIED, find_damage
from hooks.edits import Edits
from hooks.evidence import Collector
from hooks.forward import Observation
from hooks.modules import listed, wrapped_as
from hooks.nodes import is_leaf
from hooks.places import USER, Place, kind_of

ContextOf = Callable[[Any], Any]
LISTED = 4
NOTED = 4
"""Calls after which what is not reached is noted each time; from then on after calls 8, 16, 32, ..."""


@dataclass
class Known:
    """Weakly, what the run showed of modules and parameters: filled by `look` and `remember`."""

    names: dict[int, tuple[weakref.ref[torch.Tensor], str, str]] = field(default_factory=dict)
    roots: dict[int, tuple[weakref.ref[nn.Module], str]] = field(default_factory=dict)
    optimized: dict[int, weakref.ref[torch.Tensor]] = field(default_factory=dict)
    optimizing: bool = False

    def parameters(self) -> list[torch.Tensor]:
        """Every parameter known of that still lives."""
        return [tensor for ref, _, _ in self.names.values() if (tensor := ref()) is not None]

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
        return next((name for one, name, _ in self.names.values() if one is ref), "")


class Gatherer:
    """The one object a watch holds: enters the collector, and turns what it saw into plain data.

    `around(call)` goes around every backward call of the user's; `look` right before an explored one;
    `of_run` gives what is known of the whole run, at any time.
    """

    def __init__(self) -> None:
        self._collector = Collector()
        self.problems = self._collector.problems
        self._known = Known()
        self._closed = False
        self._context: Observation | None = None
        self._calls = 0
        self._unreached: dict[int, tuple[weakref.ref[torch.Tensor], ParameterFact]] = {}
        self._unlisted: dict[int, Unlisted] = {}

    @property
    def edits(self) -> Edits:
        """Who took hold of which memory past autograd."""
        return self._collector.cuts.edits

    def __enter__(self) -> Gatherer:
        self._collector.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        self._collector.__exit__(kind, error, tb)
        self._closed = True

    @contextmanager
    def around(self, call: BackwardCall) -> Iterator[None]:
        """Before and after one backward call, explored or not."""
        self._collector.before(call)
        try:
            yield
        finally:
            self._collector.look_at(self._known.parameters())
            self._collector.after(call)
            try:
                self._note_unreached()
            except Exception as error:  # noqa: BLE001 - the user's backward must not notice
                self.problems.append(f"noting what is not reached failed: {type(error).__name__}: {error}")

    def look(
        self, trace: Trace | None, names: Names, roots: Sequence[Any], context: Observation | None
    ) -> Looked:
        """Look at a live graph right before its backward; a failure is told in `problems`."""
        try:
            self._context = context
            self._remember(names, context)
            return self._look(trace, names, roots, context) if trace is not None else Looked()
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.problems.append(f"looking for evidence failed: {type(error).__name__}: {error}")
            return Looked()

    def cut_roots(self, roots: Sequence[Any]) -> list[str]:
        """One sentence for each root that requires no gradient because of a cut we saw."""
        found = self._collector.cuts.feeding((), roots)
        return [
            f"the loss requires no gradient: it was cut at {where.file}:{where.line} `{where.code}`"
            for cut, _ in found
            if (where := _line(cut.place)) is not None
        ]

    def of_run(self, context: Observation | None, complete: bool) -> Evidence:
        """What the whole run showed; what belongs to one report is left to the caller."""
        self._remember(Names(), context)
        evidence = of_run(self._collector, self._known, context.runs_of if context else None)
        gone = tuple(fact for ref, fact in self._unreached.values() if ref() is None)
        self._note_unlisted(context)
        return replace(
            evidence,
            complete=complete and self._closed,
            parameters=(*evidence.parameters, *gone),
            unlisted=tuple(self._unlisted.values()),
        )

    def _note_unreached(self) -> None:
        """Note what no backward has reached yet: a model local to a function is gone when the run is over."""
        for key, (ref, _) in list(self._unreached.items()):
            tensor = ref()
            if tensor is not None and (not tensor.requires_grad or self._collector.reached(tensor)):
                del self._unreached[key]
        self._calls += 1
        if self._calls > NOTED and self._calls & (self._calls - 1):
            return
        context = self._context
        self._remember(Names(), context)
        self._note_unlisted(context)
        if any(one.requires_grad and not self._collector.reached(one) for one in self._known.parameters()):
            for fact in _facts(self._collector, self._known, context.runs_of if context else None):
                if not fact.reached:
                    self._unreached[fact.identity] = (self._known.names[fact.identity][0], fact)

    def _remember(self, names: Names, context: Observation | None) -> None:
        remember(self._known, names)
        _remember_steps(self._collector, self._known)
        if context is not None:
            remember_modules(self._known, context.root_modules())

    def _note_unlisted(self, context: Observation | None) -> None:
        """Note modules nobody lists, whose parameters a backward reaches and no optimizer holds."""
        known, reached = self._known, self._collector.reached
        for path, module, owner in context.unlisted_modules() if context is not None else ():
            own = [one for one in module.parameters(recurse=False) if one.requires_grad and reached(one)]
            self._unlisted.pop(id(module), None)
            if (
                not own
                or any(map(known.is_optimized, own))
                or not any(map(known.is_optimized, owner.parameters()))
            ):
                continue
            kind, above = type(module).__name__, type(owner).__name__
            self._unlisted[id(module)] = Unlisted(path, kind, above, len(own))

    def _look(self, trace: Trace, names: Names, roots: Sequence[Any], context: Observation | None) -> Looked:
        live = trace.live
        context_of = context.context_of if context is not None else None
        self._collector.saw(node.variable for node in live if is_leaf(node))
        problems = trace.sight.problems
        tensors = [held for held in names.held if isinstance(held, torch.Tensor)]
        damage = find_damage(live, problems, tensors, self._collector.steps) if problems else []
        return Looked(
            cuts=tuple(_cuts(self._collector, self._known, trace, roots)),
            damage=tuple(_damage(one, self._known, names, context_of, trace.graph) for one in damage),
            units=tuple(count_units(live)),
            earlier=self._collector.earlier,
            broadcasts=tuple(find_broadcasts(live)),
            backwards=_backwards(trace),
            loss=_value(roots),
        )


def _value(roots: Sequence[Any]) -> float | None:
    """The number a single real root of one element holds."""
    root = roots[0] if len(roots) == 1 else None
    if type(root) is not torch.Tensor or root.numel() != 1 or not root.is_floating_point() or root.is_meta:
        return None
    try:
        return float(root.detach())
    except RuntimeError:  # no memory behind it: fake, or batched by vmap
        return None


def failed_node(report: Report, earlier: int | None = None) -> int | None:
    """The node a failed backward was in: of those that were ready and did not run, the youngest.

    That is the order torch's engine keeps on one thread. None where nothing failed. A node that anomaly
    mode names has run. `earlier` is the sequence number at the end of the call before: what a failed call
    freed itself is younger.
    """
    if not report.error:
        return None
    graph = report.graph
    named = NAN_RETURNED.search(report.error)
    if named is not None:
        places = [
            (ran.index, node.id)
            for node, ran in zip(graph.nodes, report.gradients, strict=False)
            if ran is not None and node.name == named[1]
        ]
        return max(places, default=(0, None))[1]
    if not any(report.gradients):
        # Nothing was recorded: the call was looked at after it had failed. Values that cannot be read tell.
        telling = MODIFIED if MODIFIED in report.error else FREED if FREED in report.error else None
        hurt = [
            graph.nodes[number]
            for number in graph.order
            if telling is not None and any(telling in saved.problem for saved in graph.nodes[number].saved)
        ]
        if telling == FREED and earlier is not None:
            hurt = [node for node in hurt if (node.sequence_nr or 0) < earlier]
        return hurt[0].id if hurt else None
    ran = [gradients is not None for gradients in report.gradients]
    ready = [
        node
        for node in graph.nodes
        if not ran[node.id] and all(ran[graph.edges[edge].source] for edge in graph.incoming[node.id])
    ]
    inner = [node for node in ready if node.kind != "leaf"]
    chosen = max(inner or ready, key=lambda node: node.sequence_nr or 0, default=None)
    return None if chosen is None else chosen.id


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


def of_run(collector: Collector, known: Known, runs_of: Callable[[nn.Module], Any] | None) -> Evidence:
    """What the whole run showed; `calls` and what belongs to one report are left to the caller."""
    _remember_steps(collector, known)
    reused = collector.steps.reused
    growth = collector.history.growth
    return Evidence(
        optimizing=known.optimizing,
        derived=collector.derived,
        parameters=tuple(_facts(collector, known, runs_of)),
        reused=None
        if reused is None
        else Reused(
            _line(reused.place),
            known.name_behind(reused.parameter),
            reused.before,
            reused.total,
        ),
        starved=tuple(
            Starved(_line(one.place), known.name_behind(one.parameter) or "a parameter", one.steps)
            for one in collector.steps.starved()
            if collector.was_reached(one.parameter)
        ),
        growth=None
        if growth is None
        else Growth(line_of(growth.file, growth.line), growth.counts, growth.variable, growth.kept),
        reads=tuple(_read(file, line) for file, line in collector.reads.places),
    )


def _remember_steps(collector: Collector, known: Known) -> None:
    """Add the parameters of optimizers that took a step."""
    for parameter in collector.steps.held():
        known.optimizing = True
        known.optimized[id(parameter)] = weakref.ref(parameter)


def _line(place: Place | None) -> Source | None:
    return None if place is None else line_of(place.code.co_filename, place.line, place.code.co_name)


def _cuts(collector: Collector, known: Known, trace: Trace, roots: Sequence[Any]) -> Iterable[Cut]:
    for cut, node in collector.cuts.feeding(trace.live, roots):
        leaves = [leaf for ref in cut.leaves if (leaf := ref()) is not None]
        where = _line(cut.place)
        if leaves and where is not None:
            names = tuple(known.name_of(leaf) for leaf in leaves)
            yield Cut(where, cut.how, tuple(map(id, leaves)), names, node)


def _damage(found: Any, known: Known, names: Names, context: ContextOf | None, graph: Graph) -> Damage:
    variable = ""
    if found.tensor is not None:
        spelled = names.tensors.get(id(found.tensor), ())
        variable = spelled[0] if spelled else known.name_of(found.tensor)
    culprit = _line(found.step)
    if found.culprit is not None and context is not None:
        where = context(found.culprit)
        if where is not None and where.file:
            culprit = line_of(where.file, where.line, where.function)
    if culprit is None:
        culprit = _inplace_consumer(graph, graph.nodes[found.node], found.saved)
    step = found.step is not None
    return Damage(found.node, found.saved, found.version, found.expected, variable, culprit, step)


def _inplace_consumer(graph: Graph, victim: Node, saved: str) -> Source | None:
    """The line of the youngest in-place operation, made after `victim`, on the tensor it saved.

    Certain for a saved result; for a saved input only where the victim has a single one in the graph.
    """
    tensors = [(victim.id, 0)] if saved == "result" else []
    if not tensors and len(graph.outgoing[victim.id]) == 1:
        edge = graph.edges[graph.outgoing[victim.id][0]]
        tensors = [(edge.target, edge.target_slot)]
    takers = [
        graph.nodes[graph.edges[edge].source]
        for node, slot in tensors
        for edge in graph.incoming[node]
        if graph.edges[edge].target_slot == slot
    ]
    created = victim.sequence_nr or 0
    later = [taker for taker in takers if (taker.sequence_nr or 0) > created and _in_place(taker)]
    youngest = max(later, key=lambda taker: taker.sequence_nr or 0, default=None)
    return youngest.source if youngest is not None else None


def _in_place(node: Node) -> bool:
    """Whether the line that made `node` says that it changed its input: ``mul_``, ``+=``, ``x[i] =``."""
    if node.operation.endswith("_") and not node.operation.endswith("__"):
        return True
    if node.source is None:
        return False
    try:
        tree = ast.parse(node.source.code)
    except (SyntaxError, ValueError):
        return False
    return any(isinstance(statement, ast.AugAssign) for statement in tree.body)


def _facts(
    collector: Collector, known: Known, runs_of: Callable[[nn.Module], Any] | None
) -> Iterable[ParameterFact]:
    ran, siblings = _runs(known, runs_of)
    beside = {
        name.rpartition(".")[0]
        for ref, name, _ in known.names.values()
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


def _idle(collector: Collector, known: Known) -> set[int]:
    """The parameters of models of which no backward reaches and no optimizer holds any."""
    idle: set[int] = set()
    used: set[int] = set()
    for ref, _ in known.roots.values():
        root = ref()
        own = list(root.parameters()) if root is not None else []
        some = any(collector.reached(one) or known.is_optimized(one) for one in own)
        (used if some else idle).update(map(id, own))
    return idle - used


def _exits(collector: Collector, parameter: torch.Tensor) -> tuple[tuple[Source, str], ...]:
    """The lines where something computed from `parameter` left the graph, in the order they were met."""
    seen = ((_line(cut.place), cut.how) for cut in collector.cuts.exits_of(parameter))
    return tuple(dict.fromkeys((where, how) for where, how in seen if where is not None))


def _made(known: Known, path: str) -> Source | None:
    """The line of the root's ``__init__`` that makes the module at `path`."""
    name = path.partition(".")[0]
    for ref, _ in known.roots.values():
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


def _runs(
    known: Known, runs_of: Callable[[nn.Module], Any] | None
) -> tuple[Mapping[int, Ran], Mapping[int, bool]]:
    """Per parameter: how its module ran, and whether anything of its tree ran with gradients."""
    ran: dict[int, Ran] = {}
    siblings: dict[int, bool] = {}
    for ref, _ in known.roots.values() if runs_of is not None else ():
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


def _read(file: str, line: int) -> tuple[Source, str]:
    """The line that read a ``.grad``, and what it read it of, where the source tells."""
    where = line_of(file, line)
    try:
        tree = ast.parse(getline(file, line).strip().rstrip(":"))
    except (SyntaxError, ValueError):
        return where, ""
    owners = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr == "grad"]
    return where, ast.unparse(owners[0]) if len(owners) == 1 else ""


def _backwards(trace: Trace) -> dict[int, Source]:
    """Where the backward of each Python Function in the graph is defined, by node."""
    found: dict[int, Source] = {}
    for index in trace.sight.custom:
        where = _definition(getattr(trace.live[index], "_forward_cls", None))
        if where is not None:
            found[index] = where
    return found


def _definition(kind: Any) -> Source | None:
    """The ``def backward`` line of a Function."""
    code = getattr(getattr(kind, "backward", None), "__code__", None)
    if code is None:
        return None
    file = getsourcefile(kind.backward) or code.co_filename
    for line in range(code.co_firstlineno, code.co_firstlineno + LISTED):
        if getline(file, line).lstrip().startswith("def "):
            return line_of(file, line, "backward")
    return line_of(file, code.co_firstlineno, "backward")
