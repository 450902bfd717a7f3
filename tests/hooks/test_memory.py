"""Tensors whose storage was given back are told from those that can be read, before anybody reads them."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch._subclasses import FakeTensorMode

from explorer.convert import leaf_of
from explorer.engine.elementwise import Full, Missing
from explorer.known import small
from hooks.memory import has_memory, storage_of


@pytest.mark.parametrize(
    "tensor",
    [
        torch.randn(3),
        torch.randn(()),
        torch.randn(0, 3),
        torch.randn(4, 5)[1:3, 2:].t(),
        torch.randn(3, 1).expand(3, 7),
        torch.randn(2, 3, dtype=torch.complex64).conj(),
    ],
)
def test_tensors_that_can_be_read(tensor: torch.Tensor) -> None:
    assert has_memory(tensor)
    assert not isinstance(leaf_of(tensor), Missing)
    assert small(tensor) is not None


@pytest.mark.parametrize(
    "view",
    [
        lambda x: x,
        lambda x: x[2:8].view(2, 3),  # a parameter at an offset: its pointer is not 0
        lambda x: x[2:8].view(2, 3).t(),
        lambda x: x[4:].view(2, 3).as_strided((2, 2), (3, 1)),
    ],
)
@pytest.mark.parametrize("kept", [0, 3])
def test_memory_that_was_given_back_is_not_read(view: object, kept: int) -> None:
    base = torch.arange(10.0)
    tensor = view(base)  # type: ignore[operator]  # the functions above
    base.untyped_storage().resize_(4 * kept)
    assert not has_memory(tensor)
    assert isinstance(leaf_of(tensor), Missing)
    assert small(tensor) is None


def test_zeros_without_memory_are_zeros() -> None:
    zeros = torch._efficientzerotensor((3, 2))
    found = leaf_of(zeros)
    assert isinstance(found, Full)
    assert (found.value, found.shape) == (0.0, (3, 2))
    assert small(zeros) is None


def test_tensors_without_a_storage_of_their_own() -> None:
    with FakeTensorMode():
        fake = torch.empty(3)
    assert small(fake) is None
    assert not has_memory(torch.eye(3).to_sparse())


def test_a_storage_is_told_by_its_address_or_there_is_none() -> None:
    """Every kind of tensor that has no storage to ask for, each with an exception of its own."""
    dense = torch.arange(6.0).view(2, 3)
    assert storage_of(dense) == storage_of(dense[1:].t()) != storage_of(dense.clone())
    freed = torch.ones(3)
    freed.untyped_storage().resize_(0)
    assert storage_of(freed) is not None  # FSDP gives the bytes back, not the storage
    assert storage_of(dense.to_sparse()) is None
    assert storage_of(torch.eye(4).to_sparse_coo()) is None
    assert storage_of(nn.LazyLinear(2).weight) is None
    inside: list[int | None] = []
    torch.vmap(lambda row: (inside.append(storage_of(row)), row)[1])(dense)
    torch.func.grad(lambda x: (inside.append(storage_of(x)), x.sum())[1])(dense)
    assert inside == [None, None]
