"""Every rule on torch's own samples of every operation: no verdict but match, loose or unchecked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from explorer.engine import registry
from explorer.engine.rules.absent import ABSENT, reason_for
from tests.engine.coverage import model_names, node_classes, op_db_names
from tests.engine.op_check import GOOD, check_operation
from tests.test_op_db import DIFFERENTIABLE

DTYPES = (torch.float64, torch.float32)
OTHERS = (torch.complex128, torch.complex64, torch.bfloat16, torch.float16)
TOLD = {"low-precision accumulation", "overflow"}
"""What torch does in the half types, and the check says."""

WRONG_IN_TORCH = {
    ("linalg_matrix_exp", 2): "its gradient is nan in the half types",
    ("matrix_exp", 2): "its gradient is nan in the half types",
    ("renorm", 8): "its gradient is nan where a complex slice has norm 0",
}
"""Operation and bytes of an element, where torch's gradient is no number though the true one is."""


def run(op: Any, dtype: torch.dtype, limit: int, good: set[str] = GOOD) -> None:
    if dtype not in op.supported_dtypes("cpu"):
        pytest.skip("torch's table has no samples of this dtype")
    try:
        found = list(check_operation(op, limit, dtype))
    except RuntimeError as problem:
        pytest.skip(f"torch's own sample fails: {problem}")
    assert not [str(one) for one in found if one.verdict.status not in good]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.formatted_name)
def test_first_samples(op: Any, dtype: torch.dtype) -> None:
    run(op, dtype, 2 if dtype is torch.float64 else 1)


@pytest.mark.long
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.formatted_name)
def test_many_samples(op: Any, dtype: torch.dtype) -> None:
    run(op, dtype, 25)


@pytest.mark.long
@pytest.mark.parametrize("dtype", OTHERS, ids=str)
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.formatted_name)
def test_other_dtypes(op: Any, dtype: torch.dtype) -> None:
    """No false alarm in complex numbers and in the half types."""
    if (op.formatted_name, dtype.itemsize) in WRONG_IN_TORCH:
        pytest.skip(WRONG_IN_TORCH[op.formatted_name, dtype.itemsize])
    run(op, dtype, 10, GOOD | TOLD)


def test_what_has_a_rule() -> None:
    """At least 97 % of the names in torch's table, and a reason for each that has none."""
    names = set(op_db_names(25))
    absent = {name for name in names if registry.rule_for(name) is None}
    assert len(absent) <= 0.03 * len(names), sorted(absent)
    assert absent <= set(ABSENT), sorted(absent - set(ABSENT))


def test_what_the_models_use() -> None:
    counts = model_names()
    absent = {name for name in counts if registry.rule_for(name) is None}
    customs = {"CheckpointFunctionBackward", "CubeBackward", "SinCosBackward"}
    assert absent - customs <= set(ABSENT), sorted(absent)


def test_every_node_of_this_torch_has_a_rule_or_a_reason() -> None:
    """Torch's own list of node classes; ``python -m tests.engine.coverage`` prints the table."""
    names = node_classes()
    assert len(names) > 500
    absent = [name for name in names if registry.rule_for(name) is None]
    assert not [name for name in absent if reason_for(name) is None]
    assert len(absent) < 0.3 * len(names)


def test_no_reason_for_what_has_a_rule() -> None:
    assert not [name for name in ABSENT if registry.rule_for(name) is not None]


PLANTED = [
    "asin",
    "prod",
    "diagonal",
    "linalg.inv",
    "fft.fft",
    "scatter_add",
    "nn.functional.glu",
    "nn.functional.pdist",
]


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each rule of the operation made wrong by 1e-4 is a mismatch."""
    op = next(one for one in DIFFERENTIABLE if one.name == name)
    nodes = {one.node for one in check_operation(op, 4, torch.float64)}

    def spoiled(rule: registry.Rule) -> registry.Rule:
        def wrong(n: Any, *g: Any) -> list[Any]:
            return [None if one is None else one * 1.0001 for one in rule.function(n, *g)]

        return registry.Rule(rule.names, wrong, rule.hints)

    for node in nodes:
        rule = registry.rule_for(node)
        if rule is not None:
            monkeypatch.setitem(registry._RULES, node, spoiled(rule))
    statuses = {one.verdict.status for one in check_operation(op, 4, torch.float64)}
    assert "mismatch" in statuses
