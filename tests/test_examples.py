"""Every example does what its docstring promises, alone and under the explorer."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from explorer import pipeline
from explorer.report import BAD_STATUSES, Report
from explorer.script import load

EXAMPLES = Path(__file__).parents[1] / "examples"

OUTPUT = {
    "xyz": ["f = 24", "df/dx = 12, df/dy = 8, df/dz = 6"],
    "xyz_without_backward": ["f = 24", "x.grad = None, y.grad = None, z.grad = None"],
    "composed": ["f(h(2)) = 5, gradient 4"],
    "by_hand": [
        "r = 144",
        "dr/da: by hand 96, PyTorch 96",
        "dr/db: by hand 48, PyTorch 48",
        "dr/dc: by hand 60, PyTorch 60",
    ],
    "sigmoid": ["output 0.73", "w gradients -0.20 -0.39 0.20", "x gradients 0.39 -0.59"],
    "two_layer": ["loss before", "loss after"],
    "digits_cnn": ["step 100: loss", "accuracy 9"],
    "residual_cnn": ["25.6 million parameters", "every parameter has a gradient: True"],
    "gpt_block": ["loss 3.9", "every parameter has a gradient: True"],
    "custom_function": ["largest difference from torch's SiLU: "],
    "engine_alone": ["spirals: loss 1.71 before, 0.21 after", "pictures: loss 1.72 before, 0.03 after"],
    "own_rule": ["5 of 24 gradients are zero: those elements were dropped"],
}

LEAVES = {
    "xyz": {"x": 12.0, "y": 8.0, "z": 6.0},
    "xyz_without_backward": {"x": 12.0, "y": 8.0, "z": 6.0},
    "composed": {"x": 4.0},
    "by_hand": {"a": 96.0, "b": 48.0, "c": 60.0},
    # CS231n prints two digits; the third comes from s = 1: σ' = σ(1)·(1 − σ(1)) = 0.19661
    "sigmoid": {"w0": -0.19661, "w1": -0.39322, "w2": 0.19661, "x0": 0.39322, "x1": -0.58983},
}


def explored(name: str) -> tuple[pipeline.Exploration, Report]:
    exploration = pipeline.explore_script(load(str(EXAMPLES / f"{name}.py")))
    assert exploration.error is None
    assert exploration.problems == []
    (report,) = exploration.session.reports
    assert report.problems == ()
    return exploration, report


def test_every_example_is_here() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(OUTPUT)


@pytest.mark.parametrize("name", OUTPUT)
def test_what_it_prints_and_that_every_gradient_is_confirmed(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    exploration, report = explored(name)
    printed = capfd.readouterr()
    for line in OUTPUT[name]:
        assert line in printed.out
    assert printed.err == ""
    assert exploration.outcome.code == 0
    assert not any(report.check.statuses.get(status) for status in BAD_STATUSES)
    assert report.check.checked == report.check.nodes == len(report.graph.nodes)
    errors = {finding.code for finding in report.findings if finding.severity == "error"}
    assert errors == ({"backward-never-called"} if name == "xyz_without_backward" else set())
    assert report.call == (name != "xyz_without_backward")


@pytest.mark.parametrize("name", LEAVES)
def test_the_promised_gradients(name: str) -> None:
    _, report = explored(name)
    for leaf in report.graph.leaves():
        gradient = report.gradient(leaf.id)
        assert gradient is not None
        assert gradient.values == pytest.approx((LEAVES[name][leaf.label],), rel=1e-4)
    assert {leaf.label for leaf in report.graph.leaves()} == set(LEAVES[name])


def test_the_loss_of_the_two_layer_network_falls(capfd: pytest.CaptureFixture[str]) -> None:
    explored("two_layer")
    before, after = (float(line.split()[-1]) for line in capfd.readouterr().out.splitlines())
    assert after < before


def test_the_digits_are_learnt(capfd: pytest.CaptureFixture[str]) -> None:
    explored("digits_cnn")
    assert float(capfd.readouterr().out.split()[-1].rstrip("%")) > 90


def test_the_tied_embedding_shows_both_names() -> None:
    _, report = explored("gpt_block")
    (tied,) = (leaf for leaf in report.graph.leaves() if "wte.weight" in leaf.names)
    assert "head.weight" in tied.names
    assert len(report.graph.incoming[tied.id]) == 2


def test_the_custom_function_is_shown_as_such() -> None:
    _, report = explored("custom_function")
    assert [node.name for node in report.graph.nodes if node.kind == "custom"] == ["SwishBackward"]


def test_a_rule_of_ones_own_is_what_the_custom_node_is_checked_by() -> None:
    from explorer.engine.registry import unregister

    _, report = explored("own_rule")
    (node,) = (node for node in report.graph.nodes if node.kind == "custom")
    verdict = report.verdict(node.id)
    assert verdict is not None
    assert (verdict.status, verdict.elements) == ("match", 24)
    unregister("DropoutBackward")


def test_the_engine_alone_agrees_with_torch_and_with_quotients(capfd: pytest.CaptureFixture[str]) -> None:
    explored("engine_alone")
    count, torch, quotients = capfd.readouterr().out.splitlines()[-3:]
    assert count == "107 gradients"
    assert float(torch.split()[-1]) < 1e-14
    assert float(quotients.split()[-1]) < 1e-9


@pytest.mark.parametrize("name", ["xyz", "digits_cnn"])
def test_the_output_is_that_of_plain_python(name: str) -> None:
    script = str(EXAMPLES / f"{name}.py")
    python = subprocess.run([sys.executable, script], capture_output=True, check=True)
    explore = subprocess.run(
        [str(Path(sys.executable).with_name("explore")), script],
        capture_output=True,
        check=True,
    )
    assert explore.stdout == python.stdout
    assert b"match" in explore.stderr
