"""What Functions were applied to: noted without a trace, kept where it is cheap, recovered where proved."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import torch
from torch.autograd.function import _SingleLevelFunction

from hooks.applied import LARGEST, SMALL, applied_to, observe_functions, unobserved


class Times(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, y: torch.Tensor, k: Any) -> torch.Tensor:
        ctx.save_for_backward(x)
        ctx.k = k
        return x * y * 2

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (x,) = ctx.saved_tensors
        return g * x, None, None


class Product(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x * y

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = ctx.saved_tensors
        return g * y, g * x


times = Times.apply


def values(size: int = 3) -> torch.Tensor:
    return torch.arange(1.0, size + 1).requires_grad_()


def test_arguments_are_noted_also_through_a_method_bound_before() -> None:
    x, y = values() * 2, torch.ones(3)
    with observe_functions():
        out = times(x, y, 3)
    found = applied_to(out.grad_fn)
    assert found.problem == ""
    assert torch.equal(found.arguments[0], x)
    assert found.arguments[0].data_ptr() == x.data_ptr()
    assert not found.arguments[0].requires_grad
    assert found.arguments[2] == 3
    assert not found.changed
    y.zero_()
    assert found.changed


def test_the_patch_is_gone_afterwards_whatever_happened() -> None:
    before = dict(vars(_SingleLevelFunction))
    with pytest.raises(ZeroDivisionError), observe_functions():
        raise ZeroDivisionError
    with observe_functions(), observe_functions():
        pass
    assert dict(vars(_SingleLevelFunction)) == before


def test_notes_go_with_the_node() -> None:
    with observe_functions():
        x = values() * 2
        out = times(x, torch.ones(3), 3)
    node, tensor = weakref.ref(out.grad_fn), weakref.ref(x)
    del out, x
    gc.collect()
    assert node() is None
    assert tensor() is None


def test_the_forward_and_its_error_are_untouched() -> None:
    with observe_functions(), pytest.raises(TypeError, match="missing 1 required positional argument"):
        Times.apply(values(), values())


@pytest.mark.parametrize("size", [SMALL + 1, LARGEST + 1])
def test_large_inputs_that_nothing_keeps_are_not_kept(size: int) -> None:
    with observe_functions():
        out = times(values(size) * 1, torch.ones(size), 3)
    found = applied_to(out.grad_fn)
    assert found.arguments == ()
    assert "elements" in found.problem


def test_the_budget_is_given_back_with_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    from hooks import applied

    monkeypatch.setattr(applied, "BUDGET", 10)
    with observe_functions():
        kept, refused = times(values(4) * 1, torch.ones(4), 3), times(values(4) * 1, torch.ones(4), 3)
        again = times(values(4) * 1, torch.ones(4), 3)
        assert applied_to(kept.grad_fn).problem == ""
        assert "were not kept" in applied_to(again.grad_fn).problem
        del kept, refused, again
        gc.collect()
        assert applied_to(times(values(4) * 1, torch.ones(4), 3).grad_fn).problem == ""


def test_large_inputs_that_are_saved_anyway_are_kept() -> None:
    with observe_functions():
        out = Product.apply(values(SMALL + 1) * 1, values(SMALL + 1))
    assert applied_to(out.grad_fn).problem == ""


def test_what_is_not_noted() -> None:
    x, y = values() * 1, torch.ones(3)
    with observe_functions():
        with unobserved():
            silent = times(x, y, 3)
        odd = times(x, y, print)
        with torch.autograd.graph.save_on_cpu():
            packed = times(x, y, 3)
        with torch.no_grad():
            assert times(x, y, 3).grad_fn is None
        torch.func.vmap(Product.apply)(torch.ones(2, 3), torch.ones(2, 3))
    assert "was not observed" in applied_to(silent.grad_fn).problem
    assert "an argument is a builtin" in applied_to(odd.grad_fn).problem
    assert "saved-tensor hooks" in applied_to(packed.grad_fn).problem


def test_inputs_are_recovered_where_the_graph_proves_them() -> None:
    x, y = values() * 2, values()
    found = applied_to(Product.apply(x, y).grad_fn)
    assert found.problem == ""
    assert torch.equal(found.arguments[0], x)
    assert torch.equal(found.arguments[1], y)


def test_an_input_without_gradient_is_not_guessed() -> None:
    found = applied_to(Product.apply(values() * 2, torch.ones(3)).grad_fn)
    assert "does not tell its inputs" in found.problem


def test_freed_and_modified_saved_tensors_carry_torchs_message() -> None:
    x, y = values() * 2, values() * 3
    freed, modified = Product.apply(x, y), Product.apply(x, y)
    freed.sum().backward()
    assert "already been freed" in applied_to(freed.grad_fn).problem
    with torch.no_grad():
        x.add_(1)
    assert "modified by an inplace operation" in applied_to(modified.grad_fn).problem


@pytest.mark.filterwarnings("ignore:.*should not be instantiated")  # Dynamo does so, with us or without
def test_torch_compile_keeps_its_graph_whole() -> None:
    @torch.compile(backend="eager", fullgraph=True)
    def compiled(x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = Product.apply(x, x + 1) * 2
        return out

    with observe_functions():
        x = values()
        compiled(x).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [6.0, 10.0, 14.0]
