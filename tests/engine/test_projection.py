"""Random projections: equal to the sums they stand for, silent where all is right, and sharp."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from explorer.check import Checker
from explorer.convert import leaf_of
from explorer.engine.array import Array
from explorer.engine.compare import compare
from explorer.engine.leaf import array
from explorer.engine.projection import project, signed_sum
from explorer.engine.rounding import rounding_of
from explorer.engine.rules.convolution import correlated_input, correlated_output, correlated_weight
from explorer.engine.run import Run
from explorer.trace import trace
from hooks.nodes import capture

EXACT = Run(rounding_of(["float64"]), bounds=False)


def numbers(*shape: int) -> Array:
    """Small integers: sums of them are exact."""
    dice = random.Random(str(shape))
    nested: list[object] = [float(dice.randint(-4, 4)) for _ in range(torch.Size(shape).numel())]
    for size in reversed(shape[1:]):
        nested = [nested[i : i + size] for i in range(0, len(nested), size)]
    return array(nested)


INPUT, OUTPUT, WEIGHT = numbers(2, 3, 5, 6), numbers(2, 4, 5, 3), numbers(4, 3, 3, 2)
CONVOLVED = ((1, 2), (1, 0), (1, 1), 1)
RECIPES: dict[str, Callable[[], Array]] = {
    "matrix product": lambda: numbers(5, 6) @ numbers(6, 4),
    "batched, one matrix for all": lambda: numbers(3, 5, 6) @ numbers(6, 4),
    "scaled, from the left": lambda: 3.0 * (numbers(5, 6) @ numbers(6, 4)),
    "transposed": lambda: (numbers(3, 5, 6) @ numbers(3, 6, 4)).permute(2, 0, 1),
    "dx of a convolution": lambda: correlated_input(OUTPUT, WEIGHT, (2, 3, 5, 6), *CONVOLVED),
    "dw of a convolution": lambda: correlated_weight(OUTPUT, INPUT, (4, 3, 3, 2), *CONVOLVED),
    "a convolution": lambda: correlated_output(INPUT, WEIGHT, (2, 4, 5, 3), *CONVOLVED),
}  # fmt: skip
CARRIED = {
    "dx of a convolution": (1,),
    "dw of a convolution": (0, 1),
    "a convolution": (1,),
    "matrix product": (0, 1),
}


@pytest.mark.parametrize("name", RECIPES)
def test_a_projection_is_the_sum_it_stands_for(name: str) -> None:
    recipe = RECIPES[name]()
    axes = []
    for axis, size in enumerate(recipe.shape):
        signs = [(-1) ** (k // 2) for k in range(size)]
        lines = recipe.projected(axis, signs, EXACT)
        if lines is None:
            continue
        axes.append(axis)
        assert lines.shape == tuple(1 if at == axis else n for at, n in enumerate(recipe.shape))
        for point in product(*map(range, lines.shape)):
            box = tuple(range(size) if at == axis else (i,) for at, i in enumerate(point))
            line = recipe.eval(box, EXACT)[0]
            assert lines.eval(tuple((i,) for i in point), EXACT)[0] == [
                sum(sign * value for sign, value in zip(signs, line, strict=True))
            ]
    assert tuple(axes) == CARRIED.get(name, tuple(axes))
    assert axes


@pytest.mark.parametrize(
    "recipe",
    [
        lambda: numbers(4, 5).exp(),
        lambda: (numbers(6, 5) @ numbers(5, 6)).slice(0, 1, 5),
        lambda: numbers(4, 6),
    ],
)
def test_nothing_is_projected_where_that_saves_nothing(recipe: Callable[[], Array]) -> None:
    found = recipe()
    assert all(found.projected(axis, [1] * size, EXACT) is None for axis, size in enumerate(found.shape))


def test_the_sum_of_an_operand_is_exact_and_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    source = numbers(3, 4, 2)
    summed = signed_sum(source, 1, [1, -1, -1, 1], EXACT)
    assert summed is not None
    wanted = [
        a - b - c + d
        for i in range(3)
        for a, b, c, d in zip(*(source.eval(((i,), (k,), range(2)), EXACT)[0] for k in range(4)), strict=True)
    ]
    assert summed.values() == wanted
    monkeypatch.setattr("explorer.engine.projection.LARGEST", 10)
    assert signed_sum(source, 1, [1, -1, -1, 1], EXACT) is None


DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_no_false_alarm_and_one_wrong_element_of_thousands_is_met(dtype: torch.dtype, seed: int) -> None:
    torch.manual_seed(seed)
    a, b = torch.randn(130, 220).to(dtype), torch.randn(220, 90).to(dtype)
    c = a @ b
    rounding = rounding_of([str(dtype).removeprefix("torch.")])
    expected = leaf_of(a) @ leaf_of(b)
    right = project(expected, leaf_of(c), rounding, seed)
    assert right.place is None
    assert right.ratio <= 1
    assert right.elements == c.numel()
    c[77, 33] += 8 * c.abs().max()
    wrong = project(expected, leaf_of(c), rounding, seed)
    assert wrong.place is not None
    assert 77 in wrong.place or 33 in wrong.place


def test_what_is_not_finite_is_left_to_the_elements() -> None:
    a, b = torch.randn(40, 50), torch.randn(50, 30)
    a[3, 4] = float("inf")
    assert project(leaf_of(a) @ leaf_of(b), leaf_of(a @ b), rounding_of(["float32"]), 0).place is None


def test_a_gradient_too_large_to_be_compared_whole_is_covered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sample alone would hardly meet the one wrong element."""
    monkeypatch.setattr("explorer.engine.compare.WHOLE", 100_000)
    torch.manual_seed(0)
    a, b = torch.randn(300, 200), torch.randn(200, 260)
    c = a @ b
    expected, rounding = leaf_of(a) @ leaf_of(b), rounding_of(["float32"])
    found = compare(expected, leaf_of(c), rounding, whole=True)
    assert (found.status, found.elements, found.of) == ("match", c.numel(), c.numel())
    assert found.projected == c.numel()
    c[201, 97] += 50
    found = compare(expected, leaf_of(c), rounding, whole=True)
    assert found.status == "mismatch"
    assert "random signs" in found.words()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_a_convolution_in_full(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("explorer.engine.compare.WHOLE", 200_000)
    torch.manual_seed(0)
    x = torch.randn(2, 24, 14, 14).to(dtype).requires_grad_()
    weight, bias = (
        torch.randn(24, 24, 3, 3).to(dtype).requires_grad_(),
        torch.randn(24).to(dtype).requires_grad_(),
    )

    def verdict(change: Callable[[Tensor], Tensor]) -> tuple[str, str]:
        loss = F.conv2d(x, weight, bias, padding=1).square().sum()
        found = trace([loss])
        checker = Checker(found, "full")

        def observe(event: object) -> None:
            node = found.graph.nodes[event.index]  # type: ignore[attr-defined]  # an Event
            if node.name == "ConvolutionBackward0":
                sent = list(event.grad_inputs)  # type: ignore[attr-defined]  # an Event
                sent[0] = change(sent[0].clone())
                event.grad_inputs = tuple(sent)  # type: ignore[attr-defined]  # an Event
            checker.observe(event)  # type: ignore[arg-type]  # an Event

        with capture(found.live, observe):
            loss.backward()
        name = {node.id: node.name for node in found.graph.nodes}
        one = next(one for one in checker.finish()[0] if name[one.node] == "ConvolutionBackward0")
        return one.status, one.reason

    status, reason = verdict(lambda g: g)
    assert status == "match"
    assert "random projections" in reason

    def bumped(g: Tensor) -> Tensor:
        g[1, 13, 5, 6] += 4 * g.abs().max()
        return g

    assert verdict(bumped)[0] == "mismatch"
