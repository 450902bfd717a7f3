"""What `tests.test_device_threads` runs in processes with the device.

``python -m tests.device.runs LIBRARY NAME`` prints the result of one of these functions as JSON.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

import explorer
from explorer.engine import vjp
from explorer.report import Report
from explorer.trace import trace
from hooks.nodes import Event, capture
from tests.device import NAME, fetched, load, waits


def model(depth: int = 2) -> nn.Module:
    def layers() -> tuple[nn.Module, ...]:
        return nn.Linear(20, 20), nn.LayerNorm(20), nn.ReLU(), nn.Linear(20, 20), nn.Tanh()

    return nn.Sequential(*(layer for _ in range(depth) for layer in layers()), nn.Linear(20, 5))


def threads() -> dict[str, Any]:
    """On which threads hooks run, and what `capture` saw there."""
    x = torch.ones(3, requires_grad=True, device=NAME)
    loss = (x * x).sum()
    seen: list[tuple[str, bool]] = []

    def observe(event: Event) -> None:
        seen.append((event.node.name(), threading.get_ident() == threading.main_thread().ident))

    with capture(trace([loss]).live, observe):
        loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
    return {"names": [name for name, _ in seen], "on main": [main for _, main in seen]}


def plain_report(report: Report) -> dict[str, Any]:
    return {
        "names": [node.name for node in report.graph.nodes],
        "norms": [
            [None if record is None else record.norm for record in ran.received] if ran is not None else None
            for ran in report.gradients
        ],
        "edges": [None if record is None else record.norm for record in report.edge_gradients],
        "saved": [[saved.values for saved in node.saved] for node in report.graph.nodes],
        "statuses": dict(report.check.statuses),
        "problems": list(report.problems),
        "findings": [finding.code for finding in report.findings],
    }


def reports() -> dict[str, Any]:
    """The same step on the CPU and on the device."""
    found = {}
    for device in ("cpu", NAME):
        torch.manual_seed(0)
        net, inputs = model().to(device), torch.randn(40, 20).to(device)
        with explorer.watch(net) as watch:
            net(inputs).square().mean().backward()
        found["cpu" if device == "cpu" else "device"] = plain_report(watch.report)
    return found


def trained(around: Callable[[nn.Module], Any]) -> tuple[list[torch.Tensor], list[float], Any]:
    """Ten steps with hooks, a retained gradient and a second derivative."""
    torch.manual_seed(0)
    net, noted = model().to(NAME), []
    optimizer = torch.optim.Adam(net.parameters())
    weight: Any = next(net.parameters())
    weight.register_hook(lambda gradient: noted.append(gradient.sum().item()))
    with around(net) as watch:
        for step in range(10):
            optimizer.zero_grad()
            hidden = net[:3](torch.randn(40, 20).to(NAME))  # type: ignore[index] # a Sequential
            hidden.retain_grad()
            loss = net[3:](hidden).square().mean()  # type: ignore[index]
            if step % 3 == 0:
                (slope,) = torch.autograd.grad(loss, weight, create_graph=True)
                loss = loss + slope.square().sum()
            loss.backward()
            noted += [loss.item(), hidden.grad.sum().item()]
            optimizer.step()
    return [value.cpu() for value in net.state_dict().values()], noted, watch


class Nobody:
    """A block without a watch."""

    problems: tuple[str, ...] = ()

    def __enter__(self) -> Nobody:
        return self

    def __exit__(self, *raised: object) -> None:
        return None


def neutral() -> dict[str, Any]:
    """Whether weights, buffers and what hooks saw are the same to the bit under each kind of watch."""
    ways: dict[str, Callable[[nn.Module], Any]] = {
        "off": lambda net: explorer.watch(net, check="off"),
        "sample": lambda net: explorer.watch(net),
        "every": lambda net: explorer.watch(net, every=4, log=Path(tempfile.mkdtemp()) / "run.jsonl"),
    }
    weights, noted, _ = trained(lambda net: Nobody())
    found = {}
    for name, way in ways.items():
        other, other_noted, watch = trained(way)
        same = all(map(torch.equal, weights, other)) and noted == other_noted
        bad = [
            dict(report.check.statuses)
            for report in watch.reports
            if set(report.check.statuses) - {"match", "unchecked"}
        ]
        found[name] = {"same": same, "problems": list(watch.problems), "bad": bad}
    return found


def waiting() -> dict[str, Any]:
    """How often a watched backward of two depths waits for a device that takes itself for CUDA."""
    torch.Tensor.is_cuda = True  # it is asked which path to take
    found = {}
    for depth in (1, 6):
        net, inputs = model(depth).to(NAME), torch.randn(40, 20).to(NAME)
        with explorer.watch(net, check="off") as watch:
            loss = net(inputs).square().mean()
            before = waits()
            loss.backward()
            found[str(depth)] = waits() - before
        assert watch.report.problems == ()
    return found


def large() -> dict[str, Any]:
    """A sampled check of matrices of 16 MB: how much of them comes over."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(2048, 2048), nn.ReLU(), nn.Linear(2048, 2048)).to(NAME)
    inputs = torch.randn(2048, 2048).to(NAME)
    with explorer.watch(net) as watch:
        loss = net(inputs).square().mean()
        began, waited = fetched(), waits()
        loss.backward()
    report = watch.report
    return {
        "bytes": fetched() - began,
        "waits": waits() - waited,
        "statuses": dict(report.check.statuses),
        "nodes": len(report.graph.nodes),
        "problems": list(report.problems),
    }


class Wrong(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        return gradients[0] * x * 1.9


def wrong() -> dict[str, Any]:
    """Large gradients of two dtypes, of a Function whose backward is not what its rule says."""

    @vjp("WrongBackward")
    def rule(node: Any, gradient: Any) -> Any:
        return [2 * gradient * node.saved_tensors[0]]

    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(3000, 1500).to(NAME, dtype).requires_grad_()
        with explorer.watch() as watch:
            applied: Any = Wrong.apply(x)  # type: ignore[no-untyped-call] # torch leaves it untyped
            applied.sin().t().sum().backward()
        verdicts = zip(watch.report.graph.nodes, watch.report.verdicts, strict=True)
        found[str(dtype)] = {node.name: verdict.status for node, verdict in verdicts}
    return found


def deep() -> dict[str, Any]:
    """A chain of 100,000 operations, explored and dropped five times."""
    x = torch.ones(2, device=NAME, requires_grad=True)
    seen = []
    for _ in range(5):
        with explorer.watch(check="off") as watch:
            y = x
            for _ in range(20_000):
                y = y * 1.0
            y.sum().backward()
            del y
        seen.append(len(watch.report.graph.nodes))
    return {"nodes": seen, "gradient": x.grad.tolist() if x.grad is not None else None}


class Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("of the user's")


def failing() -> dict[str, Any]:
    """A backward that raises on the device's thread."""
    x = torch.ones(3, device=NAME, requires_grad=True)
    raised = ""
    with explorer.watch() as watch:
        broken: Any = Broken.apply(x)  # type: ignore[no-untyped-call] # torch leaves it untyped
        try:
            (broken * 3).sum().backward()
        except ArithmeticError as error:
            raised = str(error)
    report = watch.report
    failed = None if report.failed is None else report.graph.nodes[report.failed].name
    return {"raised": raised, "error": report.error, "failed": failed}


def main() -> None:
    """Run one and print it; then leave at once.

    Torch itself may abort at the end of a process whose last backward ran on such a thread: the thread
    lets go of Python objects when there is no interpreter any more.
    """
    load(Path(sys.argv[1]))
    print(json.dumps(globals()[sys.argv[2]]()), flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
