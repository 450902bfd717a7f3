"""Our hooks on nodes stand beside the user's, in the order of registration, and leave nothing behind."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import torch

from hooks.attached import NodeHooks

BEFORE = torch.autograd.Function.__dict__.get("_register_hook")


class Doubled(torch.autograd.Function):
    """A node made in Python."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return grad * 2


class Seen:
    """What ran, in order; the user's own hooks carry names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __call__(self, name: str) -> Any:
        return lambda *_: self.names.append(name)


def built(kind: str) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.ones(3, requires_grad=True)
    return x, Doubled.apply(x) if kind == "Function" else x * 2


def attach(hooks: NodeHooks, node: Any, name: str, seen: Seen) -> None:
    with hooks.registering() as keep:
        keep(node.register_prehook(seen(f"{name} pre")))
        keep(node.register_hook(seen(name)))


@pytest.mark.parametrize("kind", ["Function", "C++"])
def test_beside_the_users_own(kind: str) -> None:
    seen, ours, others = Seen(), NodeHooks(), NodeHooks()
    x, y = built(kind)
    node = y.grad_fn
    assert node is not None
    first = node.register_hook(seen("user's first"))
    attach(ours, node, "ours", seen)
    attach(others, node, "another watch's", seen)
    second = node.register_hook(seen("user's second"))
    pre = node.register_prehook(seen("user's pre"))
    y.sum().backward(retain_graph=True)
    pres = ["ours pre", "another watch's pre", "user's pre"]
    assert seen.names == [*pres, "user's first", "ours", "another watch's", "user's second"]
    assert x.grad is not None
    assert x.grad.tolist() == [2.0] * 3

    ours.remove()
    first.remove()
    seen.names.clear()
    y.sum().backward(retain_graph=True)
    assert seen.names == ["another watch's pre", "user's pre", "another watch's", "user's second"]

    others.remove()
    ours.remove()  # a second time: nothing more to do
    second.remove()
    pre.remove()
    seen.names.clear()
    y.sum().backward()
    assert seen.names == []


@pytest.mark.parametrize("kind", ["Function", "C++"])
def test_the_user_comes_after_us_and_stays(kind: str) -> None:
    """The dictionary that we made is the node's from then on: handles of the user's work on it."""
    seen, ours = Seen(), NodeHooks()
    _, y = built(kind)
    assert y.grad_fn is not None
    attach(ours, y.grad_fn, "ours", seen)
    handle = y.grad_fn.register_hook(seen("user's"))
    ours.remove()
    y.sum().backward(retain_graph=True)
    assert seen.names == ["user's"]
    assert len(handle.hooks_dict_ref()) == 1
    handle.remove()
    handle.remove()
    y.sum().backward()
    assert seen.names == ["user's"]


def test_a_hook_may_replace_gradients() -> None:
    x, y = built("C++")
    assert y.grad_fn is not None
    hooks = NodeHooks()
    with hooks.registering() as keep:
        keep(y.grad_fn.register_hook(lambda inputs, outputs: (inputs[0] * 10, None)))
    y.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [20.0] * 3


def test_other_threads_get_torchs_own_handles_meanwhile() -> None:
    _, y = built("C++")
    found: list[Any] = []
    hooks = NodeHooks()
    with hooks.registering():
        thread = threading.Thread(target=lambda: found.append(y.grad_fn.register_hook(lambda *_: None)))  # type: ignore[union-attr] # it has one
        thread.start()
        thread.join()
    assert type(found[0]).__name__ == "RemovableHandle"
    assert torch.autograd.Function.__dict__.get("_register_hook") is BEFORE


def test_an_exception_leaves_torch_as_it_was() -> None:
    with pytest.raises(LookupError), NodeHooks().registering():
        raise LookupError("planted")
    assert torch.autograd.Function.__dict__.get("_register_hook") is BEFORE


def test_a_torch_that_does_not_ask_gives_handles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another torch keeps its hooks otherwise, ours are registered and removed all the same."""
    monkeypatch.setattr("hooks.attached._NAME", "_no_such_function")
    seen, ours = Seen(), NodeHooks()
    _, y = built("C++")
    attach(ours, y.grad_fn, "ours", seen)
    y.sum().backward(retain_graph=True)
    ours.remove()
    y.sum().backward()
    assert seen.names == ["ours pre", "ours"]
