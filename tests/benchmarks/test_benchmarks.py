"""The benchmark runs and fills every line of its table; no time is judged here."""

from __future__ import annotations

import math

from tests.benchmarks.__main__ import rows

EXPECTED = {
    "floor: the same again", "a hook per node", "context", "detect_anomaly", "watch, statistics",
    "watch, sampled check", "backward, check=sample", "fold + layout", "JSON", "text",
    "peak memory, watch, statistics", "explore --help", "explore examples/xyz.py", "traverse",
    "the whole walk",
}  # fmt: skip


def test_every_line_is_measured() -> None:
    found = list(rows(short=True))
    assert {row.what for row in found} == EXPECTED
    assert {row.model for row in found} == {"tiny ResNet", "tiny GPT", "command", "chain"}
    for row in found:
        assert math.isfinite(row.ratio), row
        assert 0 < row.low <= row.high, row
        assert f"x{row.ratio:6.2f}" in str(row)
