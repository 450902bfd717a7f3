"""Small forward values: those of every wire, as they were when made."""

from __future__ import annotations

import gc
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from hooks.forward import observe_forward
from hooks.values import YoungValues, flat


@pytest.mark.parametrize("way", ["anomaly", "function"])
def test_each_wire_of_the_circuit_has_its_value(way: Any) -> None:
    with observe_forward(way=way) as seen:
        x, y, z = (torch.tensor(v, requires_grad=True) for v in (-2.0, 5.0, -4.0))
        f = ((x + y) * z + 1) - 3
        f.backward()
        node: Any = f.grad_fn
        values = []
        for _ in range(4):
            values.append(seen.value_of(node))
            leaf = node.next_functions
            node = leaf[0][0]
    assert values == [(-14.0,), (-11.0,), (-12.0,), (3.0,)]
    assert seen.value_of(leaf[1][0]) == (5.0,)


@pytest.mark.parametrize("collecting", [True, False])
def test_a_collection_in_between_hides_nothing(collecting: bool) -> None:
    with observe_forward() as seen:
        a = torch.ones(2, requires_grad=True)
        wires = []
        for generation in (0, 1, 2, 0, 1, 2):
            a = a + 1
            wires.append(a)
            if collecting:
                gc.collect(generation)
        a.sum().backward()
    assert [seen.value_of(w.grad_fn) for w in wires] == [(float(n), float(n)) for n in range(2, 8)]


def test_later_changes_in_place_do_not_reach_the_copy() -> None:
    with observe_forward() as seen:
        x = torch.ones(2, requires_grad=True)
        y = x * 3
        node = y.grad_fn
        y.mul_(5)
        z = y + 1
        with torch.no_grad():
            y.zero_()
        (z * 2).sum().backward()
    assert seen.value_of(node) == (3.0, 3.0)
    assert seen.value_of(z.grad_fn) == (4.0 * 4, 4.0 * 4)


def test_a_value_changed_before_anyone_looked_is_not_told() -> None:
    with observe_forward() as seen:
        y = torch.ones(2, requires_grad=True) * 3
        with torch.no_grad():
            y.zero_()
        (y + 1).sum().backward()
    assert seen.value_of(y.grad_fn) is None


def test_slots_large_tensors_and_complex_numbers() -> None:
    with observe_forward() as seen:
        x = torch.arange(6.0, requires_grad=True).view(2, 3)
        first, second = x.unbind(0)
        large = torch.ones(65, requires_grad=True) * 1
        number = torch.view_as_complex(x[:, :2] * 1.0)
        (first + second).sum().backward(retain_graph=True)
        (large.sum() + number.abs().sum()).backward()
    assert seen.value_of(first.grad_fn, 0) == (0.0, 1.0, 2.0)
    assert seen.value_of(first.grad_fn, 1) == (3.0, 4.0, 5.0)
    assert seen.value_of(large.grad_fn) is None
    assert seen.value_of(number.grad_fn) == (0 + 1j, 3 + 4j)


def test_views_modified_in_place_keep_their_graph() -> None:
    def numbers(observed: bool) -> list[str]:
        names = []
        with observe_forward() if observed else torch.enable_grad():
            x = torch.ones(3, requires_grad=True) * 1
            view = x[:2]
            view.mul_(2)
            x.add_(1)
            y = x.sum()
            before = torch._C._autograd._get_sequence_nr()
            names.append(view.grad_fn.name())
            names.append(str(torch._C._autograd._get_sequence_nr() - before))
            y.backward()
        return names

    assert numbers(True) == numbers(False)


def test_a_users_function_mode_sees_the_same_calls() -> None:
    class Counts(TorchFunctionMode):
        def __init__(self) -> None:
            super().__init__()
            self.calls: list[Any] = []

        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.calls.append(func)
            return func(*args, **(kwargs or {}))

    def calls() -> list[Any]:
        with Counts() as mode:
            x = torch.ones(2, requires_grad=True)
            ((x + 1) * x).sum().backward()
        return mode.calls

    plain = calls()
    with observe_forward():
        assert calls() == plain


def test_subclasses_and_transforms_are_left_alone() -> None:
    class Loud(torch.Tensor):
        heard: list[Any] = []  # noqa: RUF012 - shared on purpose

        @classmethod
        def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            cls.heard.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    def heard() -> list[Any]:
        Loud.heard.clear()
        x = torch.ones(2).as_subclass(Loud).requires_grad_()
        (x * 2 + 1).sum().backward()
        return list(Loud.heard)

    plain = heard()
    with observe_forward():
        assert heard() == plain
        slope = torch.func.vmap(torch.func.grad(lambda v: (v * v + v).sum()))(torch.ones(3, 2))
    assert torch.equal(slope, torch.full((3, 2), 3.0))


