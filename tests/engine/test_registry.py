"""Rules of one's own: registered once, replaced by running the same lines again, and used by the check."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import explorer
from explorer.engine import rule_for, rules, vjp
from explorer.engine.registry import RuleError, unregister


class Noisy(torch.autograd.Function):
    """x plus noise that is kept on ctx, so that only a rule can check its backward."""

    wrong = 1.0

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, k: float) -> torch.Tensor:
        ctx.noise = torch.rand_like(x)
        ctx.k = k
        return k * x * ctx.noise

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return g * ctx.k * ctx.noise * Noisy.wrong, None


@pytest.fixture(autouse=True)
def _unregistered() -> Iterator[None]:
    yield
    unregister("NoisyBackward")


def _register() -> Any:
    @vjp("NoisyBackward")
    def noisy(n: Any, g: Any) -> Any:
        return [g * n.k * n.noise]

    return noisy


def _status() -> tuple[str, str]:
    x = torch.ones(5, requires_grad=True)
    with explorer.watch() as watch:
        Noisy.apply(x, 3.0).square().sum().backward()
    (node,) = (node for node in watch.report.graph.nodes if node.kind == "custom")
    verdict = watch.report.verdicts[node.id]
    return verdict.status, verdict.reason


@pytest.mark.parametrize(("wrong", "status"), [(1.0, "match"), (1.00001, "mismatch"), (-1.0, "mismatch")])
def test_a_rule_of_ones_own_is_used(wrong: float, status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noisy, "wrong", wrong)
    assert _status()[0] == "unchecked"
    _register()
    assert _status()[0] == status


def test_a_rule_that_raises_or_has_the_wrong_shape_is_unchecked() -> None:
    vjp("NoisyBackward")(lambda n, g: [g.sum(0) / n.nothing])
    status, reason = _status()
    assert status == "unchecked"
    assert "saved no 'nothing'" in reason
    unregister("NoisyBackward")
    vjp("NoisyBackward")(lambda n, g: [g.unsqueeze(0).expand(3, 2)])
    assert _status()[0] == "unchecked"


@pytest.mark.parametrize("count", [0, 2, 3])
def test_a_rule_that_gives_another_number_of_gradients_is_unchecked(count: int) -> None:
    vjp("NoisyBackward")(lambda n, g: [g * n.k * n.noise] * count)
    assert _status() == ("unchecked", f"the rule of NoisyBackward gave {count} gradients for 1 inputs")


def test_a_rule_may_say_that_an_argument_without_a_gradient_has_none() -> None:
    vjp("NoisyBackward")(lambda n, g: [g * n.k * n.noise, None])
    assert _status()[0] == "match"


@pytest.mark.parametrize(("factor", "status"), [(1.0, "match"), (1.1, "mismatch")])
def test_a_single_gradient_needs_no_list(factor: float, status: str) -> None:
    """As with the backward of a Function."""
    vjp("NoisyBackward")(lambda n, g: g * n.k * n.noise * factor)
    assert _status()[0] == status


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_a_rule_that_gives_no_number_is_no_match(factor: float) -> None:
    vjp("NoisyBackward")(lambda n, g: [g * n.k * n.noise * factor])
    assert _status()[0] in ("nan-mismatch", "overflow")


def test_every_module_of_rules_is_a_family() -> None:
    """A module that nobody imports registers nothing, and its nodes would go unchecked in silence."""
    modules = {path.stem for path in Path(rules.__file__).parent.glob("*.py")} - {"__init__", "absent"}
    assert modules == {family.__name__.rpartition(".")[-1] for family in rules.FAMILIES}


def test_the_same_definition_again_replaces_and_another_is_refused() -> None:
    _register()
    second = _register()
    rule = rule_for("NoisyBackward")
    assert rule is not None
    assert rule.function is second
    with pytest.raises(RuleError, match="NoisyBackward already has a rule"):
        vjp("NoisyBackward")(lambda n, g: [g])
