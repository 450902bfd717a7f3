from __future__ import annotations

import threading
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.checkpoint import checkpoint

from explorer.trace import trace
from hooks import nodes
from hooks.nodes import Event, capture
from tests.problems import PROBLEMS


def attached(live: tuple[Any, ...]) -> int:
    """How many hooks sit on `live`, counted by running the nodes' own bookkeeping: a fresh hook's dict."""
    total = 0
    for node in live:
        handles = [node.register_prehook(lambda *_: None)]
        if type(node).__name__ != "AccumulateGrad":
            handles.append(node.register_hook(lambda *_: None))
        for handle in handles:
            total += len(handle.hooks_dict_ref()) - 1
            handle.remove()
    return total


@pytest.mark.parametrize("name", PROBLEMS)
def test_one_event_per_node_and_nothing_left(name: str) -> None:
    built = PROBLEMS[name]()
    live = trace(built.roots).live
    seen: list[int] = []
    with capture(live, lambda event: seen.append(event.index)) as watching:
        assert attached(live) > 0
        built.backward()
    assert watching.problem == ""
    assert sorted(seen) == list(range(len(live)))
    assert attached(live) == 0


class Clock:
    """Stands where we read the time; it stays unless it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(nodes, "perf_counter", lambda: self.now)

    def move(self) -> None:
        self.now += 1.0


@pytest.mark.parametrize("large", [True, False])
def test_without_clocks_time_counts_from_event_to_event(large: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    if large:
        monkeypatch.setattr(nodes, "TIMED", 3)
    x = torch.ones(3, requires_grad=True)
    y = (x * 2).sin()
    y.register_hook(lambda grad: clock.move())
    live = trace([y.exp().sum()]).live
    seen: list[Event] = []

    def observe(event: Event) -> None:
        seen.append(event)
        clock.move()  # what observing takes is nobody's time

    with capture(live, observe, clocks=large):
        assert not any(
            _hooks_before(node) for node in live if node.name() != "torch::autograd::AccumulateGrad"
        )
        torch.autograd.backward(torch.autograd.graph.GradientEdge(live[0], 0), torch.ones(()))
    assert [event.index for event in seen] == list(range(len(live)))
    # what came before its formula is in it
    assert {event.node.name(): event.seconds for event in seen if event.seconds} == {"SinBackward0": 1.0}


def test_a_clock_times_the_formula_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)

    class Slow(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            clock.move()
            return grad

    y = Slow.apply(torch.ones(3, requires_grad=True))
    y.register_hook(lambda grad: clock.move())
    live = trace([y.sum()]).live
    seen: list[Event] = []
    with capture(live, seen.append):
        torch.autograd.backward(torch.autograd.graph.GradientEdge(live[0], 0), torch.ones(()))
    assert [event.seconds for event in seen] == [0.0, 1.0, 0.0]


def _hooks_before(node: Any) -> int:
    handle = node.register_prehook(lambda *_: None)
    count = len(handle.hooks_dict_ref()) - 1
    handle.remove()
    return count


def test_unused_outputs_come_as_none() -> None:
    built = PROBLEMS["unused_chunk"]()
    live = trace(built.roots).live
    events: list[tuple[str, list[bool]]] = []

    def observe(event: Event) -> None:
        events.append((event.node.name(), [grad is None for grad in event.grad_outputs]))

    with capture(live, observe):
        built.backward()
    assert ("SplitBackward0", [False, True, False]) in events


def test_a_failing_observer_stops_and_backward_goes_on() -> None:
    built, plain = PROBLEMS["mlp"](), PROBLEMS["mlp"]()
    plain.backward()
    calls = 0

    def observe(event: Event) -> None:
        nonlocal calls
        calls += 1
        raise ValueError("planted")

    with capture(trace(built.roots).live, observe) as watching:
        built.backward()
    assert (calls, watching.problem) == (1, "ValueError: planted")
    assert all(
        torch.equal(a, b) for a, b in zip(plain.gradients().values(), built.gradients().values(), strict=True)
    )


def test_hooks_are_gone_after_backward_raised() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.register_hook(_refuse)
    loss = y.sum()
    live = trace([loss]).live
    seen: list[int] = []
    with pytest.raises(ArithmeticError, match="mine"), capture(live, lambda event: seen.append(event.index)):
        loss.backward()
    assert seen == [0]
    assert attached(live) == 0


def _refuse(grad: torch.Tensor) -> torch.Tensor:
    raise ArithmeticError("mine")


def test_create_graph_records_nothing_of_ours() -> None:
    x = torch.ones(3, requires_grad=True)
    made: list[bool] = []
    loss = (x**3).sum()
    with capture(trace([loss]).live, lambda event: made.append((event.grad_outputs[0] * 1).requires_grad)):
        (grad,) = torch.autograd.grad(loss, x, create_graph=True)
    assert made
    assert not any(made)
    assert grad.requires_grad


def test_modes_of_the_user_do_not_see_the_observer() -> None:
    class Counting(TorchDispatchMode):
        seen = 0

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            Counting.seen += 1
            return func(*args, **(kwargs or {}))

    class Calling(TorchFunctionMode):
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            return func(*args, **(kwargs or {}))

    counts = []
    for observing in (False, True):
        built = PROBLEMS["mlp"]()
        live = trace(built.roots).live if observing else ()
        Counting.seen = 0
        with (
            capture(live, lambda event: torch.linalg.vector_norm(event.grad_outputs[0])),
            Calling(),
            Counting(),
        ):
            built.backward()
        counts.append(Counting.seen)
    assert counts[0] == counts[1]


def test_grad_is_stolen_as_without_us() -> None:
    addresses: list[int] = []
    x = torch.ones(100, requires_grad=True)
    loss = (x * 2).sum()

    def observe(event: Event) -> None:
        if event.grad_inputs is None:
            addresses.append(event.grad_outputs[0].data_ptr())

    with capture(trace([loss]).live, observe):
        loss.backward()
    assert x.grad is not None
    assert addresses == [x.grad.data_ptr()]


def test_two_backwards_and_threads() -> None:
    x = torch.ones(2, requires_grad=True)
    loss = (x * x).sum()
    live = trace([loss]).live
    seen: list[int] = []
    with capture(live, lambda event: seen.append(event.index)):
        loss.backward(retain_graph=True)
        thread = threading.Thread(target=loss.backward)
        thread.start()
        thread.join()
    assert len(seen) == 2 * len(live)
    assert attached(live) == 0


def test_a_reentrant_backward_inside_is_not_disturbed() -> None:
    x = torch.ones(2, requires_grad=True)
    loss = checkpoint(lambda value: value.sin() * value, x, use_reentrant=True).sum()
    seen: list[str] = []
    with capture(trace([loss]).live, lambda event: seen.append(event.node.name())) as watching:
        loss.backward()
    assert watching.problem == ""
    assert "CheckpointFunctionBackward" in seen
    assert torch.allclose(x.grad, torch.cos(torch.ones(2)) + torch.sin(torch.ones(2)))
