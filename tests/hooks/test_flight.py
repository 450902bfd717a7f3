"""Threads that train at the same time: no gradient of one is touched by another, and nobody is accused."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn
from torch.nn import functional

import explorer
from explorer.watching import Watch
from hooks import flight as flight_module
from hooks.flight import Flight

TRAINING = """
from concurrent.futures import ThreadPoolExecutor
import torch
from torch import nn
import explorer

def train(seed):
    generator = torch.Generator().manual_seed(seed)
    model = nn.Linear(6, 3)
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(5):
        optimizer.zero_grad()
        x = torch.randn(10, 6, generator=generator)
        nn.functional.cross_entropy(model(x), x[:, :3].argmax(1)).backward()
        optimizer.step()

for _ in range(25):
    with explorer.watch(check="off", every={every}), ThreadPoolExecutor(3) as threads:
        list(threads.map(train, range(6)))
print("trained")
"""


def test_only_one_that_is_alone_looks() -> None:
    flight = Flight()
    seen: list[bool] = []

    def look() -> None:
        with flight.alone() as alone:
            seen.append(alone)

    with flight.backward(), flight.backward():
        look()  # its own is no other's
        other = threading.Thread(target=look)
        other.start()
        other.join()
    look()
    assert seen == [True, False, True]


def test_a_backward_waits_while_somebody_looks() -> None:
    flight, begun = Flight(), threading.Event()

    def call() -> None:
        with flight.backward():
            begun.set()

    with flight.alone():
        other = threading.Thread(target=call)
        other.start()
        assert not begun.wait(0.1)
    other.join()
    assert begun.is_set()


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flight_module, "PATIENCE", 0.05)
    flight = Flight()
    seen: list[bool] = []

    def use() -> None:
        with flight.alone() as alone:
            seen.append(alone)
        with flight.backward():
            seen.append(True)

    with flight.alone():
        other = threading.Thread(target=use)
        other.start()
        other.join(60)
    assert seen == [False, True]


def test_training_in_threads_does_not_end_the_process() -> None:
    for every in (None, 2):
        ran = subprocess.run(
            [sys.executable, "-c", TRAINING.format(every=every)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )
        assert (ran.returncode, ran.stdout) == (0, "trained\n"), ran.stderr


class Slow:
    """A backward in a thread of its own, which another thread lets end."""

    def __init__(self, threads: ThreadPoolExecutor) -> None:
        self._inside, self._done = threading.Event(), threading.Event()
        self._running = threads.submit(self._run)
        assert self._inside.wait(60)

    def _wait(self, grad: torch.Tensor) -> None:
        self._inside.set()
        self._done.wait(60)

    def _run(self) -> None:
        held = torch.ones(2, requires_grad=True)
        loss = (held * 2).sum()
        held.register_hook(self._wait)
        loss.backward()

    def end(self) -> None:
        self._done.set()
        self._running.result()


def codes(watch: Watch) -> list[str]:
    return [finding.code for report in watch.reports for finding in report.findings]


def test_what_could_not_be_seen_is_held_against_nobody() -> None:
    def train() -> None:
        model = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(3):
            functional.mse_loss(model(torch.randn(8, 4)), torch.zeros(8, 2)).backward()
            optimizer.step()
            optimizer.zero_grad()

    with explorer.watch(every=100) as watch, ThreadPoolExecutor(2) as threads:
        slow = Slow(threads)
        threads.submit(train).result()
        slow.end()
    assert watch.calls == 4
    assert codes(watch) == []


def test_what_was_noted_before_calls_overlapped_is_dropped() -> None:
    with explorer.watch(check="off") as watch, ThreadPoolExecutor(1) as threads:
        model, x = nn.Linear(4, 2), torch.randn(8, 4)
        late = model(x).pow(2).mean()
        nn.Linear(4, 2)(x).pow(2).mean().backward()  # here `model` is not reached yet
        slow = Slow(threads)
        late.backward()
        model.zero_grad()
        del model, late
        slow.end()
    assert codes(watch) == []
