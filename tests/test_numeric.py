"""Custom Functions against finite differences of their own forward: right, wrong, and rightly unchecked."""

from __future__ import annotations

import random
from typing import Any

import numpy
import pytest
import torch

import explorer
from explorer.report import Verdict

CALLS: list[int] = []


def _square(factor: float | None) -> Any:
    """The same Function with backward = factor·x·g, or None."""

    class Planted(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor | None:
            (x,) = ctx.saved_tensors
            return None if factor is None else factor * x * g

    return Planted


def verdict_of(function: Any, *arguments: Any, watched: bool = True) -> Verdict:
    """The verdict on the one custom node of ``(function(arguments) ** 2).sum()``."""
    if watched:
        with explorer.watch() as watch:
            out = function(*arguments)
            first = out[0] if isinstance(out, tuple) else out
            (first.double() ** 2).sum().backward()
        report = watch.report
    else:
        report = explorer.explore((function(*arguments) ** 2).sum())
    assert report.problems == ()
    (node,) = (node for node in report.graph.nodes if node.kind == "custom")
    found = report.verdict(node.id)
    assert found is not None
    return found


def numbers(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("shape", [(), (3,), (4, 5), (60, 70)])
def test_a_right_backward_matches(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    found = verdict_of(_square(2.0).apply, numbers(*shape, dtype=dtype))
    assert found.status == "match", found
    assert found.elements == found.of == max(numbers(*shape).numel(), 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize("watched", [True, False])
@pytest.mark.parametrize(
    ("factor", "said"),
    [
        (3.0, "1.5x the numeric derivative at every element"),
        (-2.0, "-1x the numeric derivative at every element"),
        (0.0, "0x the numeric derivative at every element"),
        (None, "backward gave None, the numeric derivative is not zero"),
    ],
)
def test_a_planted_wrong_backward_mismatches(
    factor: float | None, said: str, watched: bool, dtype: torch.dtype
) -> None:
    found = verdict_of(_square(factor).apply, numbers(4, 5, dtype=dtype), watched=watched)
    assert found.status == "mismatch"
    assert said in found.reason
    assert "at [" in found.reason
    assert found.ratio is not None
    assert found.ratio > 1


def test_one_wrong_element_is_named() -> None:
    class Hole(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(x)
            return x.sin()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            (x,) = ctx.saved_tensors
            wrong = x.cos().clone()
            wrong[1, 2] *= 1.01
            return g * wrong

    found = verdict_of(Hole.apply, numbers(4, 5))
    assert found.status == "mismatch"
    assert "at [1, 2]" in found.reason
    assert "every element" not in found.reason


class Scaled(torch.autograd.Function):
    """k·x·w with a setup_context, several inputs, a plain argument and two outputs."""

    @staticmethod
    def forward(x: torch.Tensor, w: torch.Tensor, k: float) -> tuple[torch.Tensor, torch.Tensor]:
        return k * x * w, x.detach() * 0

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, w, ctx.k = inputs
        ctx.save_for_backward(x, w)
        ctx.mark_non_differentiable(output[1])

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor, _: Any) -> tuple[torch.Tensor, torch.Tensor, None]:
        x, w = ctx.saved_tensors
        return ctx.k * w * g, ctx.k * x * g, None


def test_several_inputs_and_setup_context() -> None:
    found = verdict_of(Scaled.apply, numbers(6), numbers(6), 2.5)
    assert found.status == "match"
    assert found.elements == 12


def test_a_complex_function() -> None:
    class Cube(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, z: torch.Tensor) -> torch.Tensor:
            ctx.save_for_backward(z)
            return z**3

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            (z,) = ctx.saved_tensors
            return g * (3 * z**2).conj()

    def through(z: torch.Tensor) -> torch.Tensor:
        return torch.view_as_real(Cube.apply(z))

    z = torch.complex(numbers(5, dtype=torch.float64).detach(), torch.ones(5).double()).requires_grad_()
    assert verdict_of(through, z).status == "match"


# -------------------------------------------------------------------- rightly unchecked


def _function(forward: Any, backward: Any = None) -> Any:
    """A Function with this forward; its backward multiplies by three."""
    return type(
        "Made",
        (torch.autograd.Function,),
        {"forward": staticmethod(forward), "backward": staticmethod(backward or (lambda ctx, g: 3 * g))},
    ).apply


def _identity(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    return x.view_as(x)


def _step(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    return x.round() + 1


def _random(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    return x * torch.rand_like(x)


def _single(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    return x.float() * 2


def _raises(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    if x.dtype == torch.float64:
        raise TypeError("float32 only")
    return x * 2


def _counts(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    CALLS.append(1)
    return x * 2


def _dirty(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    ctx.mark_dirty(x)
    return x.mul_(2)


UNCHECKED = {
    "returns its input": _identity,
    "is a step": _step,
    "draws random numbers": _random,
    "rounds to float32": _single,
    "fails in float64 (TypeError: float32 only)": _raises,
    "uses the global 'CALLS' (list), which can change": _counts,
    "changes an input in place": _dirty,
}


@pytest.mark.parametrize("reason", UNCHECKED)
def test_what_cannot_be_checked_says_why(reason: str) -> None:
    CALLS.clear()
    found = verdict_of(_function(UNCHECKED[reason]), numbers(5) * 1.0)
    assert found.status == "unchecked"
    assert reason in found.reason
    assert len(CALLS) <= 1


def test_a_forward_for_autocast_is_checked() -> None:
    @torch.amp.custom_fwd(device_type="cpu")
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x**2

    @torch.amp.custom_bwd(device_type="cpu")
    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * x * 3

    found = verdict_of(_function(forward, backward), numbers(5))
    assert found.status == "mismatch"
    assert "1.5x the numeric derivative at every element" in found.reason


def test_a_failure_of_ours_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from explorer import numeric

    def broken(*_: object) -> None:
        raise ZeroDivisionError("planted")

    monkeypatch.setattr(numeric, "plan", broken)
    found = verdict_of(_square(2.0).apply, numbers(5))
    assert found.status == "unchecked"
    assert "they failed (ZeroDivisionError: planted)" in found.reason


def test_a_straight_identity_matches() -> None:
    assert verdict_of(_function(_identity, lambda ctx, g: g), numbers(5)).status == "match"


def test_a_kink_is_stepped_around() -> None:
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x.clamp(min=0) + 1

    def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return g * (x >= 0)

    x = torch.tensor([0.0, -1.0, 2.0, 0.0], requires_grad=True)
    found = verdict_of(_function(forward, backward), x)
    assert found.status == "match"
    assert found.elements == 2


def test_an_unseen_function_with_a_hidden_argument_is_unchecked() -> None:
    out = Scaled.apply(numbers(6), numbers(6), 2.5)[0]
    report = explorer.explore(out.sum())
    (node,) = (node for node in report.graph.nodes if node.kind == "custom")
    found = report.verdict(node.id)
    assert found is not None
    assert found.status == "unchecked"
    assert "was not observed" in found.reason


def test_an_input_modified_since_is_unchecked() -> None:
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * w

    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, None]:
        return g * 2, None

    with explorer.watch() as watch:
        w = torch.full((5,), 2.0)
        out = _function(forward, backward)(numbers(5), w)
        w.zero_()
        out.sum().backward()
    (node,) = (node for node in watch.report.graph.nodes if node.kind == "custom")
    found = watch.report.verdict(node.id)
    assert found is not None
    assert found.status == "unchecked"
    assert "modified in place since" in found.reason


def test_the_random_states_and_gradients_stay_as_they_are() -> None:
    def run(explored: bool) -> tuple[float, float, float, list[float]]:
        torch.manual_seed(0)
        random.seed(0)
        numpy.random.seed(0)
        x = torch.randn(5, requires_grad=True)
        if explored:
            with explorer.watch() as watch:
                _function(_random)(x).sum().backward()
            assert len(watch.reports) == 1
        else:
            _function(_random)(x).sum().backward()
        assert x.grad is not None
        return float(torch.rand(1)), random.random(), float(numpy.random.rand()), x.grad.tolist()

    assert run(True) == run(False)


def test_many_nodes_of_one_class_are_still_checked() -> None:
    with explorer.watch() as watch:
        x = numbers(3)
        function = _square(3.0).apply
        torch.stack([function(x * k) for k in range(1, 9)]).sum().backward()
    nodes = [node.id for node in watch.report.graph.nodes if node.kind == "custom"]
    found = [watch.report.verdicts[node] for node in nodes]
    assert len(found) == 8
    assert {one.status for one in found} == {"mismatch"}
    assert all("1.5x the numeric derivative at every element" in one.reason for one in found)


def test_an_op_of_torch_library() -> None:
    @torch.library.custom_op("numeric_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return 2 * x

    @twice.register_fake
    def _(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    twice.register_autograd(lambda ctx, g: 3 * g)
    found = verdict_of(twice, numbers(5))
    assert found.status == "mismatch"
    assert "1.5x the numeric derivative at every element" in found.reason
