"""The zoo of real models: at least 99 % of all nodes that run are checked, and nothing is wrong.

Each model is a training step under `explorer.watch`; every backward call of it counts, those of
``autograd.grad`` included. ``pytest tests/test_zoo.py -s`` prints the table.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch

import explorer
from explorer.engine import registry
from explorer.report import Report
from tests.zoo import MODELS

GAPS = {
    "ResNet, channels last, autocast to bfloat16": {"AsStridedBackward1"},
    "packed sequences, GRU": {"CopySlices"},
    "packed sequences, LSTM": {"CopySlices"},
    "masked attention, filled in place": {"CopySlices"},
}
"""Nodes of a model that cannot be checked; `explorer.engine.rules.absent` says why."""

ROUNDED = {
    "ResNet, channels last, autocast to bfloat16": {"low-precision accumulation"},
    "Llama in bfloat16": {"low-precision accumulation"},
}
"""Where torch itself adds up in the half type: told, and no mistake."""


@dataclass(frozen=True)
class Tally:
    """What became of the nodes of one model: `calls` backward calls, statuses of the nodes that ran."""

    calls: int
    statuses: Counter[str]
    unchecked: Counter[str]
    bad: tuple[str, ...]

    @property
    def nodes(self) -> int:
        return self.statuses.total()

    @property
    def checked(self) -> int:
        return self.nodes - self.statuses["unchecked"]


def _of_report(report: Report) -> Tally:
    """Nodes that a pruned backward (``autograd.grad``) left out carried nothing, and do not count."""
    statuses: Counter[str] = Counter()
    unchecked: Counter[str] = Counter()
    bad = []
    for verdict in report.verdicts:
        node = report.graph.nodes[verdict.node]
        if verdict.reason == "did not run":
            continue
        statuses[verdict.status] += 1
        if verdict.status == "unchecked":
            unchecked[node.name] += 1
        if verdict.status in ("mismatch", "nan-mismatch", "overflow"):
            bad.append(f"{node.name}: {verdict.status}: {verdict.reason}")
    bad += [one.message for one in report.findings if one.code == "saved-value-changed"]
    return Tally(1, statuses, unchecked, (*bad, *report.problems))


@cache
def tally(name: str) -> Tally:
    """One training step of a model, watched."""
    with explorer.watch() as watch:
        MODELS[name]()
    parts = [_of_report(report) for report in watch.reports]
    return Tally(
        len(parts),
        sum((one.statuses for one in parts), Counter()),
        sum((one.unchecked for one in parts), Counter()),
        (*[line for one in parts for line in one.bad], *watch.problems),
    )


@pytest.mark.filterwarnings("ignore")  # what torch says of its own deprecated or experimental operations
@pytest.mark.parametrize("name", MODELS)
def test_model(name: str) -> None:
    found = tally(name)
    assert found.calls
    assert not found.bad
    assert set(found.unchecked) == GAPS.get(name, set())
    if name not in GAPS:
        assert found.checked == found.nodes
    assert set(found.statuses) - {"match", "unchecked"} <= ROUNDED.get(name, set())


@pytest.mark.filterwarnings("ignore")  # as above
def test_the_whole_zoo() -> None:
    rows = {name: tally(name) for name in MODELS}
    lines = [f"{'model':56}{'calls':>6}{'nodes':>7}{'checked':>9}  left out"]
    lines += [
        f"{name:56}{one.calls:>6}{one.nodes:>7}{one.checked / one.nodes:>9.1%}  {', '.join(one.unchecked)}"
        for name, one in rows.items()
    ]
    nodes, checked = sum(one.nodes for one in rows.values()), sum(one.checked for one in rows.values())
    print(
        "\n".join(
            ["", *lines, f"{len(rows)} models, {checked} of {nodes} nodes checked ({checked / nodes:.2%})"]
        )
    )
    assert nodes > 5000
    assert checked >= 0.99 * nodes


def test_the_zoo_holds_what_it_should() -> None:
    kinds = (
        "ResNet", "MobileNet", "ConvNeXt", "Swin", "U-Net", "VAE", "GPT-2", "BERT", "Llama", "T5", "ViT",
        "mixture", "Mamba", "LSTM", "GRU", "packed", "GAN", "GNN", "PPO", "SAC", "DQN", "CTC", "NeRF",
        "physics", "WGAN-GP", "checkpointed", "MAML",
    )  # fmt: skip
    missing = [kind for kind in kinds if not any(kind in name for name in MODELS)]
    assert not missing


def test_a_wrong_rule_shows_in_the_zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    rule = registry._RULES["NativeLayerNormBackward0"]

    def wrong(n: Any, *g: Any) -> list[Any]:
        return [None if one is None else one * 1.0001 for one in rule.function(n, *g)]

    monkeypatch.setitem(registry._RULES, "NativeLayerNormBackward0", registry.Rule(rule.names, wrong))
    with explorer.watch() as watch:
        MODELS["ViT"]()
    assert any("mismatch" in line for line in _of_report(watch.report).bad)


def test_a_step_leaves_the_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    MODELS["VAE"]()
    assert torch.equal(before, torch.get_rng_state())
