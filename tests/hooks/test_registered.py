"""Hooks of the user's are seen when they are registered, told in the report, and not taken for an error."""

from __future__ import annotations

import pytest
import torch

import explorer
from hooks.registered import hooks_of, name_of, observe_hooks


def halve(gradient: torch.Tensor) -> torch.Tensor:
    return gradient / 2


def inner(x: torch.Tensor) -> torch.Tensor:
    hidden = x.exp()
    hidden.register_hook(halve)
    return hidden.sum()


def test_a_hook_on_a_tensor_nobody_holds_any_more_is_told_not_accused() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with explorer.watch() as watch:
        inner(x * 3).backward()
    (node,) = (node for node in watch.report.graph.nodes if node.name == "ExpBackward0")
    assert node.hooks == ("tensor hook halve",)
    assert "mismatch" not in watch.report.check.statuses
    (finding,) = watch.report.findings
    assert (finding.code, finding.severity, finding.node) == ("hook-changed-gradient", "info", node.id)
    assert "norm 1.414 before, 0.7071 after" in finding.message


def test_a_hook_that_changes_nothing_is_no_finding() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    with explorer.watch() as watch:
        y = x.exp()
        y.register_hook(lambda gradient: None)
        y.sum().backward()
    assert watch.report.findings == ()


def test_the_method_is_put_back_and_behaves_as_before() -> None:
    original = torch.Tensor.register_hook
    with pytest.raises(ZeroDivisionError), observe_hooks():
        raise ZeroDivisionError
    assert torch.Tensor.register_hook is original
    x = torch.ones(2, requires_grad=True)
    with observe_hooks():
        y = x * 2
        handle = y.register_hook(halve)
        with pytest.raises(RuntimeError, match="doesn't require gradient"):
            torch.ones(1).register_hook(halve)
        x.register_hook(halve).remove()
    assert hooks_of(y.grad_fn) == ((0, "halve"),)
    handle.remove()
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [2.0, 2.0]


def test_names_run_nothing_of_the_users() -> None:
    class Loud:
        def __call__(self, gradient: torch.Tensor) -> None: ...

        def __repr__(self) -> str:
            raise AssertionError("the user's repr was run")

    assert name_of(Loud()) == "Loud"
    assert name_of(Loud().__call__).endswith("Loud.__call__")


def test_a_multi_grad_hook_only_looks_and_is_not_blamed() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * 3
    torch.autograd.graph.register_multi_grad_hook((y,), lambda gradients: None)
    y.register_hook(lambda gradient: gradient * 2)
    report = explorer.explore(y.sum())
    (finding,) = report.findings
    assert "inner_hook" not in finding.message
    assert finding.message.startswith("The hook `")
