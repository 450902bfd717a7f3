from __future__ import annotations

import gc
import warnings

import pytest
import torch
from torch import nn

from explorer.errors import NothingDifferentiableError
from explorer.graph import Graph, TensorSpec
from explorer.species import plain_name, short_label
from explorer.trace import trace, walk
from tests.exploration import explored
from tests.problems import PROBLEMS, Built


def recursive_count(roots: tuple[torch.Tensor, ...]) -> tuple[int, int]:
    """Nodes and edges, counted another way: a set and recursion."""
    seen: set[object] = set()
    edges = 0

    def visit(node: object) -> None:
        nonlocal edges
        if node in seen:
            return
        seen.add(node)
        for target, _ in node.next_functions:  # type: ignore[attr-defined]  # a live node
            if target is not None:
                edges += 1
                visit(target)

    for root in roots:
        visit(torch.autograd.graph.get_gradient_edge(root).node)
    return len(seen), edges


@pytest.mark.parametrize("name", PROBLEMS)
def test_walk_finds_every_node_and_edge(name: str) -> None:
    built = PROBLEMS[name]()
    graph = walk(*built.roots)
    assert (len(graph.nodes), len(graph.edges)) == recursive_count(built.roots)
    assert [node.id for node in graph.nodes] == list(range(len(graph.nodes)))
    assert len(graph.order) == len(graph.nodes)


@pytest.mark.parametrize("name", PROBLEMS)
def test_edges_are_the_slots_of_next_functions(name: str) -> None:
    found = trace(PROBLEMS[name]().roots)
    for number, node in enumerate(found.live):
        following = node.next_functions
        assert found.graph.arity[number] == len(following)
        expected = [(slot, target, nr) for slot, (target, nr) in enumerate(following) if target is not None]
        edges = [found.graph.edges[index] for index in found.graph.outgoing[number]]
        assert [(e.source_slot, found.live[e.target], e.target_slot) for e in edges] == expected


@pytest.mark.parametrize("name", PROBLEMS)
def test_two_builds_give_equal_graphs(name: str) -> None:
    def stripped(graph: Graph) -> list[object]:
        return [(n.name, n.kind, n.label, n.outputs, n.saved, n.note) for n in graph.nodes] + [graph.edges]

    first, second = (walk(*PROBLEMS[name]().roots) for _ in range(2))
    assert stripped(first) == stripped(second)


def test_the_same_edge_occurs_twice() -> None:
    w = torch.tensor(3.0, requires_grad=True)
    graph = walk(w * w)
    assert [(e.source_slot, e.target) for e in graph.edges] == [(0, 1), (1, 1)]


def test_slots_without_gradient_have_no_edge() -> None:
    graph = walk(torch.ones(2, requires_grad=True) * torch.ones(2))
    assert graph.arity == (2, 0)
    assert len(graph.edges) == 1


def test_roots_repeat_and_may_be_leaves() -> None:
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    assert walk(y, x, y).roots == ((0, 0), (1, 0), (0, 0))


def test_root_slot_of_a_later_output() -> None:
    first, second = torch.ones(4, requires_grad=True).split(2)
    assert walk(second, first).roots == ((0, 1), (0, 0))


@pytest.mark.parametrize(
    "tensors", [(), (torch.ones(2),), (torch.ones(1, requires_grad=True), torch.ones(1))]
)
def test_nothing_differentiable(tensors: tuple[torch.Tensor, ...]) -> None:
    with pytest.raises(NothingDifferentiableError):
        walk(*tensors)


