"""Checkpointed nodes are checked, and recompute exactly when, and as often as, they would without us."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.utils.checkpoint as torch_checkpoint
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

import explorer
from hooks import checkpointed
from hooks.checkpointed import observe_checkpoints
from hooks.nodes import capture
from hooks.saved import read
from tests.exploration import same_bits

PRISTINE = torch_checkpoint._checkpoint_hook.__init__

Runs = list[str]
Step = Callable[[Runs], tuple[list[Tensor], Tensor]]
"""Given a place to note each run, the leaves and the loss of a program with checkpoints."""


def _leaf(*shape: int) -> Tensor:
    return torch.randn(*shape, requires_grad=True)


def plain(runs: Runs) -> tuple[list[Tensor], Tensor]:
    x, w = _leaf(3, 4), _leaf(4, 4)

    def body(y: Tensor) -> Tensor:
        runs.append("body")
        return functional.dropout((y @ w).tanh() * y.exp(), 0.3)

    return [x, w], checkpoint(body, x, use_reentrant=False).square().sum()


def nested(runs: Runs) -> tuple[list[Tensor], Tensor]:
    x = _leaf(5)

    def inner(y: Tensor) -> Tensor:
        runs.append("inner")
        return y.sin() * y

    def outer(y: Tensor) -> Tensor:
        runs.append("outer")
        return checkpoint(inner, y.exp(), use_reentrant=False) * y.cos()  # type: ignore[no-any-return]  # torch's

    return [x], checkpoint(outer, x, use_reentrant=False).sum()


def sequential(runs: Runs) -> tuple[list[Tensor], Tensor]:
    layers = nn.Sequential(*[nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4), nn.GELU()) for _ in range(4)])
    for number, layer in enumerate(layers):
        layer.register_forward_hook(lambda *_, number=number: runs.append(str(number)))
    x = _leaf(2, 4)
    out = checkpoint_sequential(layers, 2, x, use_reentrant=False)
    return [x, *layers.parameters()], out.square().sum()


def lists(runs: Runs) -> tuple[list[Tensor], Tensor]:
    """A node that saves a list of tensors, and a Python Function."""
    x = _leaf(4, 3)

    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            ctx.save_for_backward(y)
            return y**3

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (y,) = ctx.saved_tensors
            return 3 * g * y**2

    def body(y: Tensor) -> Tensor:
        runs.append("body")
        found: Tensor = Cube.apply(y[torch.tensor([0, 2]), torch.tensor([1, 1])])
        return found

    return [x], checkpoint(body, x, use_reentrant=False).sum()


STEPS: dict[str, Step] = {one.__name__: one for one in (plain, nested, sequential, lists)}


def run(step: Step, watched: bool) -> tuple[Runs, list[Tensor | None], Any]:
    torch.manual_seed(0)
    runs: Runs = []
    if not watched:
        leaves, loss = step(runs)
        loss.backward()
        return runs, [one.grad for one in leaves], None
    with explorer.watch() as watch:
        leaves, loss = step(runs)
        loss.backward()
    return runs, [one.grad for one in leaves], watch.report


@pytest.mark.parametrize("name", STEPS)
def test_every_node_is_checked_and_nothing_else_changes(name: str) -> None:
    runs, gradients, _ = run(STEPS[name], watched=False)
    seen, watched, report = run(STEPS[name], watched=True)
    assert seen == runs, "the recomputation happened in another way"
    assert all(map(same_bits, gradients, watched))
    bad = {report.graph.nodes[one.node].name: one.reason for one in report.verdicts if one.status != "match"}
    assert set(bad) == ({"CubeBackward"} if name == "lists" else set()), bad
    assert report.problems == ()


def test_a_wrong_gradient_inside_a_checkpoint_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from explorer.engine import registry

    rule = registry._RULES["TanhBackward0"]
    wrong = registry.Rule(rule.names, lambda n, g: [g * (1 - n.result * n.result) * 1.0001])
    monkeypatch.setitem(registry._RULES, "TanhBackward0", wrong)
    report = run(plain, watched=True)[2]
    statuses = {report.graph.nodes[one.node].name: one.status for one in report.verdicts}
    assert statuses["TanhBackward0"] == "mismatch"


def test_everything_is_undone() -> None:
    assert torch_checkpoint._checkpoint_hook.__init__ is PRISTINE
    with observe_checkpoints():
        assert torch_checkpoint._checkpoint_hook.__init__ is not PRISTINE
    assert torch_checkpoint._checkpoint_hook.__init__ is PRISTINE
    with pytest.raises(ZeroDivisionError), explorer.watch():
        checkpoint(lambda x: x / (1 // 0), _leaf(2), use_reentrant=False)
    assert torch_checkpoint._checkpoint_hook.__init__ is PRISTINE
    assert not checkpointed._given
    assert not checkpointed._lookers


def test_what_was_given_is_dropped_after_each_node() -> None:
    """No recomputed tensor outlives the node that it was for."""
    kept: list[weakref.ref[Tensor]] = []
    most: list[int] = []

    def body(x: Tensor) -> Tensor:
        for _ in range(20):
            x = x.sin()
            kept.append(weakref.ref(x))
        return x

    with observe_checkpoints():
        loss = checkpoint(body, _leaf(3), use_reentrant=False).sum()
    nodes: list[Any] = [loss.grad_fn]
    while nodes[-1].next_functions and nodes[-1].next_functions[0][0] is not None:
        nodes.append(nodes[-1].next_functions[0][0])
    with capture(nodes, lambda event: most.append(len(checkpointed._given))):
        loss.backward()
    assert max(most) == 1
    assert not checkpointed._given


def test_nothing_is_noted_while_nobody_looks() -> None:
    with observe_checkpoints():
        x = _leaf(3)
        loss = checkpoint(lambda y: y.exp().sin(), x, use_reentrant=False).sum()
    loss.backward()
    assert not checkpointed._given
    assert x.grad is not None


def test_a_checkpoint_made_before_is_told_as_before() -> None:
    loss = checkpoint(lambda y: y.exp().sin(), _leaf(3), use_reentrant=False).sum()
    report = explorer.explore(loss)
    reasons = {one.reason for one in report.verdicts if one.status == "unchecked"}
    assert reasons == {"checkpointed: computed again while backward runs"}


def test_reading_twice_is_torchs_own_error_still() -> None:
    """A script that unpacks a tensor twice is refused with us as it is without."""

    class Twice(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, y: Tensor) -> Tensor:
            ctx.save_for_backward(y)
            return y * 2

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            return g * len(ctx.saved_tensors) * len(ctx.saved_tensors)

    for watched in (False, True):
        with pytest.raises(torch_checkpoint.CheckpointError, match="already"):
            run(lambda runs: ([], checkpoint(Twice.apply, _leaf(2), use_reentrant=False).sum()), watched)


def test_a_read_outside_backward_gives_the_reason() -> None:
    with observe_checkpoints():
        loss = checkpoint(lambda y: y.exp(), _leaf(3), use_reentrant=False)
    assert read(loss.grad_fn)["result"].problem.startswith("checkpointed")


def test_graphs_kept_and_differentiated_twice() -> None:
    """retain_graph and create_graph: as many recomputations with us as without."""
    counts: dict[bool, Runs] = {True: [], False: []}
    gradients = []
    for watched, runs in counts.items():

        def body(y: Tensor, runs: Runs = runs) -> Tensor:
            runs.append("")
            return y.exp() * y

        torch.manual_seed(0)
        x = _leaf(3)
        with explorer.watch() if watched else torch.enable_grad():
            loss = checkpoint(body, x, use_reentrant=False).sum()
            loss.backward(retain_graph=True)
            (first,) = torch.autograd.grad(loss, x, create_graph=True)
            first.sum().backward()
        gradients.append(x.grad)
    assert counts[True] == counts[False]
    assert len(counts[True]) > 2
    assert same_bits(*gradients)
