"""Memory that is brought over where it is read holds what memory beside it holds."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from explorer import convert, pages
from explorer.engine.leaf import Leaf
from explorer.engine.rounding import rounding_of
from explorer.engine.run import Run
from explorer.pages import Pages

COUNT = 10_000
NUMBERS = list(range(COUNT))


def pages_of(fetches: int) -> Pages:
    """0, 1, 2, ... as 64-bit integers, copied as a whole at the fetch after so many."""
    found = Pages(torch.arange(COUNT), partial(convert._items, "int64"))
    found._fetches = fetches
    return found


@given(
    st.lists(
        st.one_of(
            st.integers(0, COUNT - 1),
            st.builds(slice, st.integers(0, COUNT), st.integers(0, COUNT), st.integers(1, 5000)),
            st.lists(st.integers(0, COUNT - 1), min_size=1, max_size=20),
        ),
        max_size=12,
    ),
    st.integers(0, 12),
)
def test_every_way_of_reading_gives_the_same(reads: list[int | slice | list[int]], fetches: int) -> None:
    memory = pages_of(fetches)
    for read in reads:
        if isinstance(read, int):
            assert memory[read] == NUMBERS[read]
        elif isinstance(read, slice):
            assert memory[read].tolist() == NUMBERS[read]
        else:
            assert memory.many(read) == [NUMBERS[place] for place in read]


def test_what_is_read_often_comes_over_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def noted(tensor: torch.Tensor) -> memoryview:
        sizes.append(tensor.numel())
        return convert._items("int64", tensor)

    monkeypatch.setattr(pages, "BYTES_PER_FETCH", 8 * COUNT // 3)
    memory = Pages(torch.arange(COUNT), noted)
    for start in range(10):
        assert memory[start : start + 5].tolist() == NUMBERS[start : start + 5]
        assert memory[start + 5000] == start + 5000
    assert sizes == [5, pages.PAGE, 5, COUNT]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.complex64, torch.bool])
def test_a_leaf_on_such_memory_reads_the_tensor(dtype: torch.dtype) -> None:
    tensor = torch.randn(6, 50, dtype=torch.complex64 if dtype.is_complex else torch.float32).to(dtype).t()
    flat = tensor.as_strided((300,), (1,))
    items = torch.view_as_real(flat).view(-1) if dtype.is_complex else flat
    name = convert.dtype_name(dtype)
    far = Leaf(Pages(items, partial(convert._items, name)), tensor.shape, tensor.stride(), dtype=name)
    near = convert.leaf_of(tensor)
    run = Run(rounding_of(["float64"]), bounds=False)
    for box in ((range(50), range(6)), (range(3, 50, 7), (0, 4, 5)), ((2,), range(6))):
        assert far.eval(box, run) == near.eval(box, run)
    coords = [[0, 49, 7], [5, 0, 3]]
    assert far.at(coords, 3, run) == near.at(coords, 3, run)
