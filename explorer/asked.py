"""One backward of our own, on request: all of it, or the paths it takes to one tensor."""

from __future__ import annotations

import sys
from contextlib import nullcontext
from typing import Any

import torch

from explorer import chains, contributions
from explorer.chains import Paths
from explorer.errors import ExplorerError, UsageError
from explorer.names import collect
from explorer.own import own_backward
from explorer.report import CheckMode, Report
from explorer.trace import trace
from explorer.watching import Watch
from explorer.witness import FEW_NODES
from hooks.backward import user_frame
from hooks.collection import no_collection
from hooks.unseen import unseen

MEASURED = 200
"""So many paths through tensors are told at most."""


def explore(*tensors: Any, check: CheckMode = "sample", numeric: bool = False) -> Report:
    """Explore what a backward from `tensors` does, by running one: ``.grad`` stays untouched.

    The graph stays usable (``retain_graph``), and the random number generators are as before. A root
    with several elements starts from ones, as ``tensor.sum().backward()`` would.

    Args:
        tensors: one or several tensors with a ``grad_fn``.
        check: how much of every gradient the engine verifies: "sample", "full" or "off".
        numeric: take central differences of the forward too, into `Report.quotients`.

    Returns:
        The report; it draws itself in a notebook.

    Raises:
        NothingDifferentiableError: a tensor has no ``grad_fn`` and requires no gradient.
        TypeError: something that is no tensor.
    """
    with unseen(but_fake=True):
        for tensor in tensors:
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"explore() takes tensors, not {type(tensor).__name__}")
        watch = Watch(check=check, work_out=FEW_NODES, numeric=numeric)
        with no_collection() if check == "off" else nullcontext():
            watch.explore(tensors, collect(user_frame(sys._getframe(1))))
            if not watch.explored:
                raise ExplorerError("; ".join(watch.problems))
            return watch.report


def paths(loss: torch.Tensor, x: torch.Tensor, limit: int = 1000) -> Paths:
    """Every chain-rule path from `loss` to `x`: the product of local derivatives along each, and their sum.

    Millions of paths are counted exactly without being listed; the `limit` largest contributions are.

    Args:
        loss: a tensor with a ``grad_fn``.
        x: a leaf or an intermediate tensor of its graph.

    Returns:
        `Paths`: iterating gives those listed, the largest first, each with `nodes`,
        `local` and `contribution` (`norm` where it crosses tensors); `count`, `total` and `text` tell of all.

    Raises:
        UsageError: `x` is not in the graph of `loss`.
    """
    with unseen(but_fake=True):
        report = explore(loss, check="off")
        try:
            node = torch.autograd.graph.get_gradient_edge(x).node
        except (AttributeError, RuntimeError) as error:
            raise UsageError(f"paths() needs a tensor that requires a gradient: {error}") from None
        traced = trace([loss])
        if node not in traced.live:
            raise UsageError("x is not in the graph of loss: no path leads to it (see explorer.why)")
        target = traced.live.index(node)
        seeds = {root: torch.ones_like(loss) for root in traced.graph.roots}
        with own_backward():
            shares = contributions.shares(traced.graph, traced.live, seeds, target, min(limit, MEASURED))
        return chains.paths(report, target, limit, shares=shares)
