"""The check: what torch computed at every node, against the engine, while backward runs.

Three checks, each with its own blind spot:

local       a node's rule, from its saved values and its incoming gradient, against what torch sent on;
junction    the sum of what the consumers sent to a node against what the node received;
end to end  on small graphs the engine's own gradients from the root on, without looking at torch's.

On larger graphs local and junction checks together imply the third by induction.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any, Literal, TypeAlias

import torch

from explorer.convert import leaf_of, value_of
from explorer.end_to_end import EndToEnd
from explorer.engine.array import Array
from explorer.engine.compare import FEW, Shared, compare
from explorer.engine.elementwise import Full, Missing
from explorer.engine.hints import FAMILIES as HINTED
from explorer.engine.registry import Rule, Site, apply_rule, hints_of, rule_for
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.rules import FAMILIES
from explorer.engine.run import Run
from explorer.engine.sampling import Points, plan
from explorer.errors import RuleError
from explorer.graph import TensorSpec
from explorer.junctions import Junctions, Slot
from explorer.numeric import Numeric
from explorer.report import SMALL, CheckSummary, Verdict
from explorer.rerun import UncheckableError
from explorer.trace import Trace
from explorer.verdicts import Outcome, summary_of, verdict_of
from hooks.nodes import Event
from hooks.registered import hooks_of
from hooks.saved import SavedValue, read

Mode: TypeAlias = Literal["sample", "full"]

SMALL_GRAPH = 20_000
"""Graphs whose gradients have at most this many elements in all are also checked end to end."""

JUNCTION_POINTS = 12
"""So many elements of each gradient are followed across its edges."""

TINY = 16
"""Gradients of at most so many elements are copied rather than read where they lie."""

assert FAMILIES  # importing the families registers their rules
assert HINTED  # and their hints


class Checker:
    """Checks each node as its event comes; `finish` gives the verdicts.

    Args:
        trace: the graph and its live nodes, as `explorer.trace.trace` gives them.
        mode: "sample", or "full": everything that can be compared in reasonable time.
        hooked: whether a user's own hook may have changed what slot k of node i received.
        pruned: only some inputs were asked for (``autograd.grad``, ``inputs=``): torch leaves undefined
            what leads to none of them, and that is not compared.

    No tensor is kept beyond `observe`; only numbers at a few places are.
    """

    def __init__(
        self,
        trace: Trace,
        mode: Mode = "sample",
        hooked: Callable[[int, int], bool] | None = None,
        pruned: bool = False,
    ) -> None:
        graph = trace.graph
        self._graph = graph
        self._mode = mode
        self._pruned = pruned
        self._hooked = hooked or (lambda index, slot: may_alter(trace, index, slot))
        self._outcomes = [Outcome() for _ in graph.nodes]
        self._seconds = 0.0
        self._targets: list[list[Slot | None]] = [[None] * size for size in graph.arity]
        for edge in graph.edges:
            self._targets[edge.source][edge.source_slot] = (edge.target, edge.target_slot)
        total = sum(spec.numel for node in graph.nodes for spec in node.outputs if spec is not None)
        small = total <= SMALL_GRAPH
        self._junctions = Junctions(graph, self._targets, SMALL if small else JUNCTION_POINTS)
        self._own = EndToEnd(graph, self._targets, small, self._hooked, self._junctions.senders)
        self._roundings: dict[tuple[str, ...], Rounding] = {}
        self._numeric = Numeric()

    # ------------------------------------------------------------------ while backward runs

    def observe(self, event: Event) -> None:
        """Check one node; its saved tensors must still be alive. Never raises for a wrong gradient."""
        started = perf_counter()
        try:
            if torch.is_grad_enabled():
                with torch.no_grad():
                    self._observe(event)
            else:
                self._observe(event)
        finally:
            self._seconds += perf_counter() - started

    def _observe(self, event: Event) -> None:
        index = event.index
        outcome = self._outcomes[index]
        outcome.ran = True
        incoming = [None if one is None else leaf_of(one, TINY) for one in event.grad_outputs]
        self._check_junctions(index, incoming)
        if event.grad_inputs is None:
            found = self._own.leaf(index, incoming)
            if found is not None:
                if found.status == "nan-mismatch" and self._overflowed():
                    found = replace(found, status="overflow")
                outcome.found.append(("end to end", found))
            return
        outgoing = [None if one is None else leaf_of(one, TINY) for one in event.grad_inputs]
        self._junctions.sent(index, outgoing)
        name = self._graph.nodes[index].name
        rule = rule_for(name)
        if rule is None:
            self._compare_numerically(event)
            self._own.stop()
            return
        unreadable = next((one.reason for one in incoming if isinstance(one, Missing)), "")
        if unreadable:
            outcome.problems.append(f"the incoming gradient cannot be read: {unreadable}")
            self._own.stop()
            return
        site = self._site(event, name)
        rounding = self._rounding(site)
        try:
            self._compare(event, outgoing, rounding, rule, site, incoming)
        except RuleError as problem:
            outcome.problems.append(str(problem))
            self._own.stop()
            return
        except Exception as problem:  # noqa: BLE001 - a rule of the user's may fail while it is evaluated
            outcome.problems.append(f"the rule of {name} raised {type(problem).__name__}: {problem}")
            self._own.stop()
            return
        self._own.carry(index, incoming, rule, site, rounding)

    # ------------------------------------------------------------------ local

    def _site(self, event: Event, name: str) -> Site:
        saved = {key: _readable(value) for key, value in read(event.node).items()}
        if isinstance(event.node, torch.autograd.function.BackwardCFunction):
            saved |= {key: value_of(value) for key, value in vars(event.node).items() if key not in saved}
        nodes = self._graph.nodes
        inputs: list[TensorSpec | None] = []
        for target in self._targets[event.index]:
            outputs = nodes[target[0]].outputs if target is not None else ()
            inputs.append(outputs[target[1]] if target is not None and target[1] < len(outputs) else None)
        return Site(name, saved, inputs, nodes[event.index].outputs, _matmul_precision(event))

    def _rounding(self, site: Site) -> Rounding:
        dtypes = tuple(spec.dtype for spec in (*site.inputs, *site.outputs) if spec is not None)
        rounding = self._roundings.get(dtypes)
        if rounding is None:
            rounding = self._roundings[dtypes] = rounding_of(dtypes)
        return replace(rounding, product=site.matmul_precision) if site.matmul_precision else rounding

    def _compare(
        self, event: Event, outgoing: Sequence[Array | None], rounding: Rounding, rule: Rule, site: Site,
        incoming: Sequence[Array | None],
    ) -> None:  # fmt: skip
        """Every gradient the node sent on, against its rule's."""
        index = event.index
        if all(one is None for one in incoming):
            gradients: list[Array | None] = [None] * len(site.inputs)
        else:
            gradients = apply_rule(rule, site, incoming)
        whole = self._mode == "full" or self._own.following
        run = Run(rounding, quick=True)
        shared: Shared | None = None
        hints = _Hints(rule, site, incoming, self._outcomes[index]) if rule.hints is not None else None
        for slot, expected in enumerate(gradients):
            if self._targets[index][slot] is None:
                continue
            sent = self._sent(index, slot, expected, outgoing, site, incoming)
            if sent is None or expected is None:
                continue
            if whole and sent.numel > SMALL:
                run = Run(rounding, quick=True)  # what one gradient needed is too much to keep for the next
            if slot < len(rule.shared) and sent.ndim > rule.shared[slot]:
                shared = _along(rule.shared[slot], sent, index, shared)
            found = compare(
                expected,
                sent,
                rounding,
                seed=index * 31 + slot,
                hints=None if hints is None else partial(hints, slot),
                shared=shared,
                whole=whole,
                run=run,
            )
            run.turn += 1
            outcome = self._outcomes[index]
            outcome.found.append((f"local, input {slot}", found))
            if found.projected:
                outcome.notes.append(f"input {slot}: {found.projected:,} elements by random projections")

    def _sent(
        self, index: int, slot: int, expected: Array | None, outgoing: Sequence[Array | None], site: Site,
        incoming: Sequence[Array | None],
    ) -> Array | None:  # fmt: skip
        """What was sent along `slot`, if it can be compared; else None, the problem being noted."""
        problems = self._outcomes[index].problems
        sent = outgoing[slot] if slot < len(outgoing) else None
        spec = site.inputs[slot]
        if expected is None and sent is None:
            return None
        if spec is None:
            problems.append(f"the shape of input {slot} is not known")
            return None
        if expected is None:
            if any(one is not None for one in incoming):
                problems.append(f"the rule gives no gradient for input {slot}")
            return None
        if sent is None and self._pruned:
            return None
        if sent is None:
            sent = Full(0.0, spec.shape)  # an undefined gradient stands for zeros
        if isinstance(sent, Missing):
            problems.append(f"the gradient for input {slot} cannot be read: {sent.reason}")
            return None
        if sent.shape != expected.shape and not isinstance(expected, Missing):
            problems.append(f"shape {sent.shape} was sent on, the rule gives {expected.shape}")
            return None
        return sent

    def _compare_numerically(self, event: Event) -> None:
        """A node without a rule: finite differences where it is a Python Function, else unchecked."""
        outcome, node = self._outcomes[event.index], self._graph.nodes[event.index]
        if not isinstance(event.node, torch.autograd.function.BackwardCFunction):
            outcome.problems.append(f"no rule for {node.name}")
            return
        wanted = [target is not None for target in self._targets[event.index]]
        try:
            compared = self._numeric.compare(event, wanted, whole=self._mode == "full")
        except UncheckableError as reason:
            outcome.problems.append(f"no rule for {node.name}, and no finite differences: {reason}")
            return
        outcome.found += [(f"local, input {slot}, finite differences", found) for slot, found in compared]

    # ------------------------------------------------------------------ junctions and ends

    def _check_junctions(self, index: int, incoming: Sequence[Array | None]) -> None:
        outcome = self._outcomes[index]
        for slot, received in enumerate(incoming):
            found = self._junctions.received(index, slot, received, self._hooked)
            if found is None:
                continue
            if isinstance(found, str):
                outcome.notes.append(found)
            elif found.status != "match" and self._hooked(index, slot):
                outcome.notes.append("a hook of the script altered its gradient")
            else:
                outcome.found.append(("junction", found))

    @property
    def own_gradients(self) -> Mapping[int, Array]:
        """What leaves of a small graph received by the engine's own reckoning from the root on."""
        return self._own.leaves

    def _overflowed(self) -> bool:
        """Whether some node before overflowed: infinities and nans come from there."""
        return any(one.status == "overflow" for outcome in self._outcomes for _, one in outcome.found)

    # ------------------------------------------------------------------ afterwards

    def finish(self) -> tuple[tuple[Verdict, ...], CheckSummary]:
        """The verdict on every node and the totals; to be called once backward is over."""
        verdicts = tuple(verdict_of(self._graph, i, one) for i, one in enumerate(self._outcomes))
        summary = summary_of(
            verdicts, junctions=self._junctions.checked, end_to_end=self._own.full, seconds=self._seconds
        )
        self._junctions.close()
        self._own.close()
        return verdicts, summary


