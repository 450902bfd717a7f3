"""Exploring many times leaves nothing behind: no objects, no memory, no hooks, no patched function."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, FunctionType, MethodDescriptorType
from typing import Any

import pytest
import torch
from torch import nn

import explorer
from hooks import release

PATCHABLE = (FunctionType, BuiltinFunctionType, MethodDescriptorType, classmethod, staticmethod, property)
ROUNDS = 1000
WARM = 40


class Fails(torch.autograd.Function):
    """Raises in backward."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        raise ArithmeticError("planted")


def small_loss() -> torch.Tensor:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    return model(torch.randn(5, 3)).pow(2).mean()  # type: ignore[no-any-return] # a module returns Any


def explored() -> None:
    explorer.explore(small_loss(), check="off")


def watched() -> None:
    with explorer.watch(check="off") as watch:
        small_loss().backward()
    assert watch.report.graph.nodes


def failed() -> None:
    with explorer.watch(check="off") as watch, pytest.raises(ArithmeticError):
        Fails.apply(small_loss()).backward()
    assert watch.report.error


def failed_outside() -> None:
    def training() -> None:
        with explorer.watch(check="off"):
            small_loss().backward()
            raise ArithmeticError("planted")

    with pytest.raises(ArithmeticError):
        training()


def deep() -> None:
    """Deep enough for its release to be taken in hand."""
    y = torch.ones(1, requires_grad=True)
    for _ in range(release.SHALLOW + 10):
        y = y * 1.0
    explorer.walk(y)


def resident() -> int:
    """Bytes of this process in memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


RUNS: list[tuple[Callable[[], None], int]] = [
    (explored, ROUNDS),
    (watched, ROUNDS),
    (failed, ROUNDS),
    (failed_outside, ROUNDS),
    (deep, 60),
]


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("run", "rounds"), RUNS, ids=lambda item: getattr(item, "__name__", ""))
def test_nothing_accumulates(run: Callable[[], None], rounds: int) -> None:
    for _ in range(WARM):
        run()
    gc.collect()
    release.sweep()
    objects, memory = len(gc.get_objects()), resident()
    for _ in range(rounds):
        run()
    gc.collect()
    release.sweep()
    assert gc.garbage == []
    assert release.parked() == 0
    # Less than one object for ten explorations: torch and Python fill caches of their own now and then.
    assert len(gc.get_objects()) - objects < rounds / 10
    assert resident() - memory < 12 * 2**20


def closed() -> None:
    with explorer.watch(check="off"):
        small_loss().backward()


def cycles_of(run: Callable[[], object]) -> int:
    """How many objects `run` leaves to the garbage collector."""
    run()
    gc.collect()
    gc.disable()
    try:
        run()
        return gc.collect()
    finally:
        gc.enable()


@pytest.mark.parametrize("run", [closed, failed_outside], ids=lambda run: run.__name__)
def test_a_watch_goes_without_the_garbage_collector(run: Callable[[], None]) -> None:
    # A full collection takes longer than many steps, and comes the sooner the more is left to it.
    assert cycles_of(run) == 0


Tensors = tuple[torch.Tensor, ...]


def plain_step(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3)
    out = model(x)
    loss = out.pow(2).mean()
    loss.backward()
    return x, out, loss


def step_by_grad(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3, requires_grad=True)
    out = model(x)
    loss = out.pow(2).mean()
    return x, out, loss, *torch.autograd.grad(loss, [x, out])


def step_of_second_order(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3, requires_grad=True)
    (slope,) = torch.autograd.grad(model(x).mean(), [x], create_graph=True)
    loss = slope.pow(2).sum()
    loss.backward()
    return x, slope, loss


def step_run_twice(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3)
    loss = model(x).pow(2).mean()
    loss.backward(retain_graph=True)
    loss.backward()
    return x, loss


def step_that_fails(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3)
    out = model(x)
    loss = Fails.apply(out).pow(2).mean()
    with pytest.raises(ArithmeticError):
        loss.backward()
    return x, out, loss


def step_on_changed_values(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3)
    gate = model(x).sigmoid()
    loss = (gate * gate).mean()
    gate.mul_(2)
    with pytest.raises(RuntimeError, match="inplace operation"):
        loss.backward()
    return x, gate, loss


def step_with_hooks_and_cuts(model: nn.Module) -> Tensors:
    x = torch.randn(20, 3)
    out = model(x)
    out.register_hook(lambda grad: grad * 2)
    out.retain_grad()
    weight = out.detach()
    loss = (out * weight).mean()
    loss.backward()
    return x, out, weight, loss


STEPS = [
    plain_step, step_by_grad, step_of_second_order, step_run_twice, step_that_fails,
    step_on_changed_values, step_with_hooks_and_cuts,
]  # fmt: skip


@pytest.mark.parametrize(
    "asked", [{"check": "off"}, {"check": "sample"}, {"check": "full"}, {"check": "off", "every": 2}]
)
@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.__name__)
def test_an_open_watch_keeps_no_tensor_of_the_steps_behind_it(
    step: Callable[[nn.Module], Tensors], asked: dict[str, Any]
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
    gc.collect()
    gc.disable()  # what goes has to go by itself: a step's memory is needed for the next one
    try:
        with explorer.watch(model, **asked) as watch:
            for _ in range(3):
                model.zero_grad()
                refs = [weakref.ref(tensor) for tensor in step(model)]
                assert [ref() for ref in refs] == [None] * len(refs)
    finally:
        gc.enable()
    assert all(report.graph.nodes for report in watch.reports)


TRAINING = """
import torch, explorer
from pathlib import Path
from torch import nn
def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 >> 20
torch.manual_seed(0)
model = nn.Sequential(*[layer for _ in range(5) for layer in (nn.Linear(512, 512), nn.ReLU())])
x = torch.randn(512, 512)
with explorer.watch(model, **{asked}):
    for step in range(101):
        loss = model(x).pow(2).mean()
        loss.backward()
        model.zero_grad()
        if step == 30:
            before = resident()
