"""Sparse tensors to engine arrays: COO, coalesced or not, hybrid or not, CSR and CSC."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from explorer.engine.array import Array
from explorer.engine.elementwise import Missing
from explorer.engine.entries import Entries

LARGEST = 200_000
"""Tensors of more entries are not read: each one's place is a tuple of Python."""

_LAYOUTS = (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)


def entries_of(tensor: torch.Tensor, read: Callable[[torch.Tensor], Array]) -> Array:
    """What a tensor without strides holds; `read` reads its values. `Missing` with the reason."""
    name = str(tensor.layout).removeprefix("torch.")
    if tensor.layout not in _LAYOUTS or (tensor.layout is not torch.sparse_coo and tensor.dim() != 2):
        return Missing(f"a {name} tensor has no strided memory")
    tensor = tensor.detach()
    try:
        count = tensor._nnz()
        if count > LARGEST:
            return Missing(f"a {name} tensor of {count} entries is too large for pure Python")
        places, values = _entries(tensor)
        held = read(values)
        return held if isinstance(held, Missing) else Entries(tensor.shape, places, held)
    except RuntimeError as problem:
        return Missing(f"a {name} tensor cannot be read: {problem}")


def _entries(tensor: torch.Tensor) -> tuple[Iterator[tuple[int, ...]], torch.Tensor]:
    """The places of all entries, and their values along a first axis."""
    if tensor.layout is torch.sparse_coo:
        values = tensor._values()
        indices = tensor._indices()
        if not indices.shape[0]:  # all axes are dense
            return iter([()] * values.shape[0]), values
        return zip(*indices.tolist(), strict=True), values
    rows = tensor.layout is torch.sparse_csr
    starts = (tensor.crow_indices() if rows else tensor.ccol_indices()).tolist()
    others = (tensor.col_indices() if rows else tensor.row_indices()).tolist()
    lines = [line for line in range(len(starts) - 1) for _ in range(starts[line], starts[line + 1])]
    return (zip(lines, others, strict=True) if rows else zip(others, lines, strict=True)), tensor.values()
