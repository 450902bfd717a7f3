"""Fault injection: every mistake of the list is caught, in small graphs and in sampled ones.

Run with ``-s`` to see the table. The suite fails below 100 % of what can be detected, and names what cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from explorer.check import SMALL_GRAPH, Checker
from explorer.engine import registry
from explorer.report import Status, Verdict
from explorer.trace import trace
from hooks.nodes import Event, capture
from tests.engine.mutations import MUTATIONS, Mutation, Sent

SIZES = {"small": 12, "large": 2048}
CAUGHT: tuple[Status, ...] = ("mismatch", "nan-mismatch")
Change = Callable[[Event], Event]


def verdict_of(loss: Tensor, name: str, change: Change = lambda event: event) -> Verdict:
    """The verdict on the first node `name` of a backward whose events went through `change`."""
    found = trace([loss])
    checker = Checker(found)
    index = next(node.id for node in found.graph.nodes if node.name == name)

    def observe(event: Event) -> None:
        checker.observe(change(event) if event.index == index else event)

    with capture(found.live, observe) as watching:
        loss.backward()
    assert watching.problem == ""
    verdicts, _ = checker.finish()
    return verdicts[index]


def captured(mutation: Mutation, size: int) -> Verdict:
    """The fault in what torch sent (or, for the fan-out, in what the node received)."""

    def change(event: Event) -> Event:
        received, sent = event.grad_outputs[0], (event.grad_inputs or ())[mutation.slot]
        assert received is not None
        assert sent is not None
        wrong = mutation.sent(Sent(event.node, received, sent))
        if mutation.fan_out:
            # A node that received the wrong sum sends on what follows from it: only the junction can tell.
            assert wrong.shape == received.shape
            follows = sent / received * wrong
            return replace(event, grad_outputs=(wrong,), grad_inputs=(follows,))
        assert wrong.shape == sent.shape
        assert not torch.equal(wrong, sent)
        inputs = list(event.grad_inputs or ())
        inputs[mutation.slot] = wrong
        return replace(event, grad_inputs=tuple(inputs))

    return verdict_of(program(mutation, size), mutation.node, change)


def mutated(mutation: Mutation, size: int) -> Verdict:
    """The same mistake in the engine's rule, torch being right."""
    rule = registry._RULES[mutation.node]
    wrong = mutation.rule
    assert wrong is not None
    registry._RULES[mutation.node] = replace(
        rule, function=lambda n, *g: wrong(rule.function, n, *g), hints=rule.hints
    )
    try:
        return verdict_of(program(mutation, size), mutation.node)
    finally:
        registry._RULES[mutation.node] = rule


def program(mutation: Mutation, size: int) -> Tensor:
    torch.manual_seed(3)
    return mutation.program(size)


@pytest.fixture(scope="module")
def kills() -> dict[str, dict[str, Verdict]]:
    """Per mutation what became of each way to plant it."""
    table: dict[str, dict[str, Verdict]] = {}
    for mutation in MUTATIONS:
        row = table[mutation.name] = {}
        for label, size in SIZES.items():
            row[f"sent, {label}"] = captured(mutation, size)
            if mutation.rule is not None:
                row[f"rule, {label}"] = mutated(mutation, size)
    return table


def lines(kills: dict[str, dict[str, Verdict]]) -> Iterator[str]:
    columns = [f"{way}, {label}" for way in ("sent", "rule") for label in SIZES]
    yield f"{'mutation':24}" + "".join(f"{column:>16}" for column in columns)
    for name, row in kills.items():
        cells = [row[column].status if column in row else "no rule" for column in columns]
        yield f"{name:24}" + "".join(f"{cell:>16}" for cell in cells)


def test_every_detectable_mutation_is_killed(kills: dict[str, dict[str, Verdict]]) -> None:
    found = [one for row in kills.values() for one in row.values()]
    dead = sum(one.status in CAUGHT for one in found)
    print("\n".join(["", *lines(kills), f"killed {dead} of {len(found)}", f"undetectable: {UNDETECTABLE}"]))
    survivors = {
        f"{name}: {way}": one
        for name, row in kills.items()
        for way, one in row.items()
        if one.status not in CAUGHT
    }
    assert not survivors


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
@pytest.mark.parametrize("size", SIZES)
def test_nothing_is_flagged_where_nothing_is_planted(mutation: Mutation, size: str) -> None:
    found = verdict_of(program(mutation, SIZES[size]), mutation.node)
    assert found.status == "match", found


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_large_programs_are_sampled(mutation: Mutation) -> None:
    graph = trace([program(mutation, SIZES["large"])]).graph
    assert sum(spec.numel for node in graph.nodes for spec in node.outputs if spec) > SMALL_GRAPH


def test_what_lies_below_the_rounding_survives() -> None:
    """The table can show a survivor: a factor of 1 + 1e-9 is no mistake that float32 could hold."""
    tiny = Mutation(
        "tiny",
        MUTATIONS[0].program,
        "TanhBackward0",
        lambda s: s.sent,
        lambda rule, n, g: [rule(n, g)[0] * (1 + 1e-9)],
    )
    assert mutated(tiny, SIZES["small"]).status == "match"


# -------------------------------------------------------------------- what no check can see

UNDETECTABLE = (
    "x.data.mul_(2) between forward and backward: the saved tensor changes and its version does not"
)


def test_an_edit_through_data_is_undetectable() -> None:
    """Named, not hidden: torch and engine read the same changed memory, and agree on a wrong gradient."""
    x, w = torch.randn(12, 24), torch.randn(12, 24, requires_grad=True)
    loss = (x * w).square().sum()
    x.data.mul_(2)
    assert verdict_of(loss, "MulBackward0").status == "match"


def test_an_edit_that_torch_sees_is_told_in_torchs_words() -> None:
    x, w = torch.randn(12, 24), torch.randn(12, 24, requires_grad=True)
    y = (x * w).exp()
    loss = (y * y).sum()
    with torch.no_grad():
        y.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        verdict_of(loss, "MulBackward0")
