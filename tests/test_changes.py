"""Values changed past autograd: what is idiomatic is passed over in silence, what damages gradients is told.

With the line that did it, where that went through ``.data``.
"""

from __future__ import annotations

import warnings

import pytest
import torch

import explorer
from explorer.report import Finding
from tests.changes import meant, unmeant
from tests.changes.registry import DAMAGED, HEALTHY, Script

CODE = "saved-value-changed"
assert meant, unmeant


def told(script: Script) -> list[Finding]:
    """What is said of a script's saved values, over all its backward calls."""
    torch.manual_seed(0)
    with warnings.catch_warnings(), explorer.watch() as watch:
        warnings.simplefilter("ignore", FutureWarning)  # parts of torch that people still use
        script()
    assert watch.reports
    assert not any("forward values" in problem for report in watch.reports for problem in report.problems)
    return [one for report in watch.reports for one in report.findings if one.code == CODE]


@pytest.mark.parametrize("name", HEALTHY)
def test_what_is_meant_is_not_told(name: str) -> None:
    assert told(HEALTHY[name]) == []


@pytest.mark.parametrize("name", DAMAGED)
def test_what_is_damaged_is_told_with_its_line(name: str) -> None:
    script, by = DAMAGED[name]
    found = told(script)
    assert found
    assert all(one.severity == "error" for one in found), found
    for one in found:
        assert one.where is not None
        assert by in one.message
        assert one.where.code == by or not by