def test_a_large_model_stops_the_looking() -> None:
    model = nn.Sequential(*(nn.Linear(40, 40) for _ in range(20)))
    with observe_forward() as seen:
        for _ in range(3):
            model(torch.ones(4, 40)).square().mean().backward()
        young = seen._shared._values
    assert young is not None
    assert not young.looking


def test_a_module_that_is_given_much_is_not_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look costs a large model a tenth of a millisecond, and finds nothing there."""
    model = nn.Sequential(*(nn.Linear(80, 80) for _ in range(20)))
    with observe_forward() as seen:
        young = seen._shared._values
        assert young is not None
        looks: list[bool] = []
        monkeypatch.setattr(young, "look", lambda apart=True: looks.append(apart))
        model(torch.ones(80, 80)).square().mean().backward()
        assert looks == []
        assert not young.looking


def test_many_young_objects_are_not_looked_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the collector off all objects are young: a look at millions takes longer than the training."""
    asked: list[int] = []
    objects = gc.get_objects

    def noted(generation: int | None = None) -> list[Any]:
        found = objects(generation)
        asked.append(len(found))
        return found

    x = torch.ones(1, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        many = [[] for _ in range(50_000)]  # type: ignore[var-annotated] # never filled
        with observe_forward() as seen:
            monkeypatch.setattr(gc, "get_objects", noted)
            y = x * 2
            (y + 1).backward()
            del many
            y = x * 3
            (y * y).backward()
            assert seen.value_of(y.grad_fn) == (3.0,)
    finally:
        gc.enable()
    assert asked
    assert max(asked) < 30_000


def test_values_can_be_left_out() -> None:
    with observe_forward(values=False) as seen:
        y = torch.ones(1, requires_grad=True) * 2
        (y + 1).backward()
    assert seen.value_of(y.grad_fn) is None


@pytest.mark.parametrize(
    ("nested", "numbers"), [(1.5, (1.5,)), ([], ()), ([[1, 2], [3, 4]], (1, 2, 3, 4)), ([[], []], ())]
)
def test_flat(nested: Any, numbers: tuple[float, ...]) -> None:
    assert flat(nested) == numbers


def test_constants_and_leaves_are_not_kept() -> None:
    young = YoungValues()
    assert not young.keep(torch.ones(2))
    assert not young.keep(torch.ones(2, requires_grad=True))


LEAF_VIEWS = """
import torch
from hooks.forward import observe_forward

class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x): return x * 2
    @staticmethod
    def backward(ctx, grad): return grad * 2

def plain(): return torch.randn(6).view(2, 3).requires_grad_()

def without_grad():
    base = torch.randn(6, requires_grad=True)
    with torch.no_grad():
        return base.view(2, 3).requires_grad_()

def without_grad_of_a_result():
    base = torch.randn(6, requires_grad=True) * 2
    with torch.no_grad():
        return base.view(2, 3).requires_grad_()

def base_later():
    base = torch.randn(6)
    view = base.view(2, 3).requires_grad_()
    base.requires_grad_()
    return view

with observe_forward():
    for make in (plain, without_grad, without_grad_of_a_result, base_later):
        for use in (torch.sin, Twice.apply):
            leaf = make()
            use(leaf).sum().backward()
            assert leaf.grad is not None
print("through")
"""


def test_a_leaf_that_is_a_view_does_not_lock_up() -> None:
    """torch holds a lock of such a leaf while it tells us of the node that accumulates into it."""
    ended = subprocess.run([sys.executable, "-c", LEAF_VIEWS], capture_output=True, text=True, timeout=120)
    assert ended.stdout == "through\n", ended.stderr


def test_views_of_results_have_their_values() -> None:
    with observe_forward() as seen:
        h = torch.arange(6.0, requires_grad=True) * 2
        views = [h.view(2, 3), h[1:3], *h.chunk(2)]
        sum(view.sum() for view in views).backward()  # type: ignore[union-attr] # there are some
    assert seen.value_of(views[0].grad_fn) == (0, 2, 4, 6, 8, 10)
    assert seen.value_of(views[1].grad_fn) == (2, 4)
    assert [seen.value_of(view.grad_fn, place) for place, view in enumerate(views[2:])] == [
        (0, 2, 4),
        (6, 8, 10),
    ]


@pytest.mark.parametrize("way", ["anomaly", "function"])
def test_inference_tensors_end_nothing(way: Any) -> None:
    """They have no version to ask for: a teacher's outputs lie among the youngest objects."""
    with observe_forward(way=way) as seen:
        with torch.inference_mode():
            kept = [torch.ones(2) * number for number in range(4)]
        a = torch.ones(2, requires_grad=True)
        b = a * 3
        b.sum().backward()
        node: Any = b.grad_fn
        assert seen.value_of(node) == (3.0, 3.0)
        assert seen.context_of(node) is not None
    assert seen.problems == ()
    assert len(kept) == 4
