"""Whether a tensor's elements can be read at all: FSDP gives the memory of parameters back between uses."""

from __future__ import annotations

import torch


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether the storage of a strided tensor holds all its elements; reading one that does not crashes.

    ``storage.resize_(0)`` leaves shape, strides and offset as they were, and ``data_ptr()`` need not be 0.
    True for a tensor without elements. A zero tensor of torch.func, fake and meta tensors have none.
    """
    try:
        size = tensor.untyped_storage().nbytes()
    except (RuntimeError, NotImplementedError):  # no storage: sparse, functional
        return tensor.numel() == 0
    if tensor.is_contiguous():
        return (
            tensor.storage_offset() + tensor.numel()
        ) * tensor.element_size() <= size or not tensor.numel()
    reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return (tensor.storage_offset() + reach) * tensor.element_size() <= size
