"""Every planted bug is the first finding, with its line; the gradients are bitwise what they were."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from explorer import pipeline
from explorer.report import Finding
from explorer.script import load, run

HERE = Path(__file__).parent
BUGS = {
    "custom_scale": "wrong-custom-backward",
    "custom_shape": "wrong-custom-backward",
    "dead_relu": "dead-units",
    "deep_sigmoid": "vanishing-gradient",
    "exploding_rnn": "exploding-gradient",
    "detached_hidden": "cut-graph",
    "forgotten_zero_grad": "stale-accumulation",
    "half_tiny": "half-underflow",
    "hidden_state": "graph-freed",
    "inplace_exp": "inplace-damage",
    "inplace_sigmoid": "inplace-damage",
    "inplace_step": "inplace-damage",
    "kept_history": "growing-graph",
    "layers_in_list": "unlisted-module",
    "layer_replaced": "unoptimized-parameter",
    "encoder_left_out": "unoptimized-parameter",
    "log_zero": "non-finite-gradient",
    "mse_pairs": "broadcast-loss",
    "never_called": "backward-never-called",
    "no_grad_encoder": "cut-graph",
    "read_non_leaf": "non-leaf-grad",
    "rebuilt_loss": "cut-graph",
    "rounded": "gradient-killed",
    "second_backward": "graph-freed",
    "step_only_named": "step-never-called",
    "step_forgotten": "step-never-called",
    "softmax_over_batch": "softmax-dimension",
    "softmax_twice": "double-softmax",
    "std_of_one": "non-finite-gradient",
    "unused_branch": "unreached-parameter",
    "where_sqrt": "non-finite-gradient",
    "zero_grad_late": "step-without-gradient",
}
ANOMALY = """torch.autograd.set_detect_anomaly(True)
loss = (torch.zeros(2, requires_grad=True).sqrt() * 0).sum()"""
HOOK = """h = torch.ones(2, requires_grad=True) * 3
h.register_hook(lambda grad: 1 / 0)
loss = h.exp().sum()"""
DYING = ("inplace_exp", "hidden_state", "custom_shape")


def path(name: str) -> str:
    return str(HERE / f"{name}.py")


def marked(name: str) -> int | None:
    """The line that carries ``# BUG``; a layer that is never called is marked where it is made."""
    lines = Path(path(name)).read_text().splitlines()
    return next((number for number, line in enumerate(lines, 1) if "# BUG" in line), None)


def gradients(namespace: Mapping[str, Any]) -> list[bytes]:
    """The bits of every ``.grad`` the script's globals hold."""
    found: list[bytes] = []
    for name in sorted(namespace):
        value = namespace[name]
        tensors = list(value.parameters()) if isinstance(value, torch.nn.Module) else [value]
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor) and tensor.is_leaf and tensor.grad is not None:
                found.append(tensor.grad.numpy().tobytes())
    return found


def findings(name: str) -> tuple[list[Finding], list[bytes], pipeline.Exploration]:
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("default")
        exploration = pipeline.explore_script(load(path(name)))
        plain = run(load(path(name)))
    assert gradients(exploration.outcome.namespace) == gradients(plain.namespace)
    assert exploration.outcome.code == plain.code
    assert exploration.problems == []
    reports = exploration.session.reports
    assert [problem for report in reports for problem in report.problems] == []
    return [f for report in reports for f in report.findings], gradients(plain.namespace), exploration


def test_every_script_is_listed() -> None:
    assert {file.stem for file in HERE.glob("*.py")} - {"__init__", "test_bugs"} == set(BUGS)


@pytest.mark.parametrize("name", BUGS)
def test_the_bug_is_named_first_with_its_line(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    found, _, exploration = findings(name)
    assert found, "nothing was found"
    assert found[0].code == BUGS[name]
    line = marked(name)
    if line is not None:
        assert found[0].where is not None
        assert found[0].where.line == line
    assert {finding.code for finding in found} == {BUGS[name]}
    if name in DYING:
        report = exploration.session.reports[-1]
        assert report.error
        assert report.failed == found[0].node or name == "custom_shape"


@pytest.mark.parametrize("name", DYING)
def test_a_dying_script_keeps_its_traceback_and_exit_code(name: str) -> None:
    plain = subprocess.run([sys.executable, path(name)], capture_output=True, text=True, check=False)
    ours = subprocess.run(
        [sys.executable, "-c", "from explorer.cli import main; main()", path(name)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ours.returncode, ours.stdout) == (plain.returncode, plain.stdout)
    assert plain.returncode == 1
    last = plain.stderr.splitlines()[-1]
    assert last in ours.stderr
    assert "/explorer/" not in ours.stderr.partition(last)[0]


@pytest.mark.parametrize(
    ("body", "failed", "code"),
    [
        (ANOMALY, "SqrtBackward0", "non-finite-gradient"),
        (HOOK, "MulBackward0", None),
    ],
)
def test_the_failing_node_is_marked(body: str, failed: str, code: str | None, tmp_path: Path) -> None:
    script = tmp_path / "dies.py"
    script.write_text(f"import torch\n{body}\nloss.backward()\n")
    try:
        with warnings.catch_warnings(record=True):
            (report,) = pipeline.explore_script(load(str(script))).session.reports
    finally:
        torch.autograd.set_detect_anomaly(False)
    assert report.failed is not None
    assert report.graph.nodes[report.failed].name == failed
    assert [finding.code for finding in report.findings] == ([code] if code else [])
