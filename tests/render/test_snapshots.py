"""DOT and terminal text compared whole with files that people have looked at.

After a wanted change, write them anew with ``python -m tests.render.test_snapshots`` and look at them.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from explorer.render import dot, text
from explorer.render.layout import layout
from explorer.report import Report
from tests.render import samples

FOLDER = Path(__file__).parent / "snapshots"
SHOWN: dict[str, Callable[[], Report]] = {
    "xyz": samples.xyz,
    "sigmoid": samples.sigmoid,
    "reused": samples.reused,
    "block": samples.block,
    "kinds": samples.kinds,
    "resnet": samples.resnet,
    "gpt": lambda: samples.gpt(12),
    "lstm": lambda: samples.lstm(20, 2),
}


@pytest.mark.parametrize("name", SHOWN)
def test_dot_is_as_it_was(name: str) -> None:
    assert dot.source(SHOWN[name]()) == (FOLDER / f"{name}.dot").read_text("utf-8")


@pytest.mark.parametrize("name", SHOWN)
def test_text_is_as_it_was(name: str) -> None:
    assert text.text(SHOWN[name]()) == (FOLDER / f"{name}.txt").read_text("utf-8")


@pytest.mark.parametrize("name", SHOWN)
def test_the_engine_reads_every_drawing(name: str) -> None:
    svg = layout(dot.source(SHOWN[name]()), "svg").decode()
    assert svg.count("<g id=") > 3


def test_bytes_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from tests.render import samples; from explorer.render import dot; print(dot.source(samples.gpt(4)))"
    )
    made = {
        subprocess.run(
            [sys.executable, "-X", "utf8", "-c", code],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": str(Path(__file__).parents[2])},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(made) == 1


@pytest.mark.parametrize("name", SHOWN)
@pytest.mark.parametrize("width", [40, 80, 120])
def test_text_fits_its_width_without_escape_codes(name: str, width: int) -> None:
    written = text.text(SHOWN[name](), width=width)
    assert max(map(len, written.splitlines())) <= width
    assert "\x1b" not in written
    assert "\x1b[" in text.text(SHOWN[name](), width=width, color=True)
    bare = re.sub(r"\x1b\[[0-9;]*m", "", text.text(SHOWN[name](), width=width, color=True))
    assert [line.rstrip() for line in bare.splitlines()] == written.splitlines()


@pytest.mark.parametrize("width", [40, 60, 80, 200])
def test_numbers_stand_whole_at_any_width_and_near_their_names(width: int) -> None:
    tiny = samples.filled(samples.lstm(20, 1).graph, lambda node: 10.0 ** -(3 + node.id % 40))
    lines = text.text(tiny, width=width).splitlines()
    (row,) = [line for line in lines if line.lstrip().startswith("Split")]
    assert re.search(r"\de−\d+…\d\.\de−\d+ ", row)
    assert len(row) <= min(width, 110)


def test_variables_are_listed_as_the_program_uses_them() -> None:
    build = samples.Builder()
    outer = build.op("Mul")
    z = build.leaf("z", (outer, 1), role="input")
    inner = build.op("Mul", (outer, 0))
    y, x = build.leaf("y", (inner, 1), role="input"), build.leaf("x", (inner, 0), role="input")
    numbers = {outer: 1.0, z: 2.0, inner: 3.0, y: 4.0, x: 5.0}
    report = samples.scalar_report(build.graph(), numbers, numbers, dict.fromkeys(range(4), 1.0))
    lines = text.text(report).splitlines()
    assert [line.split()[0] for line in lines[4:7]] == ["x", "y", "z"]


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, make in SHOWN.items():
        (FOLDER / f"{name}.dot").write_text(dot.source(make()), "utf-8")
        (FOLDER / f"{name}.txt").write_text(text.text(make()), "utf-8")