KINDS = {
    "custom_function": ("CubeBackward", "custom", "Cube"),
    "checkpoint_reentrant": ("CheckpointFunctionBackward", "opaque", "CheckpointFunction"),
    "in_place_on_view": ("CopySlices", "opaque", "CopySlices"),
    "foreach": ("ForeachExpBackward0", "op", "ForeachExp"),
    "fan_out": ("AccumulateGrad", "leaf", "leaf"),
    "mlp": ("AddmmBackward0", "op", "Addmm"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kind_and_label(name: str) -> None:
    graph = walk(*PROBLEMS[name]().roots)
    assert KINDS[name] in [(node.name, node.kind, node.label) for node in graph.nodes]


def test_unusual_nodes_say_what_they_hide() -> None:
    (node,) = (n for n in walk(*PROBLEMS["in_place_on_view"]().roots).nodes if n.name == "CopySlices")
    assert node.note == "in-place on a view; hides the operation inside"
    raising = torch._C._functions.DelayedError("no second derivative", 1)(
        torch.ones(1, requires_grad=True) * 2
    )
    assert walk(raising).nodes[0].note == "raises when backward reaches it"


def test_scripted_functions_are_opaque() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch deprecates TorchScript; scripts still use it
        scripted = torch.jit.script(_scripted)
        x = torch.ones(3, requires_grad=True)
        for _ in range(4):
            y = scripted(x)
    node = walk(y).nodes[0]
    assert (node.name, node.kind) == ("DifferentiableGraphBackward", "opaque")


def _scripted(x: torch.Tensor) -> torch.Tensor:
    return x * x + x.sin()


def test_library_operations_are_named() -> None:
    @torch.library.custom_op("walked::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    twice.register_autograd(lambda ctx, grad: grad * 2)
    node = walk(twice(torch.ones(2, requires_grad=True))).nodes[0]
    assert (node.kind, node.label, node.note) == ("custom", "twice", "torch.library operation walked::twice")


def test_outputs_come_from_metadata() -> None:
    parts = torch.ones(2, 6, dtype=torch.float64, requires_grad=True).chunk(3, dim=1)
    spec = TensorSpec((2, 2), "float64")
    assert walk(parts[0].sum()).nodes[1].outputs == (spec, spec, spec)


@pytest.mark.parametrize("layout", [torch.strided, torch.jagged])
def test_nested_tensors_walk(layout: torch.layout) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch calls nested tensors a prototype
        parts = [torch.ones(2, 3), torch.ones(4, 3)]
        nested = torch.nested.nested_tensor(parts, layout=layout, requires_grad=True)
        graph = walk(nested * 2)
    assert [spec.layout for node in graph.nodes for spec in node.outputs if spec] == ["nested", "nested"]


def test_saved_values_share_storage_and_know_their_leaf() -> None:
    w = torch.ones(3, requires_grad=True)
    e = w.exp()
    graph = walk((e * w).sum())
    saved = {(node.name, s.name): s for node in graph.nodes for s in node.saved}
    result, left, right = (
        saved["ExpBackward0", "result"],
        saved["MulBackward0", "self"],
        saved["MulBackward0", "other"],
    )
    assert result.storage == left.storage != right.storage
    assert right.leaf == next(node.id for node in graph.leaves())
    assert (left.bytes, left.spec, left.leaf) == (12, TensorSpec((3,), "float32"), None)


def test_negative_integers_are_signed_again() -> None:
    saved = walk(torch.cat([torch.ones(1, 2, requires_grad=True)] * 2, -1)).nodes[0].saved
    assert [(s.name, s.text) for s in saved] == [("dim", "-1")]


def test_walking_a_checkpoint_does_not_run_it_again() -> None:
    runs = 0

    def body(x: torch.Tensor) -> torch.Tensor:
        nonlocal runs
        runs += 1
        return x.sin() * x

    y = torch.utils.checkpoint.checkpoint(body, torch.ones(2, requires_grad=True), use_reentrant=False)
    problems = {s.problem for node in walk(y).nodes for s in node.saved if s.spec is None and not s.text}
    assert runs == 1
    assert problems == {"checkpointed: computed again while backward runs"}


def test_freed_and_modified_saved_tensors_are_told() -> None:
    x = torch.ones(2, requires_grad=True)
    a = x.exp()
    y = (a * x).sum()
    a.add_(1)
    assert any("modified by an inplace operation" in s.problem for n in walk(y).nodes for s in n.saved)
    z = (x * x).sum()
    z.backward()
    assert any("second time" in s.problem for n in walk(z).nodes for s in n.saved)


def test_user_hooks_are_listed() -> None:
    def halve(grad: torch.Tensor) -> torch.Tensor:
        return grad / 2

    x = torch.ones(2, requires_grad=True)
    x.register_hook(halve)
    x.register_post_accumulate_grad_hook(lambda tensor: None)
    (found,) = walk((x * 2).sum()).leaves()
    assert found.hooks[0].startswith("tensor hook test_user_hooks_are_listed.<locals>.halve")
    assert found.hooks[1].startswith("post-accumulate hook")


@pytest.mark.parametrize(("name", "plain", "label"), [
    ("torch::autograd::CopySlices", "CopySlices", "CopySlices"),
    ("MulBackward0", "MulBackward0", "Mul"),
    ("TanhBackwardBackward0", "TanhBackwardBackward0", "TanhBackward"),
    ("torch::jit::(anonymous namespace)::GraphBackward", "GraphBackward", "Graph"),
    ("torch::autograd::CppNode<mine::Op>", "CppNode<mine::Op>", "CppNode<mine::Op>"),
])  # fmt: skip
def test_plain_names(name: str, plain: str, label: str) -> None:
    assert plain_name(name) == plain
    assert short_label(plain) == label


def test_two_hundred_explorations_leave_nothing() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())

    def once() -> None:
        loss = model(torch.ones(2, 4)).sum()
        explored(Built((loss,), (model,)))

    for _ in range(5):
        once()
    gc.collect()
    before = len(gc.get_objects())
    for _ in range(200):
        once()
    gc.collect()
    assert len(gc.get_objects()) - before < 50
    assert not gc.garbage