print(resident() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize(
    "asked", [{"check": "off"}, {"check": "sample"}, {"check": "off", "every": 2}], ids=str
)
def test_what_stays_of_a_step_does_not_split_the_memory_of_its_tensors(asked: dict[str, Any]) -> None:
    # Reports stay, of some KB each. Made amid the step's tensors they left holes too small for those: 2 MiB
    # a step that nobody held and nobody could use.
    shown = subprocess.run(
        [sys.executable, "-c", TRAINING.replace("{asked}", repr(asked))],
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    assert int(shown.stdout) < 35


@pytest.mark.parametrize("check", ["off", "sample", "full"])
def test_a_report_keeps_no_tensor(check: Any) -> None:
    def explored() -> tuple[explorer.Report, list[weakref.ref[torch.Tensor]]]:
        x = torch.randn(5, 3, requires_grad=True)
        loss = x.exp().mean()
        return explorer.explore(loss, check=check), [weakref.ref(x), weakref.ref(loss)]

    gc.collect()
    gc.disable()
    try:
        report, refs = explored()
        assert [ref() for ref in refs] == [None, None]
    finally:
        gc.enable()
    assert report.graph.nodes


def test_a_cycle_would_be_noticed() -> None:
    def planted() -> None:
        with explorer.watch(check="off") as watch:
            small_loss().backward()
        watch.mine = watch  # type: ignore[attr-defined] # planted

    assert cycles_of(planted) > 100


def bound() -> dict[str, object]:
    """Everything that could be patched: attributes of torch's modules and classes, and of `warnings`."""
    owners: dict[str, Any] = {
        name: module for name, module in list(sys.modules.items()) if name.partition(".")[0] == "torch"
    }
    owners |= {
        "Tensor": torch.Tensor, "Module": nn.Module, "Function": torch.autograd.Function,
        "Optimizer": torch.optim.Optimizer, "warnings": warnings, "sys": sys,
    }  # fmt: skip
    found: dict[str, object] = {}
    for name, owner in owners.items():
        for key, value in list(vars(owner).items()):
            if issubclass(type(value), PATCHABLE):  # `isinstance` would ask deprecated objects of torch's
                found[f"{name}.{key}"] = value
    registries = vars(nn.modules.module)
    for key in [key for key in registries if key.startswith("_global_") and "hooks" in key]:
        found[f"registry {key}"] = tuple(registries[key])
    optimizers: Any = sys.modules["torch.optim.optimizer"]
    found["optimizer hooks"] = tuple(optimizers._global_optimizer_pre_hooks) + tuple(
        optimizers._global_optimizer_post_hooks
    )
    found["modes"] = (
        torch._C._len_torch_function_stack(),
        torch._C._len_torch_dispatch_stack(),
        torch.is_anomaly_enabled(),
        torch.is_anomaly_check_nan_enabled(),
    )
    found["collector"] = (gc.isenabled(), tuple(gc.callbacks), gc.get_threshold())
    found["hook"] = sys.excepthook
    return found


@pytest.mark.parametrize("run", [explored, watched, failed, failed_outside], ids=lambda run: run.__name__)
def test_what_was_patched_is_restored(run: Callable[[], None]) -> None:
    run()
    release.sweep()
    before = bound()
    run()
    after = bound()
    assert [
        key for key in before if after.get(key) is not before[key] and after.get(key) != before[key]
    ] == []


def test_patches_are_seen_while_watching() -> None:
    """The comparison above can fail: while a watch is open, it sees what is attached."""
    watched()
    before = bound()
    with explorer.watch():
        during = bound()
    changed = {key for key in before if during.get(key) is not before[key] and during.get(key) != before[key]}
    assert any("_engine_run_backward" in key for key in changed)
    assert any(key.startswith("registry") for key in changed)


def test_user_objects_carry_no_hooks_afterwards() -> None:
    model = nn.Linear(3, 2)
    x = torch.randn(4, 3, requires_grad=True)
    hidden = model(x)
    loss = hidden.pow(2).sum()
    explorer.explore(loss)
    with explorer.watch(model):
        loss.backward()
    assert not model._forward_hooks
    assert not model._backward_hooks
    assert all(not tensor._backward_hooks for tensor in (*model.parameters(), x, hidden))
