"""Random small nets in which one saved value is changed past autograd: told; left alone: silent.

What is told is judged by gradients alone: a change that alters one beyond rounding is owed a word, one that
alters none, whatever the data, is owed silence.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import explorer
from explorer.report import Finding

CODE = "saved-value-changed"
SHORT, LONG, PARTS = 40, 3_000, 12
LAYERS = ("linear", "tanh", "relu", "gelu", "sigmoid", "norm", "square", "attention", "residual", "softmax")


class Net(nn.Module):
    """Rows of `width` numbers through layers by name; `made` keeps every value on the way."""

    def __init__(self, layers: tuple[str, ...], width: int) -> None:
        super().__init__()
        self.layers, self.made = layers, list[Tensor]()
        kinds = {"linear": nn.Linear, "residual": nn.Linear, "attention": nn.Linear}
        self.parts = nn.ModuleList(
            kinds[name](width, width) if name in kinds else nn.LayerNorm(width) for name in layers
        )

    def forward(self, x: Tensor) -> Tensor:
        """Shape (B, width) to the same."""
        for name, part in zip(self.layers, self.parts, strict=True):
            if name in ("linear", "norm"):
                x = part(x)
            elif name == "residual":
                x = x + part(x)
            elif name == "attention":
                x = (part(x) @ x.t()).softmax(-1) @ x
            elif name == "square":
                x = x * x
            elif name == "softmax":
                x = x.softmax(-1)
            else:
                x = getattr(F, name)(x) if name == "gelu" else getattr(torch, name)(x)
            self.made.append(x)
        return x


@dataclass(frozen=True)
class Example:
    layers: tuple[str, ...]
    width: int
    seed: int
    factor: float
    place: int


examples = st.builds(
    Example,
    layers=st.lists(st.sampled_from(LAYERS), min_size=1, max_size=6).map(lambda names: ("linear", *names)),
    width=st.integers(3, 9),
    seed=st.integers(0, 2**31),
    factor=st.sampled_from([-1.0, 0.5, 1.3, 3.0]),
    place=st.integers(0, 10**6),
)


def built(example: Example) -> tuple[Net, Tensor, list[Tensor]]:
    """The net, its loss, and the tensors that may be changed: all that goes in, values on the way."""
    torch.manual_seed(example.seed)
    net = Net(example.layers, example.width)
    batch, target = torch.randn(6, example.width), torch.randn(6, example.width)
    loss = F.mse_loss(net(batch), target)
    return net, loss, [*net.parameters(), *net.made, batch, target]


def gradients(example: Example, change: bool) -> tuple[list[Tensor], list[Finding]]:
    """The gradients of the parameters with and without the change, and what is told."""
    with explorer.watch() as watch:
        net, loss, tensors = built(example)
        if change:
            tensors[example.place % len(tensors)].data.mul_(example.factor)
        loss.backward()
    assert watch.report is not None
    assert watch.report.problems == ()
    found = [one for one in watch.report.findings if one.code == CODE]
    return [torch.zeros(()) if p.grad is None else p.grad for p in net.parameters()], found


def check(example: Example) -> bool:
    """Hold one example against its word; whether the change mattered."""
    right, silent = gradients(example, change=False)
    assert silent == []
    wrong, told = gradients(example, change=True)
    if not told and _same(right, wrong):
        return False
    if _same(right, wrong):
        # A dead relu, or rows that are all the same, hide a change that other data show.
        others = (replace(example, seed=example.seed + 1 + more) for more in range(5))
        assert not all(_same(*(gradients(one, change)[0] for change in (False, True))) for one in others)
        return False
    # A gradient that is nought beside its neighbours may move by rounding alone.
    scale = max(float(one.norm()) for one in right)
    gap = max(float((a - b).norm()) for a, b in zip(right, wrong, strict=True))
    if gap > 1e-3 * scale:
        assert told
        assert all(one.severity == "error" for one in told)
        assert all("mul_(example.factor)" in one.message for one in told)
    return True


def _same(right: list[Tensor], wrong: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(right, wrong, strict=True))


def run(count: int, start: int = 0) -> int:
    """Check `count` examples, the same ones from the same `start`; how many of the changes mattered."""
    mattered = 0

    @seed(start)
    @settings(
        max_examples=count, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )  # fmt: skip
    @given(examples)
    def one(example: Example) -> None:
        nonlocal mattered
        mattered += check(example)

    one()
    return mattered


def test_random_nets() -> None:
    assert run(SHORT) > SHORT // 8


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_many_random_nets(part: int) -> None:
    """In parts, so that each ends well before a test counts as hanging."""
    assert run(LONG // PARTS, part + 1) > LONG // PARTS // 8
