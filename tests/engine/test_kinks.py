# ruff: noqa: N812 - F is torch's own custom
"""Values at which torch's own backward has conventions: nan, ties, bounds that the dtype rounds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.engine.op_check import check_outputs

NAN, INF = float("nan"), float("inf")
Function = Callable[[torch.Tensor], torch.Tensor]

# One vector of torch's loops (16 numbers at most), and a rest that its scalar loop takes.
WITH_NAN = [0.5, NAN, -0.5, 0.0, 2.0, -4.0, 5.0, -1.0] * 16 + [NAN, 1.0, NAN]

AT_NAN: dict[str, Function] = {
    "abs": torch.abs,
    "norm 1": lambda x: torch.linalg.vector_norm(x.reshape(-1, 1), 1, 1),
    "norm inf": lambda x: torch.linalg.vector_norm(x.reshape(-1, 1), INF, 1),
    "i1": torch.special.i1,
    "i1e": torch.special.i1e,
    "maximum": lambda x: torch.maximum(x, x.detach() * 0),
    "minimum": lambda x: torch.minimum(x, x.flip(0)),
    "max": torch.max,
    "min": torch.min,
    "amax": lambda x: torch.stack([x, x, x * 0], 1).amax(1),
    "amin": lambda x: torch.stack([x, x * 0], 1).amin(1, keepdim=True),
    "elu": F.elu,
    "celu": F.celu,
    "selu": F.selu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "hardshrink": F.hardshrink,
    "softshrink": F.softshrink,
    "logit": lambda x: torch.logit(x, 1e-3),
}


def statuses(function: Function, values: list[float], dtype: torch.dtype) -> set[str]:
    """What the check says of every node between `values` and their function."""
    x = torch.tensor(values, dtype=dtype, requires_grad=True)
    return {verdict.status for _, verdict in check_outputs([function(x)])}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", AT_NAN)
def test_nan_is_no_disagreement(name: str, dtype: torch.dtype) -> None:
    assert not statuses(AT_NAN[name], WITH_NAN, dtype) & {"mismatch", "nan-mismatch"}


@pytest.mark.parametrize("name", ["abs", "maximum", "max", "amax", "hardtanh", "elu"])
def test_a_wrong_gradient_beside_nan_is_still_seen(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is claimed less at nan is claimed as before everywhere else."""
    from explorer.engine import registry

    for key, rule in list(registry._RULES.items()):
        wrong = registry.Rule(rule.names, _scaled(rule.function))
        monkeypatch.setitem(registry._RULES, key, wrong)
    assert "mismatch" in statuses(AT_NAN[name], [*WITH_NAN[:8], 3.0, 0.25], torch.float32)
    assert "mismatch" in statuses(AT_NAN[name], [0.5, 3.0, -0.25, 0.75, 2.0, 0.125, -0.5, 0.2], torch.float32)


def _scaled(rule: Callable[..., Any]) -> Callable[..., Any]:
    return lambda n, *g: [None if one is None else one * 1.0001 for one in rule(n, *g)]
