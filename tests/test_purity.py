"""What a second call of a forward could do outside is seen in its bytecode."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from explorer.purity import impurity

COUNT = 0
SEEN: list[int] = []
SCALE = 3.0
BUFFER = torch.ones(3)


class Holder:
    calls: list[int] = []  # noqa: RUF012 - what the test is about
    count = 0


def scaled(x: torch.Tensor) -> torch.Tensor:
    return torch.exp(x) * SCALE * math.pi + BUFFER


def pure(ctx: Any, x: torch.Tensor) -> torch.Tensor:
    ctx.save_for_backward(x)
    ctx.scale, ctx.size = SCALE, x.size()
    kept = [scaled(part) for part in x.unbind()]
    return torch.stack(kept)


def global_(ctx: Any, x: Any) -> Any:
    global COUNT
    COUNT += 1
    return x


def appends(ctx: Any, x: Any) -> Any:
    SEEN.append(1)
    return x


def attribute(ctx: Any, x: Any) -> Any:
    Holder.count += 1
    return x


def class_list(ctx: Any, x: Any) -> Any:
    Holder.calls.append(1)
    return x


def prints(ctx: Any, x: Any) -> Any:
    print(x)
    return x


def inner(ctx: Any, x: Any) -> Any:
    return appends(ctx, x)


def communicates(ctx: Any, x: Any) -> Any:
    torch.distributed.all_reduce(x)
    return x


def sees_pytest(ctx: Any, x: Any) -> Any:
    return pytest.approx(x)


def buffer(ctx: Any, x: Any) -> Any:
    BUFFER.add_(1)
    return x


def enclosing() -> Any:
    count = 0

    def forward(ctx: Any, x: Any) -> Any:
        nonlocal count
        count += 1
        return x

    return forward


def test_a_pure_forward() -> None:
    assert impurity(pure) == ""


@pytest.mark.parametrize(
    ("forward", "reason"),
    [
        (global_, "sets the global 'COUNT'"),
        (appends, "uses the global 'SEEN' (list)"),
        (attribute, "sets the attribute 'count'"),
        (class_list, "uses Holder.calls"),
        (prints, "uses 'print'"),
        (inner, "uses the global 'SEEN' (list)"),
        (communicates, "uses 'distributed'"),
        (sees_pytest, "uses the module 'pytest'"),
        (buffer, "uses the tensor 'BUFFER'"),
        (enclosing(), "sets 'count' of an enclosing function"),
        (len, "calls 'len', which cannot be seen"),
    ],
)
def test_an_effect_is_seen(forward: Any, reason: str) -> None:
    assert reason in impurity(forward)
