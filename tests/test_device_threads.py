"""Explored on a device whose nodes autograd runs on a thread of their own.

The device is made for the tests (`tests.device`), so that what CUDA does with threads is seen without one.
Each run has a process to itself, for a device cannot be taken back.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import device

pytestmark = pytest.mark.skipif(
    device.compiler() is None, reason="no g++ on this machine to build a device with"
)
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return device.build(tmp_path_factory.mktemp("device"))


def ran(library: Path, name: str) -> Any:
    command = [sys.executable, "-m", "tests.device.runs", str(library), name]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_hooks_run_on_the_threads_of_the_device(library: Path) -> None:
    """What the others here rest on."""
    found = ran(library, "threads")
    assert found["names"] == ["SumBackward0", "MulBackward0", "torch::autograd::AccumulateGrad"]
    assert found["on main"] == [False, False, False]


def test_a_report_is_the_one_of_the_cpu(library: Path) -> None:
    found = ran(library, "reports")
    here, there = found["cpu"], found["device"]
    assert there["problems"] == here["problems"] == []
    assert there["findings"] == here["findings"] == []
    assert there["statuses"] == here["statuses"] == {"match": len(here["names"])}
    assert there["names"] == here["names"]
    for what in ("norms", "edges", "saved"):
        expected = list(numbers(here[what]))
        assert list(numbers(there[what])) == pytest.approx(expected, rel=1e-4, abs=1e-7, nan_ok=True)


def numbers(nested: Any) -> Iterator[float]:
    """All that nested lists hold, nan for nothing."""
    if not isinstance(nested, list):
        yield float("nan") if nested is None else nested
        return
    for one in nested:
        yield from numbers(one)


def test_training_is_the_same_to_the_last_bit(library: Path) -> None:
    nothing_else = {"same": True, "problems": [], "bad": []}
    assert ran(library, "neutral") == {"off": nothing_else, "sample": nothing_else, "every": nothing_else}


def test_waiting_does_not_grow_with_the_graph(library: Path) -> None:
    found = ran(library, "waiting")
    assert found["1"] == found["6"]
    assert 0 < found["6"] <= 6


def test_a_sample_of_large_tensors_brings_over_a_small_part(library: Path) -> None:
    """Of eleven matrices of 16 MB, several of them read by more than one node."""
    found = ran(library, "large")
    assert found["problems"] == []
    assert found["statuses"] == {"match": found["nodes"]}
    assert found["bytes"] < 4e6, found
    assert found["waits"] < 500, found


def test_a_wrong_large_gradient_is_found(library: Path) -> None:
    for statuses in ran(library, "wrong").values():
        assert statuses.pop("WrongBackward") == "mismatch"
        assert set(statuses.values()) == {"match"}


def test_deep_graphs_go_without_a_crash(library: Path) -> None:
    assert ran(library, "deep") == {"nodes": [20_002] * 5, "gradient": [5.0, 5.0]}


def test_a_backward_that_fails_there_is_told(library: Path) -> None:
    found = ran(library, "failing")
    assert found["raised"] == "of the user's"
    assert "ArithmeticError: of the user's" in found["error"]
    assert found["failed"] == "BrokenBackward"
