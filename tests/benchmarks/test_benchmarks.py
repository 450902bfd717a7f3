"""The benchmark runs and fills every line of its table; no time is judged here."""

from __future__ import annotations

import math

import torch

from tests.benchmarks.__main__ import compared, rows
from tests.benchmarks.peers import PEERS

EXPECTED = {
    "floor: the same again", "a hook per node", "context", "detect_anomaly", "watch, statistics",
    "watch, sampled check", "backward, check=sample", "fold + layout", "JSON", "text",
    "peak memory, watch, statistics", "explore --help", "explore examples/xyz.py", "traverse",
    "trace", "the whole walk", "walk", "torchviz", "torchview", "torchlens", "floor: a bare hook per node",
    "floor: bare norms", "watch, statistics (beside peers)", "watch, full check", "gradcheck",
    "watch, light record", "watch, statistics, left open", "walk alone", "backward, captured, statistics",
    "backward, captured, values", "findings alone", "explore() with sampled check",
}  # fmt: skip


def test_every_line_is_measured() -> None:
    found = list(rows(short=True))
    assert {row.what for row in found} == EXPECTED
    assert {row.model for row in found} == {
        "tiny ResNet", "tiny GPT", "command", "chain", "tiny MLP", "chain of 500", "tiny MLP, float64",
        "tiny ResNet, CUDA", "tiny GPT, CUDA", "tiny transformer", "LSTM, 4 steps", "chain of 100 ops",
    }  # fmt: skip
    for row in found:
        if row.skipped:
            assert row.what in PEERS or (row.model.endswith("CUDA") and not torch.cuda.is_available()), row
            assert "skipped: " in str(row)
            continue
        assert math.isfinite(row.ratio), row
        assert 0 < row.low <= row.high, row
        assert f"x{row.ratio:6.2f}" in str(row)


def test_what_cannot_be_measured_is_told() -> None:
    def absent() -> None:
        raise ModuleNotFoundError("No module named 'neighbour'", name="neighbour")

    def broken() -> None:
        raise RecursionError

    others = {"a": absent, "b": broken, "c": lambda: sum(range(1000))}
    found = {row.what: row for row in compared("m", "step", lambda: sum(range(1000)), others, 2)}
    assert str(found["a"]).endswith("skipped: neighbour is not installed")
    assert str(found["b"]).endswith("skipped: it raises RecursionError")
    assert found["c"].ratio > 0
