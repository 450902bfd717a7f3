from __future__ import annotations

import sys
from typing import Any

import torch
from torch import nn

from explorer.names import collect
from explorer.trace import trace


def leaf_names(root: torch.Tensor, frame: Any = None, **options: Any) -> dict[tuple[str, ...], str]:
    """Names and role of every leaf."""
    graph = trace([root], names=collect(frame, **options)).graph
    return {node.names: node.role for node in graph.leaves()}


def test_one_module_gives_plain_paths() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1))
    found = leaf_names(model(torch.ones(1, 2)).sum(), modules=[model])
    assert found == {(name,): "parameter" for name, _ in model.named_parameters()}


def test_several_root_modules_are_told_apart_by_their_variable() -> None:
    encoder, decoder = nn.Linear(2, 2, bias=False), nn.Linear(2, 1, bias=False)
    loss = decoder(encoder(torch.ones(1, 2))).sum()
    found = leaf_names(loss, scopes=[{"encoder": encoder, "decoder": decoder}])
    assert set(found) == {("encoder.weight",), ("decoder.weight",)}


def test_a_part_in_a_variable_is_no_second_root() -> None:
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    head = model[0]
    found = leaf_names(model(torch.ones(1, 2)).sum(), scopes=[{"model": model, "head": head}])
    assert set(found) == {("0.weight",)}


def test_tied_weights_show_every_name() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(5, 3), "head": nn.Linear(3, 5, bias=False)})
    model["head"].weight = model["embed"].weight
    loss = model["head"](model["embed"](torch.tensor([1]))).sum()
    assert set(leaf_names(loss, modules=[model])) == {("embed.weight", "head.weight")}


def test_variables_containers_and_intermediates_of_the_calling_frame() -> None:
    params = [torch.ones(2, requires_grad=True)]
    table = {"b": torch.ones(2, requires_grad=True)}
    x = torch.ones(2, requires_grad=True)
    hidden = params[0] * x
    loss = (hidden + table["b"]).sum()
    graph = trace([loss], names=collect(sys._getframe())).graph
    assert {node.names for node in graph.leaves()} == {("params[0]",), ("table['b']",), ("x",)}
    assert [node.label for node in graph.nodes if node.kind == "op"] == ["loss", "Add", "hidden"]


def test_the_optimizer_makes_a_parameter() -> None:
    w, x = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    scope = {"w": w, "x": x, "optimizer": torch.optim.SGD([w], lr=0.1)}
    assert leaf_names((w * x).sum(), scopes=[scope]) == {("w",): "parameter", ("x",): "input"}


def test_no_code_of_the_user_runs() -> None:
    class Trap:
        def __getattribute__(self, name: str) -> Any:
            raise AssertionError(f"{name} was read")

        def __repr__(self) -> str:
            raise AssertionError("repr was taken")

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(2))

        def named_parameters(self, *args: Any, **options: Any) -> Any:
            raise AssertionError("named_parameters was called")

        @property
        def weight(self) -> torch.Tensor:
            raise AssertionError("a property was read")

    model = Model()
    scope = {"trap": Trap(), "traps": [Trap()], "self": Trap(), "model": model}
    assert set(leaf_names((model.w * 2).sum(), scopes=[scope])) == {("w",)}


def test_reading_a_frame_keeps_nothing_alive() -> None:
    def work() -> int:
        big = torch.ones(2, requires_grad=True) * 2
        before = sys.getrefcount(big)
        collect(sys._getframe())
        return sys.getrefcount(big) - before

    assert work() == 0


def test_the_users_own_locals_stay() -> None:
    x = torch.ones(2, requires_grad=True)
    mine = locals()
    collect(sys._getframe())
    assert mine["x"] is x


def test_a_view_of_a_changed_base_is_named_without_a_crash() -> None:
    x = torch.ones(4, requires_grad=True)
    base = x.clone()
    view = base[:2]
    base.mul_(2)
    names = collect(sys._getframe())
    assert names.of_result(view.grad_fn, 0) == ("view",)
