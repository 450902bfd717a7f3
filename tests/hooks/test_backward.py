from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch.utils.checkpoint import checkpoint

from hooks.backward import BackwardCall, watch_backward


class Calls:
    """Notes every call it is entered around."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, int, bool]] = []
        self.results: list[object] = []

    @contextmanager
    def __call__(self, call: BackwardCall) -> Iterator[None]:
        assert call.frame is not None
        self.seen.append((call.frame.f_code.co_name, len(call.inputs), call.accumulate))
        yield
        self.results.append(call.result)


def loss_of(x: torch.Tensor) -> torch.Tensor:
    return (x * x).sum()


def test_every_way_into_backward_is_seen_with_the_users_frame() -> None:
    x = torch.ones(2, requires_grad=True)
    calls = Calls()
    here = sys._getframe().f_code.co_name
    door = torch.autograd._engine_run_backward
    with watch_backward(calls):
        loss_of(x).backward()
        torch.autograd.backward(loss_of(x), inputs=[x])
        torch.autograd.grad(loss_of(x), x)
    assert calls.seen == [(here, 0, True), (here, 1, True), (here, 1, False)]
    assert torch.equal(calls.results[2][0], 2 * torch.ones(2))  # type: ignore[index]  # what grad returned
    assert torch.autograd._engine_run_backward is door is torch.autograd.graph._engine_run_backward


def test_inner_calls_go_through_unseen() -> None:
    x = torch.ones(2, requires_grad=True)
    calls = Calls()
    loss = checkpoint(lambda value: value.sin(), x, use_reentrant=True).sum()
    with watch_backward(calls):
        loss.backward()
    assert len(calls.seen) == 1


def test_the_door_is_restored_when_backward_raises() -> None:
    x = torch.ones(2, requires_grad=True)
    door = torch.autograd._engine_run_backward
    loss = loss_of(x)
    loss.backward()
    with pytest.raises(RuntimeError, match="second time"), watch_backward(Calls()):
        loss.backward()
    assert torch.autograd._engine_run_backward is door


def test_a_door_that_somebody_else_stands_at_is_watched_too(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs: list[str] = []

    def counted(*args: object, **options: object) -> object:
        theirs.append("call")
        return plain(*args, **options)

    plain = torch.autograd._engine_run_backward
    monkeypatch.setattr(torch.autograd, "_engine_run_backward", counted)
    x = torch.ones(2, requires_grad=True)
    calls = Calls()
    with watch_backward(calls):
        loss_of(x).backward()
        torch.autograd.grad(loss_of(x), x)
    assert len(calls.seen) == len(theirs) == 2
    assert torch.autograd._engine_run_backward is counted
    assert torch.autograd.graph._engine_run_backward is plain


def test_threads_are_seen_each_on_their_own() -> None:
    calls = Calls()

    def work() -> None:
        loss_of(torch.ones(2, requires_grad=True)).backward()

    with watch_backward(calls):
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert calls.seen == [("work", 0, True)] * 4


def test_a_retired_patch_kept_by_somebody_is_a_pass_through() -> None:
    calls = Calls()
    with watch_backward(calls):
        kept = torch.autograd._engine_run_backward
    original = torch.autograd._engine_run_backward
    torch.autograd._engine_run_backward = kept
    try:
        loss_of(torch.ones(2, requires_grad=True)).backward()
    finally:
        torch.autograd._engine_run_backward = original
    assert calls.seen == []


def test_functional_transforms_pass() -> None:
    calls = Calls()
    with watch_backward(calls):
        grad = torch.func.grad(loss_of)(torch.ones(2))
    assert torch.equal(grad, 2 * torch.ones(2))
    assert calls.seen == []
