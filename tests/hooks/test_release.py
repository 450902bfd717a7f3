"""A deep graph that was looked at is released without a crash, whoever drops it and whenever."""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType
from typing import Any

import pytest
import torch

from explorer.trace import trace
from hooks import release

BUILD = """
import threading, torch
from explorer.trace import trace
from hooks import release

def build(depth):
    y = torch.ones(1, requires_grad=True)
    for _ in range(depth):
        y = y * 1.0
    return y

DEPTH = 200_000
"""

ENDINGS = {
    "the loss goes after the trace": (
        "y = build(DEPTH); t = trace([y], saved=False); del t; del y; print(release.parked())"
    ),
    "the trace goes after the loss": (
        "y = build(DEPTH); t = trace([y], saved=False); del y; del t; release.sweep()\n"
        "print(release.parked())"
    ),
    "the user keeps the middle for a while": """
y = build(DEPTH // 2); middle = y
for _ in range(DEPTH // 2): y = y * 1.0
trace([y], saved=False); del y
release.sweep(); assert 0 < release.parked() <= DEPTH // 2
del middle; release.sweep(); print(release.parked())
""",
    "the same graph is looked at again": """
y = build(DEPTH)
for _ in range(3): trace([y], saved=False)
assert release.parked() == DEPTH
del y; release.sweep(); print(release.parked())
""",
    "a graph grows between two looks": """
y = build(DEPTH // 2); trace([y], saved=False); middle = y
for _ in range(DEPTH // 2): y = y * 1.0
trace([y], saved=False); assert release.parked() == DEPTH
del y; release.sweep(); assert release.parked() == DEPTH // 2
del middle; release.sweep(); print(release.parked())
""",
    "a thread with a small stack": """
def work():
    y = build(DEPTH); trace([y], saved=False); del y
threading.stack_size(256 * 1024)
thread = threading.Thread(target=work); thread.start(); thread.join()
release.sweep(); print(release.parked())
""",
    "the interpreter ends first": "y = build(DEPTH); t = trace([y], saved=False); print(0)",
}


@pytest.mark.parametrize("ending", ENDINGS)
def test_release(ending: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", BUILD + ENDINGS[ending]],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "0"), done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="a stack overflow ends the process differently there")
def test_without_care_the_process_dies() -> None:
    """The danger is real: if this stops crashing, torch has mended it and parking may go."""
    bare = """
y = build(DEPTH); node = y.grad_fn; held = []
while node is not None:
    held.append(node)
    node = node.next_functions[0][0] if node.next_functions else None
del held; del y
"""
    done = subprocess.run([sys.executable, "-c", BUILD + bare], capture_output=True, timeout=120, check=False)
    assert done.returncode != 0


def test_an_interrupt_within_a_sweep_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python drops what a callback of the collector raises; Ctrl-C comes again."""

    def interrupted() -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(release, "sweep", interrupted)
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 - it comes soon after
        release._after_collection("stop", {"generation": 2})
        for _ in range(1000):
            len("")


def test_a_handler_of_the_users_is_not_called_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: calls.append(number))

    def interrupted() -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(release, "sweep", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            release._after_collection("stop", {"generation": 2})
    finally:
        signal.signal(signal.SIGINT, before)
    assert calls == []


def test_a_sweep_cut_short_keeps_every_node(monkeypatch: pytest.MonkeyPatch) -> None:
    y = torch.ones(1, requires_grad=True)
    for _ in range(1500):
        y = y * 1.0
    found = trace([y])
    mine = release._parked[-1]
    before = list(mine)
    lines = 0

    def cut(frame: FrameType, event: str, argument: object) -> Any:
        nonlocal lines
        lines += event == "line" and frame.f_code is release._pass.__code__
        if lines == 700:
            raise KeyboardInterrupt
        return cut

    tracing = sys.gettrace()
    try:
        sys.settrace(cut)
        with pytest.raises(KeyboardInterrupt):
            release._pass(mine)
    finally:
        sys.settrace(tracing)
    assert mine == before
    assert len(mine) == len(found.live) - 1
