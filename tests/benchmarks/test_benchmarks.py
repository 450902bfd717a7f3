"""The benchmark runs and fills every line of its table; no time is judged here."""

from __future__ import annotations

import math

import torch

from tests.benchmarks.__main__ import Row, compared, rows
from tests.benchmarks.marks import Mark, mark_of
from tests.benchmarks.models import DOUBLINGS, grown
from tests.benchmarks.peers import PEERS

EXPECTED = {
    "floor: the same again", "a hook per node", "context", "detect_anomaly", "watch, statistics",
    "watch, sampled check", "backward, check=sample", "fold + layout", "JSON", "text",
    "peak memory, watch, statistics", "explore --help", "explore examples/xyz.py", "traverse",
    "trace", "the whole walk", "walk", "torchviz", "torchview", "torchlens", "floor: a bare hook per node",
    "floor: bare norms", "watch, statistics (beside peers)", "watch, full check", "gradcheck",
    "watch, light record", "watch, statistics, left open", "walk alone", "backward, captured, statistics",
    "backward, captured, values", "findings alone", "explore() with sampled check",
    "explored and drawn, seconds of 60", "explored and drawn, GB of 6",
}  # fmt: skip


def test_every_line_is_measured() -> None:
    found = list(rows(short=True))
    assert {row.what for row in found} == EXPECTED
    assert {row.model for row in found} == {
        "tiny ResNet", "tiny GPT", "command", "chain", "tiny MLP", "chain of 500", "tiny MLP, float64",
        "tiny ResNet, CUDA", "tiny GPT, CUDA", "tiny transformer", "LSTM, 4 steps", "chain of 100 ops",
        "chain of 500 ops",
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


def test_a_line_tells_whether_its_mark_is_reached() -> None:
    def line(model: str, what: str, ratio: float, base_ms: float) -> str:
        return str(Row(model, what, ratio, ratio, ratio, "step", base_ms))

    assert "mark 1.25x: yes" in line("mlp, batch 256", "watch, statistics", 1.25, 40.0)
    assert "mark 1.25x: NO" in line("cnn, batch 48", "watch, statistics", 1.26, 40.0)
    assert "+10.4 ms" in line("cnn, batch 48", "watch, statistics", 1.26, 40.0)
    assert "mark" not in line("tiny GPT", "watch, statistics", 9.0, 1.0)
    assert "mark 0.3 s: yes" in line("command", "explore --help", 0.2, 1000.0)
    assert "mark 0.3 s: NO" in line("command", "explore --help", 0.31, 1000.0)
    assert "mark 1.3x + 0.5 s: yes" in line("command", "explore examples/xyz.py", 1.8, 1000.0)
    assert "mark 1.3x + 0.5 s: NO" in line("command", "explore examples/xyz.py", 1.81, 1000.0)
    assert mark_of("transformer, batch 8", "peak memory, watch, statistics") == Mark(1.1)


def test_a_batch_grows_until_a_step_is_long_enough() -> None:
    rows: list[int] = []
    assert len(grown(lambda batch: rows.append(len(batch)), torch.ones(3, 2), least=0.0)) == 3
    grown_to = grown(lambda batch: rows.append(len(batch)), torch.ones(3, 2), least=1e9)
    assert len(grown_to) == 3 << DOUBLINGS
    assert rows[-1] == 3 << (DOUBLINGS - 1)
