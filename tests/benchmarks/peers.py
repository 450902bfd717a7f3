"""The neighbours and the floors, each doing what it does in one training step of the same model.

The neighbours come with ``pip install -e '.[bench]'``; one that is missing, or that cannot do a model, is
told in the table with the reason. None of them does the whole of ours: what each gives stands beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

import explorer
from tests.benchmarks.context import own_transformer
from tests.benchmarks.models import convolutions, grown, perceptron
from tests.benchmarks.watching import chain, loss_of

Step = Callable[[nn.Module, Tensor], object]
TINY = (20, 16)
"""Widths of the perceptron whose every parameter is checked by differences."""


def plain(model: nn.Module, inputs: Tensor) -> None:
    """Forward and backward, nothing else: the base of every ratio."""
    loss_of(model, inputs).backward()  # type: ignore[no-untyped-call] # torch leaves it untyped


def nodes_of(root: Any) -> list[Any]:
    """A bare loop over next_functions."""
    seen, stack = {root: None}, [root]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in seen:
                seen[node] = None
                stack.append(node)
    return list(seen)


def bare_hooks(model: nn.Module, inputs: Tensor) -> None:
    """A hook per node that does nothing."""
    loss = loss_of(model, inputs)
    for node in nodes_of(loss.grad_fn):
        node.register_hook(lambda *_: None)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped


def bare_reductions(model: nn.Module, inputs: Tensor) -> list[float]:
    """A hook per node that takes the norm of what the node received: our reductions without us."""
    loss = loss_of(model, inputs)
    norms: list[float] = []

    def note(gradients: Any, received: Any) -> None:
        for gradient in received:
            if gradient is not None:
                norms.append(torch.linalg.vector_norm(gradient).item())

    for node in nodes_of(loss.grad_fn):
        if type(node).__name__ != "AccumulateGrad":  # a post-hook there would copy every gradient
            node.register_hook(note)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    return norms


def walked(model: nn.Module, inputs: Tensor) -> None:
    """Ours for what torchviz gives: the graph as data."""
    loss = loss_of(model, inputs)
    explorer.walk(loss)
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped


def torchviz(model: nn.Module, inputs: Tensor) -> None:
    """The graph of grad_fn as DOT; no gradient is looked at."""
    make_dot = import_module("torchviz").make_dot
    loss = loss_of(model, inputs)
    make_dot(loss, params=dict(model.named_parameters()))
    loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped


def torchview(model: nn.Module, inputs: Tensor) -> None:
    """The forward as DOT, of a run of its own; no backward."""
    import_module("torchview").draw_graph(model, input_data=inputs)


def torchlens(model: nn.Module, inputs: Tensor) -> None:
    """Every forward operation, and the gradients at those it can; functions unwrapped afterwards."""
    lens, options = import_module("torchlens"), import_module("torchlens.options")
    capture = options.CaptureOptions(backward_ready=True, save_grads="all", unwrap_when_done=True)
    trace = lens.trace(model, inputs, capture=capture)
    trace.log_backward(trace[-1].out.pow(2).mean())


OURS: dict[str, Step] = {"walk": walked}
FLOORS: dict[str, Step] = {"floor: a bare hook per node": bare_hooks, "floor: bare norms": bare_reductions}
PEERS: dict[str, Step] = {"torchviz": torchviz, "torchview": torchview, "torchlens": torchlens}
GIVES = {
    "torchviz": "graph, no gradients",
    "torchview": "forward graph only",
    "torchlens": "forward, some gradients",
}


def models(short: bool) -> dict[str, tuple[nn.Module, Tensor]]:
    """Model and input by name: the ones of the marks, or a small one."""
    if short:
        return {"tiny MLP": (nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(4, 8))}
    found = {"mlp": perceptron(), "cnn": convolutions(), "transformer": own_transformer()}
    batches = {name: grown(partial(plain, model), inputs) for name, (model, inputs) in found.items()}
    return {f"{name}, batch {len(batches[name])}": (found[name][0], batches[name]) for name in found}


def missing(run: Callable[[], object]) -> str:
    """Why `run` cannot be measured, "" where it can: it is tried once."""
    try:
        run()
    except ModuleNotFoundError as error:
        return f"skipped: {error.name} is not installed"
    except Exception as error:  # noqa: BLE001 - whatever a neighbour raises is told in the table
        return f"skipped: it raises {type(error).__name__}"
    return ""


def long_chain(length: int) -> dict[str, Callable[[], object]]:
    """A chain of `length` operations, which every one of them should bear."""

    def torchviz_alone() -> None:
        import_module("torchviz").make_dot(chain(length))

    return {"walk": lambda: explorer.walk(chain(length)), "torchviz": torchviz_alone}


def checked() -> tuple[Callable[[], object], dict[str, Callable[[], object]]]:
    """Is every gradient right? A plain step in double precision; ours on all elements, and ``gradcheck``."""
    wide, narrow = TINY
    model = nn.Sequential(nn.Linear(wide, narrow), nn.Tanh(), nn.Linear(narrow, 2)).double()
    inputs = torch.randn(4, wide, dtype=torch.float64)
    names = [name for name, _ in model.named_parameters()]
    parameters = tuple(parameter for _, parameter in model.named_parameters())

    def function(*values: Tensor) -> Tensor:
        result: Tensor = (
            functional_call(model, dict(zip(names, values, strict=True)), (inputs,)).pow(2).mean()
        )
        return result

    def ours() -> None:
        with explorer.watch(check="full"):
            plain(model, inputs)

    others: dict[str, Callable[[], object]] = {
        "watch, full check": ours,
        "gradcheck": lambda: torch.autograd.gradcheck(function, parameters),
    }
    return lambda: plain(model, inputs), others
