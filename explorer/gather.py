"""Turns what the live collector saw into the plain `Evidence` of the diagnoses.

What each graph shows is read here, what the whole run shows in `facts`.
`Gatherer` is the one object the pipeline holds; see its methods for when each is called.
"""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from inspect import getsourcefile
from linecache import getline
from types import TracebackType
from typing import Any

import torch

from explorer.diagnose.non_finite_gradient import NAN_RETURNED
from explorer.evidence import (
    Cut,
    Damage,
    Evidence,
    Looked,
    ParameterFact,
    Unlisted,
)
from explorer.facts import Known, facts_of, of_run, remember, remember_modules, remember_steps, source_of
from explorer.graph import Graph, Node, Source
from explorer.idle import LeftOuts, unstepped
from explorer.lost import REFUSED, Counts, lost, optimized_around
from explorer.names import Names
from explorer.places import line_of
from explorer.report import Report
from explorer.trace import Trace
from explorer.units import count_units, find_broadcasts
from hooks.backward import BackwardCall
from hooks.damage import FREED, MODIFIED, find_damage
from hooks.edits import Edits
from hooks.evidence import Collector
from hooks.flight import Flight
from hooks.forward import Observation
from hooks.nodes import is_leaf
from hooks.unseen import unseen

ContextOf = Callable[[Any], Any]
LISTED = 4
"""Lines below a Function's decorators among which its ``def backward`` is looked for."""
NOTED = 4
"""Calls after which what is not reached is noted each time; from then on after calls 8, 16, 32, ..."""


class Gatherer:
    """The one object a watch holds: enters the collector, and turns what it saw into plain data.

    `around(call)` goes around every backward call of the user's; `look` right before an explored one;
    `of_run` gives what is known of the whole run, at any time.
    """

    def __init__(self) -> None:
        self._collector = Collector()
        self.problems = self._collector.problems
        self.lost: list[str] = []
        self._known = Known()
        self._left_outs = LeftOuts()
        self._closed = False
        self._context: Observation | None = None
        self._calls = 0
        self._unreached: dict[int, tuple[weakref.ref[torch.Tensor], ParameterFact]] = {}
        self._unlisted: dict[int, Unlisted] = {}

    @property
    def flight(self) -> Flight:
        """Which threads are inside a backward."""
        return self._collector.flight

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
        with unseen():
            self._collector.before(call)
        try:
            with self._collector.flight.backward():
                yield
        except RuntimeError as error:
            if REFUSED in str(error):
                with unseen():
                    self._tell_lost(call)
            raise
        finally:
            with unseen():
                self._after(call)

    def _after(self, call: BackwardCall) -> None:
        self._collector.after(call)
        try:
            with self._collector.looking() as may_look:
                if may_look:
                    self._collector.look_at(self._known.parameters())
                    held = self._known.is_optimized
                    free = (one for one in self._known.parameters() if not held(one))
                    self._collector.idle.after_backward(free)
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
            if (where := source_of(cut.place)) is not None
        ]

    def _tell_lost(self, call: BackwardCall) -> None:
        """Tell which line lost the graph of a loss that backward refuses, where that is certain."""
        try:
            if call.frame is None or self.cut_roots(call.roots):
                return
            counts = self._counting(optimized_around(call.frame))
            where = lost(call.frame, counts, partial(self._cuts_of, counts))
            if where is not None:
                at = line_of(*where[:2])
                line = f"{at.file}:{at.line} `{at.code}` ({where[2]})"
                self.lost.append(f"the loss requires no gradient: it was cut at {line}")
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.problems.append(f"reading the lines of the loss failed: {type(error).__name__}: {error}")

    def _counting(self, around: set[int]) -> Counts:
        """Whether an optimizer holds one of some leaves; any will do where no optimizer is known.

        `around` are the ids of those that the optimizers near the call hold.
        """
        held = self._known.is_optimized
        if not around and not self._known.optimizing:
            return bool
        return lambda leaves: any(id(leaf) in around or held(leaf) for leaf in leaves)

    def _cuts_of(self, counts: Counts, tensor: torch.Tensor) -> list[tuple[str, int, str]]:
        """Where a tensor was seen to be cut off from leaves that count."""
        return [
            (where.file, where.line, cut.how)
            for cut, _ in self._collector.cuts.feeding((), [tensor])
            if (where := source_of(cut.place)) is not None
            and counts([leaf for ref in cut.leaves if (leaf := ref()) is not None])
        ]

    def of_run(self, context: Observation | None, complete: bool) -> Evidence:
        """What the whole run showed; what belongs to one report is left to the caller."""
        with self._collector.looking():
            return self._of_run(context, complete)

    def _of_run(self, context: Observation | None, complete: bool) -> Evidence:
        if self._collector.overlapped:  # what was noted before may have been reached unseen
            self._unreached.clear()
        self._remember(Names(), context)
        evidence = of_run(self._collector, self._known, context.runs_of if context else None)
        gone = tuple(fact for ref, fact in list(self._unreached.values()) if ref() is None)
        self._note_unlisted(context)
        self._note_left_outs(context)
        return replace(
            evidence,
            complete=complete and self._closed,
            parameters=(*evidence.parameters, *gone),
            unlisted=tuple(self._unlisted.values()),
            unstepped=tuple(unstepped(self._collector, self._known)),
            left_out=self._left_outs.facts(),
        )

    def _note_unreached(self) -> None:
        """Note what no backward has reached yet: a model local to a function is gone when the run is over."""
        for key, (ref, _) in list(self._unreached.items()):
            tensor = ref()
            if tensor is not None and (not tensor.requires_grad or self._collector.reached(tensor)):
                self._unreached.pop(key, None)
        self._calls += 1
        if self._calls > NOTED and self._calls & (self._calls - 1):
            return
        context = self._context
        self._remember(Names(), context)
        self._note_unlisted(context)
        self._note_left_outs(context)
        if any(one.requires_grad and not self._collector.reached(one) for one in self._known.parameters()):
            for fact in facts_of(self._collector, self._known, context.runs_of if context else None):
                if not fact.reached:
                    self._unreached[fact.identity] = (self._known.names[fact.identity][0], fact)

    def _remember(self, names: Names, context: Observation | None) -> None:
        remember(self._known, names)
        remember_steps(self._collector, self._known)
        if context is not None:
            remember_modules(self._known, context.root_modules())

    def _note_unlisted(self, context: Observation | None) -> None:
        """Note modules nobody lists, whose parameters a backward reaches and no optimizer holds."""
        known, reached = self._known, self._collector.surely_reached
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

    def _note_left_outs(self, context: Observation | None) -> None:
        """Note parameters that get gradients and that no optimizer holds."""
        unlisted = context.unlisted_modules() if context is not None else ()
        self._left_outs.note(self._collector, self._known, [module for _, module, _ in unlisted])

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


def _cuts(collector: Collector, known: Known, trace: Trace, roots: Sequence[Any]) -> Iterable[Cut]:
    for cut, node in collector.cuts.feeding(trace.live, roots):
        leaves = [leaf for ref in cut.leaves if (leaf := ref()) is not None]
        where = source_of(cut.place)
        if leaves and where is not None:
            names = tuple(known.name_of(leaf) for leaf in leaves)
            yield Cut(where, cut.how, tuple(map(id, leaves)), names, node)


def _damage(found: Any, known: Known, names: Names, context: ContextOf | None, graph: Graph) -> Damage:
    variable = ""
    if found.tensor is not None:
        spelled = names.tensors.get(id(found.tensor), ())
        variable = spelled[0] if spelled else known.name_of(found.tensor)
    culprit = source_of(found.step)
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
