"""Sparse tensors: read as they are, and the rules of what makes and multiplies them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from explorer.check import Checker
from explorer.convert import leaf_of
from explorer.engine import registry
from explorer.engine.elementwise import Missing
from explorer.engine.entries import Entries
from explorer.report import Verdict
from explorer.trace import trace
from hooks.nodes import capture

pytestmark = pytest.mark.filterwarnings("ignore")  # torch calls its compressed layouts experimental

PLACES = torch.tensor([[0, 2, 2, 0, 3], [1, 0, 2, 1, 3]])


def coo(*dense: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Uncoalesced: place (0, 1) occurs twice."""
    torch.manual_seed(0)
    values = torch.randn(5, *dense, dtype=dtype)
    return torch.sparse_coo_tensor(PLACES, values, (4, 5, *dense), check_invariants=True)


TENSORS: dict[str, Callable[[], Tensor]] = {
    "coo": coo,
    "coalesced": lambda: coo().coalesce(),
    "hybrid": lambda: coo(3),
    "complex": lambda: coo(dtype=torch.complex64),
    "csr": lambda: coo().coalesce().to_sparse_csr(),
    "csc": lambda: coo().coalesce().to_sparse_csc(),
    "empty": lambda: torch.zeros(3, 4).to_sparse(),
    "one axis": lambda: torch.tensor([0.0, 2.0, 0.0, 3.0]).to_sparse(),
}


@pytest.mark.parametrize("name", TENSORS)
def test_a_sparse_tensor_reads_as_its_dense_self(name: str) -> None:
    tensor = TENSORS[name]()
    array = leaf_of(tensor)
    assert isinstance(array, Entries)
    assert array.shape == tuple(tensor.shape)
    dense = tensor.to_dense()
    assert array.values() == pytest.approx(dense.flatten().tolist())
    assert [bool(one) for one in array.stored.values()] == (dense != 0).flatten().tolist()


def test_layouts_that_are_not_read_say_so() -> None:
    found = leaf_of(torch.eye(4).to_sparse_bsr((2, 2)))
    assert isinstance(found, Missing)
    assert "sparse_bsr" in found.reason


def adjacency() -> Tensor:
    return coo().coalesce()


PROGRAMS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "matrix product": ("SparseAddmmBackward0", lambda x: torch.sparse.mm(adjacency(), x)),
    "matrix product, scaled": (
        "SparseAddmmBackward0",
        lambda x: torch.sparse.addmm(x[:4, :3] * 1, adjacency(), x, beta=2, alpha=3),
    ),
    "to sparse and back": ("ToSparseBackward0", lambda x: x.relu().to_sparse(2).to_dense() * x),
    "to dense": ("ToDenseBackward0", lambda x: x.relu().to_sparse().to_dense() * x),
    "embedding, sparse": (
        "EmbeddingBackward0",
        lambda x: nn.functional.embedding(torch.tensor([1, 3, 1]), x, sparse=True).square(),
    ),
}


def checked(function: Callable[[Tensor], Tensor]) -> dict[str, list[Verdict]]:
    torch.manual_seed(1)
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    result = function(x)
    found = trace([result])
    checker = Checker(found, "full")
    with capture(found.live, checker.observe) as watching:
        result.backward(torch.randn_like(result))
    assert watching.problem == ""
    verdicts: dict[str, list[Verdict]] = {}
    for one in checker.finish()[0]:
        verdicts.setdefault(found.graph.nodes[one.node].name, []).append(one)
    return verdicts


@pytest.mark.parametrize("name", PROGRAMS)
def test_agrees_with_torch(name: str) -> None:
    node, function = PROGRAMS[name]
    verdicts = checked(function)
    assert node in verdicts
    assert {one.status for row in verdicts.values() for one in row} == {"match"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_planted_wrong_rule_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    node, function = PROGRAMS[name]
    rule = registry._RULES[node]

    def wrong(n: Any, *g: Any) -> list[Any]:
        return [None if one is None else one * 1.0001 for one in rule.function(n, *g)]

    monkeypatch.setitem(registry._RULES, node, registry.Rule(rule.names, wrong))
    assert "mismatch" in {one.status for one in checked(function)[node]}


@pytest.mark.parametrize("dense", [True, False])
def test_a_sampled_product_of_what_arrives_dense(dense: bool) -> None:
    torch.manual_seed(2)
    pattern = adjacency().to_sparse_csr().requires_grad_()
    rows, columns = pattern.shape
    left, right = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in ((rows, 2), (2, columns))
    )
    product = torch.sparse.sampled_addmm(pattern, left, right, beta=0.3, alpha=2)
    loss = product.sum() if dense else product.to_dense().square().sum()
    found = trace([loss])
    checker = Checker(found, "full")
    with capture(found.live, checker.observe) as watching:
        loss.backward()
    assert watching.problem == ""
    assert {one.status for one in checker.finish()[0]} == {"match"}


def test_a_sparse_leaf_gets_its_gradient_checked() -> None:
    matrix = adjacency().requires_grad_()
    loss = torch.sparse.mm(matrix, torch.randn(5, 3, dtype=torch.float64)).square().sum()
    found = trace([loss])
    checker = Checker(found)
    with capture(found.live, checker.observe) as watching:
        loss.backward()
    assert watching.problem == ""
    assert {one.status for one in checker.finish()[0]} == {"match"}
