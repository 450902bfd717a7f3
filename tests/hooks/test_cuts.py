"""Where values leave the graph: each way is seen, with its line and the leaves behind it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
import torch
from torch import nn

from hooks.cuts import Cuts
from hooks.handles import Handles


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.spare = nn.Linear(3, 3), nn.Linear(3, 3)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            print(self.spare.weight.shape, end="")
            h = self.encoder(x) * self.scale
            y: torch.Tensor = h + 1
        return y * 2


def seen(action: Callable[[], object]) -> Cuts:
    cuts = Cuts()
    with Handles() as handles:
        cuts.attach(handles)
        action()
    return cuts


def exits(cuts: Cuts, leaf: torch.Tensor) -> list[tuple[str, int]]:
    """How and at which line, counted from the function's first, something computed from `leaf` left."""
    return [(cut.how, cut.place.line - cut.place.code.co_firstlineno) for cut in cuts.exits_of(leaf)]


@pytest.mark.parametrize(
    ("how", "leave"),
    [
        ("detach", lambda h: h.detach()),
        ("data", lambda h: h.data),
        ("item", lambda h: h.sum().item()),
        ("tolist", lambda h: h.tolist()),
    ],
)
def test_each_way_out_is_seen_with_its_leaf(how: str, leave: Callable[[torch.Tensor], object]) -> None:
    used, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    cuts = seen(lambda: (leave(used * 2), other * 3))
    assert {one for one, _ in exits(cuts, used)} == {how}
    assert exits(cuts, other) == []


def test_a_parameter_read_through_data_is_no_exit() -> None:
    weight = torch.ones(2, requires_grad=True)

    def update() -> None:
        weight.data -= 0.5
        weight.data = weight.data * 2

    assert exits(seen(update), weight) == []
    assert weight.tolist() == [1.0, 1.0]
    assert "data" not in vars(torch.Tensor)


def test_what_torch_itself_reads_of_a_parameter_is_no_exit() -> None:
    net = Net()
    cuts = seen(lambda: (net.state_dict(), copy.deepcopy(net)))
    assert all(exits(cuts, parameter) == [] for parameter in net.parameters())
    assert exits(seen(lambda: net.scale.detach() * 2), net.scale) == [("detach", 0)]


def test_a_block_without_gradients_tells_what_its_names_are_made_of(
    capsys: pytest.CaptureFixture[str],
) -> None:
    net = Net()
    cuts = seen(lambda: net(torch.ones(1, 3)))
    assert exits(cuts, net.scale) == [("no_grad", 3), ("no_grad", 3)]  # `h`, and `y` which is made of it
    assert exits(cuts, net.spare.weight) == []  # its shape only
    assert ("no_grad", 3) in exits(cuts, net.encoder.weight)


def test_a_block_that_makes_nothing_of_a_leaf_is_no_exit() -> None:
    weight, x = torch.ones(2, requires_grad=True), torch.ones(2)

    def block() -> torch.Tensor:
        with torch.inference_mode():
            target = x * 2
        with torch.no_grad():
            weight.add_(1)
            size = weight.shape[0] * x
        return target + size

    assert exits(seen(block), weight) == []


def test_the_leaves_of_a_value_bound_under_no_grad_feed_a_graph() -> None:
    weight, head = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    cuts = Cuts()
    with Handles() as handles:
        cuts.attach(handles)
        with torch.no_grad():
            h = torch.relu(weight * 3)
        loss = (h * head).sum()
        found = cuts.feeding([loss.grad_fn, loss.grad_fn.next_functions[0][0]], [loss])  # type: ignore[union-attr]  # it has one
    assert [(cut.how, [ref() is weight for ref in cut.leaves], node) for cut, node in found] == [
        ("no_grad", [True], 1)
    ]


def test_the_users_variables_stay_in_place_and_are_not_held() -> None:
    def block() -> tuple[dict[str, Any], torch.Tensor]:
        w = torch.ones(2, requires_grad=True)
        mine = locals()
        with torch.no_grad():
            h = w * 2
        return mine, h

    held: list[dict[str, Any]] = []
    seen(lambda: held.append(block()[0]))
    assert "w" in held[0]


def test_what_is_patched_is_put_back() -> None:
    names = ("detach", "detach_", "item", "tolist", "data")
    before = {name: vars(torch.Tensor).get(name) for name in names}
    leave = torch.no_grad.__exit__
    seen(lambda: None)
    assert {name: vars(torch.Tensor).get(name) for name in names} == before
    assert torch.no_grad.__exit__ is leave


def test_a_compiled_function_still_compiles_whole() -> None:
    weight = torch.ones(3, requires_grad=True)

    def step(x: torch.Tensor) -> torch.Tensor:
        h = x * weight
        with torch.no_grad():
            y = h * 2
        return h.data + y + h.detach() + h

    compiled: Any = torch.compile(step, backend="eager", fullgraph=True)
    x = torch.arange(3.0)
    cuts = Cuts()
    with Handles() as handles:
        cuts.attach(handles)
        result = compiled(x)
    assert result.tolist() == step(x).tolist()
    torch._dynamo.reset()


def test_a_failing_look_ends_looking_and_not_the_block(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[FrameType] = []

    def broken(self: object, frame: FrameType) -> None:
        calls.append(frame)
        raise KeyError("planted")

    monkeypatch.setattr("hooks.blocks.Blocks._look", broken)

    def two_blocks() -> None:
        for _ in range(2):
            with torch.no_grad():
                pass

    seen(two_blocks)
    assert len(calls) == 1