class _Hints:
    """The elements that a node's rule hints at, per input; asked for once, where a sample wants them."""

    def __init__(self, rule: Rule, site: Site, incoming: Sequence[Array | None], outcome: Outcome) -> None:
        self._ask = partial(hints_of, rule, site, incoming)
        self._outcome = outcome
        self._found: list[Points] | None = None

    def __call__(self, slot: int) -> Points:
        """Those of one input; a failure is noted beside the verdict."""
        if self._found is None:
            self._found, problem = self._ask()
            if problem:
                self._outcome.notes.append(problem)
        return self._found[slot] if slot < len(self._found) else []


def _along(axis: int, sent: Array, seed: int, earlier: Shared | None) -> Shared:
    """The indices that all gradients of a node are looked at along the axis whose sums they share."""
    shared = earlier or Shared([point[0] for point in plan(sent.shape[axis : axis + 1], seed, FEW)])
    shared.axis = axis
    return shared


def may_alter(trace: Trace, index: int, slot: int) -> bool:
    """Whether a tensor hook of the script stands between the senders and this slot of node `index`.

    A post-accumulate hook and ``retain_grad`` look on; a hook on another output of the node explains nothing
    here. A hook that was found through a variable has no slot noted: it counts for each.
    """
    names = [name for name in trace.graph.nodes[index].hooks if name.startswith("tensor hook")]
    noted = hooks_of(trace.live[index])
    return len(names) > len(noted) or any(place == slot for place, _ in noted)


def _readable(saved: SavedValue) -> Any:
    """A saved value as rules see it; an unreadable one as `Missing`, with torch's own message."""
    return Missing(saved.problem) if saved.problem else value_of(saved.value)


def _matmul_precision(event: Event) -> float:
    """The roundoff of each operand of a matrix product under torch's precision flags; 0.0: none extra."""
    gradient = next((one for one in event.grad_outputs if one is not None), None)
    if gradient is None or gradient.dtype is not torch.float32:
        return 0.0
    precision = torch.get_float32_matmul_precision()
    if gradient.device.type == "cuda":
        return 2.0**-11 if precision != "highest" or torch.backends.cudnn.allow_tf32 else 0.0
    return 2.0**-8 if precision == "medium" else 0.0
