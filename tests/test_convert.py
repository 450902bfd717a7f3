"""Tensor memory read in place: every dtype and stride torch has on the CPU."""

from __future__ import annotations

import tracemalloc
import warnings

import pytest
import torch

from explorer.convert import leaf_of
from explorer.engine.elementwise import Missing
from explorer.sparse import LARGEST

DTYPES = [
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64, torch.complex128,
    torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_reads_as_torch_does(dtype: torch.dtype) -> None:
    tensor = torch.tensor([[0, 1, 2.5], [3, -4.75, 100]])
    tensor = (tensor * (1 + 2j)).to(dtype) if dtype.is_complex else tensor.abs().to(dtype)
    assert leaf_of(tensor).values() == tensor.flatten().tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_all_half_numbers(dtype: torch.dtype) -> None:
    tensor = torch.arange(65536, dtype=torch.int32).to(torch.uint16).view(dtype)
    ours, theirs = leaf_of(tensor).values(), tensor.tolist()
    assert all(a == b or (a != a and b != b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t,
        lambda t: t.permute(2, 0, 1),
        lambda t: t[1:, ::2, 1],
        lambda t: t[:, :1].expand(-1, 5, -1),
        lambda t: t.transpose(0, 2)[3:, 1:],
        lambda t: t.as_strided((2, 3), (1, 2), 4),
        lambda t: t[0, 0, 0],
    ],
)
def test_any_strides_without_a_copy(view: object) -> None:
    base = torch.randn(3, 4, 5)
    tensor = view(base)  # type: ignore[operator]  # a function of the table above
    leaf = leaf_of(tensor)
    assert leaf.shape == tuple(tensor.shape)
    assert leaf.values() == tensor.flatten().tolist()
    base.mul_(2)
    assert leaf.values() == tensor.flatten().tolist()


def test_a_lazy_conjugate_is_resolved() -> None:
    tensor = torch.tensor([1 + 2j, 3 - 1j]).conj()
    assert tensor.is_conj()
    assert leaf_of(tensor).values() == tensor.tolist()


def test_channels_last() -> None:
    tensor = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    assert leaf_of(tensor).values() == tensor.flatten().tolist()


@pytest.mark.parametrize(
    ("tensor", "words"),
    [
        (torch.eye(2).to_mkldnn(), "_mkldnn"),
        (torch.empty(2, device="meta"), "meta"),
    ],
)
def test_what_cannot_be_read_says_why(tensor: torch.Tensor, words: str) -> None:
    leaf = leaf_of(tensor)
    assert isinstance(leaf, Missing)
    assert words in leaf.reason


@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_a_sparse_tensor_too_large_for_python_is_not_listed_first(layout: str) -> None:
    """What is refused for its size costs no list of its places: a backward waits meanwhile."""
    places = torch.arange(LARGEST + 1)
    large = torch.sparse_coo_tensor(
        torch.stack([places, places]), torch.ones(LARGEST + 1), (LARGEST + 1,) * 2, check_invariants=False
    )
    if layout == "csr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch calls the compressed layouts a beta
            large = large.coalesce().to_sparse_csr()
    tracemalloc.start()
    found = leaf_of(large)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, Missing)
    assert "too large" in found.reason
    assert peak < 1_000_000
