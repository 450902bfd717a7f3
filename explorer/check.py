"""The check: what torch computed at every node, against the engine, while backward runs.

Three checks, each with its own blind spot:

local       a node's rule, from its saved values and its incoming gradient, against what torch sent on;
junction    the sum of what the consumers sent to a node against what the node received;
end to end  on small graphs the engine's own gradients from the root on, without looking at torch's.

On larger graphs local and junction checks together imply the third by induction.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import isfinite
from time import perf_counter
from typing import Any, Literal, TypeAlias

import torch

from explorer.convert import leaf_of, value_of
from explorer.engine.array import Array
from explorer.engine.compare import GRAVITY, Comparison, compare
from explorer.engine.elementwise import ADD as _ADD
from explorer.engine.elementwise import Full, Missing, apply
from explorer.engine.leaf import Leaf
from explorer.engine.registry import Rule, Site, apply_rule, rule_for
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.rules import FAMILIES
from explorer.engine.run import Run
from explorer.engine.sampling import Points, plan, wrong_share
from explorer.errors import RuleError
from explorer.graph import TensorSpec
from explorer.numeric import Numeric
from explorer.report import SMALL, CheckSummary, Status, Verdict
from explorer.rerun import UncheckableError
from explorer.trace import Trace
from hooks.nodes import Event
from hooks.registered import hooks_of
from hooks.saved import SavedValue, read

Mode: TypeAlias = Literal["sample", "full"]
Slot: TypeAlias = tuple[int, int]

SMALL_GRAPH = 20_000
"""Graphs whose gradients have at most this many elements in all are also checked end to end."""

JUNCTION_POINTS = 12
"""So many elements of each gradient are followed across its edges."""

assert FAMILIES  # importing the families registers their rules


@dataclass(slots=True)
class _Junction:
    """What the consumers sent so far to one output of one node, at the places followed."""

    points: Points
    total: list[Any]
    size: list[float]
    senders: int = 0


@dataclass(slots=True)
class _Outcome:
    """What is known of one node so far."""

    ran: bool = False
    found: list[tuple[str, Comparison]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


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
        self._outcomes = [_Outcome() for _ in graph.nodes]
        self._junctions: dict[Slot, _Junction] = {}
        self._junctions_checked = 0
        self._seconds = 0.0
        self._roots = set(graph.roots)
        self._senders: dict[Slot, int] = {}
        for edge in graph.edges:
            slot = (edge.target, edge.target_slot)
            self._senders[slot] = self._senders.get(slot, 0) + 1
        self._targets: list[list[Slot | None]] = [[None] * size for size in graph.arity]
        for edge in graph.edges:
            self._targets[edge.source][edge.source_slot] = (edge.target, edge.target_slot)
        total = sum(spec.numel for node in graph.nodes for spec in node.outputs if spec is not None)
        self._own: dict[Slot, Array] | None = {} if total <= SMALL_GRAPH else None
        self._compared_end_to_end = 0
        self._from_root_on = (
            True  # every leaf's gradient was compared, and none rests on a gradient of torch's
        )
        self._numeric = Numeric()

    # ------------------------------------------------------------------ while backward runs

    def observe(self, event: Event) -> None:
        """Check one node; its saved tensors must still be alive. Never raises for a wrong gradient."""
        started = perf_counter()
        try:
            with torch.no_grad():
                self._observe(event)
        finally:
            self._seconds += perf_counter() - started

    def _observe(self, event: Event) -> None:
        outcome = self._outcomes[event.index]
        outcome.ran = True
        incoming = [None if one is None else leaf_of(one) for one in event.grad_outputs]
        self._check_junctions(event.index, incoming)
        if event.grad_inputs is None:
            self._check_leaf_end_to_end(event.index, incoming)
            return
        outgoing = [None if one is None else leaf_of(one) for one in event.grad_inputs]
        self._follow_edges(event.index, outgoing)
        name = self._graph.nodes[event.index].name
        rule = rule_for(name)
        if rule is None:
            self._compare_numerically(event)
            self._forget_own(event.index)
            return
        unreadable = next((one.reason for one in incoming if isinstance(one, Missing)), "")
        if unreadable:
            outcome.problems.append(f"the incoming gradient cannot be read: {unreadable}")
            self._forget_own(event.index)
            return
        site = self._site(event, name)
        rounding = self._rounding(site, event)
        try:
            gradients = self._apply(rule, site, incoming)
            for slot, expected in enumerate(gradients):
                if self._targets[event.index][slot] is not None:
                    self._compare(event, slot, expected, outgoing, rounding, rule, site, incoming)
        except RuleError as problem:
            outcome.problems.append(str(problem))
            self._forget_own(event.index)
            return
        except Exception as problem:  # noqa: BLE001 - a rule of the user's may fail while it is evaluated
            outcome.problems.append(f"the rule of {name} raised {type(problem).__name__}: {problem}")
            self._forget_own(event.index)
            return
        self._carry_own(event, rule, site, rounding)

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

    def _rounding(self, site: Site, event: Event) -> Rounding:
        specs = [spec.dtype for spec in (*site.inputs, *site.outputs) if spec is not None]
        rounding = rounding_of(specs)
        return replace(rounding, product=site.matmul_precision) if site.matmul_precision else rounding

    @staticmethod
    def _apply(rule: Rule, site: Site, incoming: Sequence[Array | None]) -> list[Array | None]:
        if all(one is None for one in incoming):
            return [None] * len(site.inputs)
        return apply_rule(rule, site, incoming)

    def _compare(
        self, event: Event, slot: int, expected: Array | None, outgoing: Sequence[Array | None],
        rounding: Rounding, rule: Rule, site: Site, incoming: Sequence[Array | None],
    ) -> None:  # fmt: skip
        outcome = self._outcomes[event.index]
        sent = outgoing[slot] if slot < len(outgoing) else None
        spec = site.inputs[slot]
        if expected is None and sent is None:
            return
        if spec is None:
            outcome.problems.append(f"the shape of input {slot} is not known")
            return
        if expected is None:
            if any(one is not None for one in incoming):
                outcome.problems.append(f"the rule gives no gradient for input {slot}")
            return
        if sent is None and self._pruned:
            return
        if sent is None:
            sent = Full(0.0, spec.shape)  # an undefined gradient stands for zeros
        if isinstance(sent, Missing):
            outcome.problems.append(f"the gradient for input {slot} cannot be read: {sent.reason}")
            return
        if sent.shape != expected.shape and not isinstance(expected, Missing):
            outcome.problems.append(f"shape {sent.shape} was sent on, the rule gives {expected.shape}")
            return
        found = compare(
            expected,
            sent,
            rounding,
            seed=event.index * 31 + slot,
            hints=self._hints(rule, site, incoming, slot),
            whole=self._mode == "full" or self._own is not None,
        )
        outcome.found.append((f"local, input {slot}", found))

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

    @staticmethod
    def _hints(rule: Rule, site: Site, incoming: Sequence[Array | None], slot: int) -> Points:
        if rule.hints is None:
            return []
        with suppress(Exception):  # hints are a courtesy: without them the sample is only less pointed
            hints = rule.hints(site, *incoming)
            return list(hints[slot] or []) if slot < len(hints) else []
        return []

    # ------------------------------------------------------------------ junctions

    def _follow_edges(self, index: int, outgoing: Sequence[Array | None]) -> None:
        """Note, at a few places, what this node sends along each edge."""
        for slot, target in enumerate(self._targets[index]):
            if target is None:
                continue
            sent = outgoing[slot] if slot < len(outgoing) else None
            junction = self._junctions.get(target)
            if junction is None:
                junction = self._open_junction(target, sent)
                if junction is None:
                    continue
            junction.senders += 1
            if sent is None or isinstance(sent, Missing):
                continue
            values = _values_at(sent, junction.points)
            if junction.senders == 1:
                junction.total = values
                junction.size = [abs(value) for value in values]
            else:
                junction.total = [a + b for a, b in zip(junction.total, values, strict=True)]
                junction.size = [a + abs(b) for a, b in zip(junction.size, values, strict=True)]

    def _open_junction(self, target: Slot, sent: Array | None) -> _Junction | None:
        outputs = self._graph.nodes[target[0]].outputs
        spec = outputs[target[1]] if target[1] < len(outputs) else None
        if spec is None or isinstance(sent, Missing):
            return None
        count = JUNCTION_POINTS if self._own is None else SMALL
        points = plan(spec.shape, 7 * target[0] + target[1], count)
        zero = [0.0] * len(points)
        junction = self._junctions[target] = _Junction(points, list(zero), list(zero))
        return junction

    def _check_junctions(self, index: int, incoming: Sequence[Array | None]) -> None:
        node = self._graph.nodes[index]
        outcome = self._outcomes[index]
        for slot, received in enumerate(incoming):
            place = (index, slot)
            junction = self._junctions.pop(place, None)
            if place in self._roots or junction is None or isinstance(received, Missing):
                continue
            if junction.senders < self._senders.get(place, 0):
                outcome.notes.append("junction: some consumers were not seen")
                continue
            spec = node.outputs[slot] if slot < len(node.outputs) else None
            rounding = rounding_of([spec.dtype] if spec else [])
            seen = [0.0] * len(junction.points) if received is None else _values_at(received, junction.points)
            found = _sum_agrees(junction, seen, rounding, 0 if received is None else received.numel)
            self._junctions_checked += 1
            if found.status != "match" and self._hooked(index, slot):
                outcome.notes.append("a hook of the script altered its gradient")
            else:
                outcome.found.append(("junction", found))

    # ------------------------------------------------------------------ end to end

    def _forget_own(self, index: int) -> None:
        """From a node that cannot be followed on, the engine has no gradient of its own."""
        self._own = None

    def _received_own(self, index: int, slot: int, received: Array | None) -> Array | None:
        """The engine's own gradient for one output: given at a root or behind a hook, else summed."""
        assert self._own is not None  # only asked while the graph is followed
        own = self._own.pop((index, slot), None)
        if (index, slot) in self._roots:
            return received
        if self._hooked(index, slot):
            self._from_root_on = False  # from here on it is torch's own gradient that is followed
            return received
        return own

    def _carry_own(self, event: Event, rule: Rule, site: Site, rounding: Rounding) -> None:
        if self._own is None:
            return
        index = event.index
        quadrature = replace(rounding, quadrature=True)
        own = [
            self._received_own(index, slot, None if one is None else _kept(leaf_of(one), rounding))
            for slot, one in enumerate(event.grad_outputs)
        ]
        try:
            gradients = self._apply(rule, site, own)
            run = Run(quadrature)
            for slot, gradient in enumerate(gradients):
                target = self._targets[index][slot]
                if target is None or gradient is None:
                    continue
                if isinstance(gradient, Missing):
                    self._forget_own(index)
                    return
                other = self._own.get(target)
                total = gradient if other is None else apply(_ADD, other, gradient)
                self._own[target] = _stored(total, run)
        except Exception:  # noqa: BLE001 - the local check has reported the rule's failure already
            self._forget_own(index)

    def _check_leaf_end_to_end(self, index: int, incoming: Sequence[Array | None]) -> None:
        if self._own is None or not incoming or incoming[0] is None:
            return
        own = None if isinstance(incoming[0], Missing) else self._received_own(index, 0, incoming[0])
        if own is None or own is incoming[0]:
            self._from_root_on &= (index, 0) in self._roots and not self._senders.get((index, 0))
            return
        spec = self._graph.nodes[index].outputs[0]
        rounding = replace(rounding_of([spec.dtype] if spec else []), quadrature=True)
        found = compare(own, incoming[0], rounding, whole=True, factor=8.0, run=Run(rounding))
        if found.status == "nan-mismatch" and self._overflowed():
            found = replace(found, status="overflow")
        self._compared_end_to_end += 1
        self._outcomes[index].found.append(("end to end", found))

    def _overflowed(self) -> bool:
        """Whether some node before overflowed: infinities and nans come from there."""
        return any(one.status == "overflow" for outcome in self._outcomes for _, one in outcome.found)

    # ------------------------------------------------------------------ afterwards

    def finish(self) -> tuple[tuple[Verdict, ...], CheckSummary]:
        """The verdict on every node and the totals; to be called once backward is over."""
        verdicts = tuple(self._verdict(index) for index in range(len(self._graph.nodes)))
        statuses: dict[Status, int] = {}
        for verdict in verdicts:
            statuses[verdict.status] = statuses.get(verdict.status, 0) + 1
        elements = sum(verdict.elements for verdict in verdicts)
        of = sum(verdict.of for verdict in verdicts)
        checked = sum(verdict.status != "unchecked" for verdict in verdicts)
        full = self._own is not None and self._compared_end_to_end > 0 and self._from_root_on
        summary = CheckSummary(
            nodes=len(verdicts),
            checked=checked,
            junctions=self._junctions_checked,
            statuses=statuses,
            end_to_end="full" if full else "induction" if checked else "off",
            elements=elements,
            of=of,
            wrong_share=wrong_share(elements, of) if elements else None,
            seconds=self._seconds,
        )
        self._junctions.clear()
        if self._own is not None:
            self._own.clear()
        return verdicts, summary

    def _verdict(self, index: int) -> Verdict:
        outcome = self._outcomes[index]
        if not outcome.ran:
            return Verdict(index, "unchecked", "did not run")
        compared = [(what, found) for what, found in outcome.found if found.status != "unchecked"]
        problems = outcome.problems + [
            found.reason for _, found in outcome.found if found.status == "unchecked" and found.reason
        ]
        what, worst = max(
            compared,
            key=lambda pair: (GRAVITY[pair[1].status], pair[1].ratio),
            default=("", Comparison("unchecked", reason="nothing to compare")),
        )
        leaf = self._graph.nodes[index].kind == "leaf"
        local = [found for kind, found in compared if leaf or kind.startswith("local")]
        if leaf:  # several checks look at the one gradient of a leaf: the one that saw most counts
            local = sorted(local, key=lambda one: one.elements)[-1:]
        elements, of = sum(one.elements for one in local), sum(one.of for one in local)
        bad = GRAVITY[worst.status] > GRAVITY["unchecked"]
        if problems and not bad:
            return Verdict(index, "unchecked", "; ".join(dict.fromkeys(problems)), None, elements, of)
        if not compared:
            return self._nothing_compared(index)
        if not leaf and not local and not bad:
            return self._nothing_compared(index)
        reason = f"{what}: {worst.words()}" if worst.status != "match" else ""
        reason = "; ".join(dict.fromkeys(one for one in (reason, *outcome.notes) if one))
        ratio = worst.ratio if isfinite(worst.ratio) else None
        return Verdict(index, worst.status, reason, ratio, elements, of)

    def _nothing_compared(self, index: int) -> Verdict:
        """A node that ran, yet had nothing to hold its gradient against."""
        if any(place[0] == index for place in self._roots) and self._graph.nodes[index].kind == "leaf":
            return Verdict(index, "unchecked", "its gradient is the one backward was given")
        if self._outcomes[index].notes:
            return Verdict(index, "unchecked", "; ".join(dict.fromkeys(self._outcomes[index].notes)))
        return Verdict(index, "unchecked", "no gradient reached or left it")


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


