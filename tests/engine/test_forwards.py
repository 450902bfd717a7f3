"""Every forward agrees with torch's own, and one that is off by a thousandth is told apart."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom

from explorer import agreement, consistency
from explorer.engine import forwards
from explorer.engine.forward_rules import FORWARDS
from explorer.trace import Trace, trace
from tests.engine.problems import inputs_of, problems

torch.manual_seed(0)
PROBLEMS = problems()
PROBLEMS |= {
    "nll": (
        "NllLossBackward0",
        lambda x: F.nll_loss(x, torch.tensor([1, 0, 2, 4]), ignore_index=0),
        [(4, 5)],
    ),
    "nll sum": ("NllLossBackward0", lambda x: F.nll_loss(x, torch.tensor([1, 3]), reduction="sum"), [(2, 5)]),
    "adaptive max 2d": ("AdaptiveMaxPool2DBackward0", lambda x: F.adaptive_max_pool2d(x, 2), [(2, 3, 5, 4)]),
    "adaptive max 3d": (
        "AdaptiveMaxPool3DBackward0",
        lambda x: F.adaptive_max_pool3d(x, 2),
        [(1, 2, 3, 5, 4)],
    ),
    "max 3d": ("MaxPool3DWithIndicesBackward0", lambda x: F.max_pool3d(x, 2), [(2, 4, 4, 6)]),
    "max 2d alone": ("MaxPool2DWithIndicesBackward0", lambda x: F.max_pool2d(x, 2, 1), [(3, 5, 4)]),
    "avg padded": (
        "AvgPool2DBackward0",
        lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False),
        [(2, 3, 6, 5)],
    ),
    "avg divisor": ("AvgPool2DBackward0", lambda x: F.avg_pool2d(x, 2, divisor_override=3), [(2, 3, 6, 5)]),
    "grouped queries": (
        "ScaledDotProductFlashAttentionForCpuBackward0",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, enable_gqa=True),
        [(2, 4, 3, 8), (2, 2, 5, 8), (2, 2, 5, 8)],
    ),
    "masked scores": (
        "ScaledDotProductFlashAttentionForCpuBackward0",
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, torch.randn(3, 5), scale=0.7),
        [(2, 4, 3, 8), (2, 4, 5, 8), (2, 4, 5, 8)],
    ),
    "cat": ("CatBackward0", lambda a, b: torch.cat([a, b], -1), [(3, 4), (3, 2)]),
}
del PROBLEMS["nll none"]  # left to silence
ROWS = sorted(name for name, (node, _, _) in PROBLEMS.items() if node in FORWARDS)
VIEWS = {"TBackward0", "AliasBackward0", "DetachBackward0", "SqueezeBackward2"}
"""Nodes that no row makes, or whose result is the very memory of what went in."""


def judged(row: str) -> tuple[Trace, list[agreement.Equation]]:
    """The equations of a program in which what goes into a row, and what comes out, is kept."""
    torch.manual_seed(1)
    inputs = [x.sin() * 1 if x.requires_grad and row != "square" else x for x in inputs_of(PROBLEMS[row])]
    made = PROBLEMS[row][1](*inputs)
    outputs = made if isinstance(made, (tuple, list)) else [made]
    loss = sum((one * one).sum() + sum((x * x).sum() for x in inputs if x.requires_grad) for one in outputs)
    assert isinstance(loss, torch.Tensor)
    found = trace([loss])
    equations = list(consistency._equations(found, consistency.kept_values(found), [loss]))
    for one in equations:
        agreement.judge(one, 12)
    return found, equations


@pytest.mark.parametrize("row", ROWS)
def test_a_forward_agrees_with_torch(row: str) -> None:
    found, equations = judged(row)
    assert all(one.failed is None for one in equations)
    assert any(one.holds for one in equations)
    assert found.graph.nodes


@pytest.mark.parametrize("row", [row for row in ROWS if not PROBLEMS[row][0].startswith(("Clone", "View"))])
def test_a_forward_that_is_off_is_noticed(row: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name = PROBLEMS[row][0]
    right = forwards._FORWARDS[name]

    def wrong(n: forwards.Known) -> object:
        made = right.function(n)
        return [one * 1.001 for one in made] if isinstance(made, list) else made * 1.001

    monkeypatch.setitem(forwards._FORWARDS, name, replace(right, function=wrong))
    assert any(one.failed is not None for one in judged(row)[1])


def test_every_forward_is_met() -> None:
    assert set(FORWARDS) - {PROBLEMS[row][0] for row in ROWS} <= VIEWS


def test_nothing_is_known_of_a_sum_that_would_take_long() -> None:
    x = torch.randn(400, 300).requires_grad_()
    loss = F.mse_loss(x.exp(), torch.zeros(400, 300))
    found = trace([loss])
    nodes = [
        found.graph.nodes[one.node].name
        for one in consistency._equations(found, consistency.kept_values(found), [loss])
    ]
    assert nodes == ["ExpBackward0"]
