"""Source lines keep their name and text wherever the program goes, and come out of archives too."""

from __future__ import annotations

import importlib
import os
import zipfile
from pathlib import Path

import pytest
import torch

import explorer
from explorer.pipeline import explore_script
from explorer.places import line_of
from explorer.script import load

WANDERER = """import os
import torch
os.makedirs("run")
os.chdir("run")
w = torch.ones(2, requires_grad=True)
(w * 2).sum().backward()
os.chdir(os.sep)
(w * 3).sum().backward()
"""
NET = """import torch


def double(x):
    return x * 2
"""


def test_a_script_that_changes_folder_keeps_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.py").write_text(WANDERER)
    reports = explore_script(load("train.py"), call=None).session.reports
    assert [(r.where.file, r.where.line) for r in reports if r.where] == [("train.py", 6), ("train.py", 8)]
    lines = [
        (n.source.file, n.source.code) for r in reports for n in r.graph.nodes if n.source and n.kind == "op"
    ]
    assert set(lines) == {("train.py", "(w * 2).sum().backward()"), ("train.py", "(w * 3).sum().backward()")}


@pytest.mark.parametrize("relative", [True, False])
def test_a_line_in_an_archive_has_its_text(
    relative: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"zipped_{'relative' if relative else 'absolute'}"
    with zipfile.ZipFile("nets.zip", "w") as archive:
        archive.writestr(f"{name}.py", NET)
    monkeypatch.syspath_prepend("nets.zip" if relative else str(tmp_path / "nets.zip"))
    module = importlib.import_module(name)
    with explorer.watch() as watch:
        module.double(torch.ones(2, requires_grad=True)).sum().backward()
    (source,) = {n.source for n in watch.report.graph.nodes if n.name == "MulBackward0"}
    assert source is not None
    assert (source.file, source.line) == (os.path.join("nets.zip", f"{name}.py"), 5)
    assert source.code == "return x * 2"


def test_what_is_no_file_has_no_text() -> None:
    assert line_of("<nowhere>", 3).code == ""
    assert line_of(os.path.join(os.sep, "no", "such.zip", "net.py"), 3).code == ""
