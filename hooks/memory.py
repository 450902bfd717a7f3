"""A tensor's memory: which storage it lies on, and whether its elements can be read at all.

There may be no storage to ask for. Sparse, compressed and mkldnn tensors, and those that ``torch.func`` wraps
inside vmap and grad, raise `NotImplementedError` ("Cannot access storage of BatchedTensorImpl"), which is a
`RuntimeError`; the parameter of a lazy module that has not run yet raises `ValueError`. Fake, meta and zero
tensors have a storage that claims the bytes and holds none: only reading their elements raises, a
`RuntimeError` too. FSDP gives the memory of parameters back between uses: nothing raises, reading crashes.
"""

from __future__ import annotations

import torch


def _storage(tensor: torch.Tensor) -> torch.UntypedStorage | None:
    try:
        return tensor.untyped_storage()
    except (RuntimeError, ValueError):  # as the module's docstring says
        return None


def storage_of(tensor: torch.Tensor) -> int | None:
    """The address of the tensor's storage object, by which those that share it are told; None without one."""
    storage = _storage(tensor)
    return None if storage is None else int(storage._cdata)


def has_memory(tensor: torch.Tensor) -> bool:
    """Whether the storage of a strided tensor holds all its elements; reading one that does not crashes.

    ``storage.resize_(0)`` leaves shape, strides and offset as they were, and ``data_ptr()`` need not be 0.
    True for a tensor without elements, and for fake, meta and zero tensors, which refuse to be read.
    """
    storage = _storage(tensor)
    if storage is None:
        return tensor.numel() == 0
    size = storage.nbytes()
    if tensor.is_contiguous():
        reach = tensor.numel()
    else:
        reach = 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
    return not reach or (tensor.storage_offset() + reach) * tensor.element_size() <= size


def has_address(tensor: torch.Tensor) -> bool:
    """Whether there is a place in memory where the storage begins: fake tensors and wrappers have none.

    ``data_ptr()`` does not tell: of a fake tensor's slice it is the distance from its beginning, not 0, and
    asking a fake tensor for it warns.
    """
    storage = None if type(tensor).__name__ == "FakeTensor" else _storage(tensor)
    try:
        return storage is not None and storage.data_ptr() != 0
    except RuntimeError:  # as torch refuses it for zeros without memory
        return False


def runs_python(tensor: torch.Tensor) -> bool:
    """Whether operations on `tensor` run a ``__torch_dispatch__`` of the user's, who could notice them."""
    kind = type(tensor)
    return (
        kind is not torch.Tensor
        and kind.__torch_dispatch__ is not torch.Tensor.__torch_dispatch__
        and not kind.__module__.startswith("torch.")
    )
