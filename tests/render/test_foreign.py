"""Exports read by the tools they are for, where those are installed; too heavy to be installed for every run.

Mermaid: ``npm install mermaid jsdom`` in some folder, whose ``node_modules`` MERMAID_MODULES names. Model
Explorer: ``pip install ai-edge-model-explorer``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from explorer import render
from explorer.render import fold
from explorer.report import Report
from tests.render import samples
from tests.render.test_save import HOSTILE, hostile

MODULES = os.environ.get("MERMAID_MODULES", "")
SAMPLES = [samples.xyz, samples.reused, samples.kinds, samples.block, samples.resnet]


@pytest.mark.skipif(not MODULES or not shutil.which("node"), reason="MERMAID_MODULES names no node_modules")
def test_mermaid_reads_every_box_and_wire(tmp_path: Path) -> None:
    reports = [make() for make in SAMPLES] + [hostile(samples.kinds(), name) for name in HOSTILE]
    files = [tmp_path / f"{number}.mmd" for number in range(len(reports))]
    for report, file in zip(reports, files, strict=True):
        render.save(report, file)
    script = Path(__file__).with_name("mermaid_check.mjs")
    command = ["node", str(script), MODULES, *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    read = [tuple(map(int, line.split())) for line in done.stdout.splitlines()]
    drawn = [fold.draw(report) for report in reports]
    assert read == [(len(drawing.shapes), len(drawing.wires)) for drawing in drawn]


@pytest.mark.parametrize("make", SAMPLES)
def test_model_explorer_s_own_types_take_the_file(make: object, tmp_path: Path) -> None:
    builder = pytest.importorskip("model_explorer.graph_builder")
    node_data = pytest.importorskip("model_explorer.node_data_builder")
    dacite = pytest.importorskip("dacite")
    strict = dacite.Config(strict=True)
    report: Report = make()  # type: ignore[operator]  # a sample maker
    graph, data = render.save(report, tmp_path / "a.modelexplorer.json")
    read = dacite.from_dict(builder.GraphCollection, json.loads(graph.read_text("utf-8")), strict)
    assert [len(one.nodes) for one in read.graphs] == [len(report.graph.nodes)]
    for item in json.loads(data.read_text("utf-8")).values():
        assert dacite.from_dict(node_data.GraphNodeData, item, strict).results