def _values_at(array: Array, points: Points) -> list[Any]:
    coords = list(zip(*points, strict=True)) if points and points[0] else []
    return array.at(coords, len(points), _READ)[0] if points else []


_READ = Run(rounding_of(["float64"]), bounds=False)


def _stored(array: Array, run: Run) -> Array:
    """Everything `array` gives, computed and kept as a list of values and their bounds."""
    if array.numel == 0:
        return Full(0.0, array.shape)
    values, errors = array.eval(array.full_box, run)
    return Leaf(
        list(values), array.shape, dtype="complex128" if array.is_complex else "float64", errors=errors
    )


def _kept(array: Array, rounding: Rounding) -> Array:
    """A copy of a small gradient's values: the tensor itself must not be kept alive."""
    return array if isinstance(array, Missing) else _stored(array, Run(rounding, bounds=False))


def _sum_agrees(junction: _Junction, seen: list[Any], rounding: Rounding, of: int) -> Comparison:
    """Whether what was received is the sum of what was sent: exactly so from one sender.

    Between m senders torch rounds m - 1 times: (m - 1)·u·Σ|sent|, twice for the threshold.
    """
    slack = 2 * max(junction.senders - 1, 0) * rounding.u
    worst = Comparison("match", 0.0, len(junction.points), of)
    for point, total, size, torch_value in zip(
        junction.points, junction.total, junction.size, seen, strict=True
    ):
        gap = abs(total - torch_value)
        bound = slack * size
        if total == torch_value or (total != total and torch_value != torch_value) or gap <= bound:
            continue
        if not isfinite(abs(torch_value)) and isfinite(size) and size * (1 + rounding.u) > rounding.largest:
            status: Status = "overflow"
        else:
            status = "mismatch" if isfinite(gap) else "nan-mismatch"
        ratio = gap / bound if bound else float("inf")
        if GRAVITY[status] > GRAVITY[worst.status] or ratio > worst.ratio:
            worst = Comparison(status, ratio, len(junction.points), of, point, torch_value, total)
    return worst
