"""Tensor memory to an engine leaf, without a copy.

``(c_type * n).from_address(data_ptr)`` reads the tensor's own memory; the ctypes object holds the tensor,
so that the memory cannot dangle while a leaf looks at it. A small tensor elsewhere (CUDA) is copied to the
CPU, a large one where it is read (`explorer.pages`).
"""

from __future__ import annotations

import ctypes
from functools import partial
from typing import Any

import torch

from explorer.engine.array import Array
from explorer.engine.elementwise import Full, Missing
from explorer.engine.leaf import Leaf
from explorer.engine.memory import ITEM_FORMATS
from explorer.pages import Pages
from explorer.sparse import entries_of
from hooks.memory import has_address, has_memory

_NAMES = {getattr(torch, name): name for name in ITEM_FORMATS if hasattr(torch, name)}

LARGE = 1 << 22
"""Bytes above which a tensor of a device is not copied as a whole before anybody reads it."""


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name of a dtype without the ``torch.`` prefix."""
    return _NAMES.get(dtype) or str(dtype).removeprefix("torch.")


def leaf_of(tensor: torch.Tensor, copied: int = 0) -> Array:
    """An engine array that reads `tensor`; `Missing` with the reason where its memory cannot be read.

    The leaf keeps `tensor` alive: drop it soon. One of at most `copied` elements is read at once instead:
    a list of so few numbers is had sooner than a view of the memory.
    """
    if tensor.layout is not torch.strided:
        return entries_of(tensor, leaf_of)
    name = _NAMES.get(tensor.dtype)
    problem = _unreadable(tensor, name)
    if problem:
        return Missing(problem)
    shape = tuple(tensor.shape)
    if 0 in shape:
        return Full(0.0, shape)
    if tensor._is_zerotensor():  # torch.func's zeros
        return Full(0j if tensor.is_complex() else 0.0, shape)
    if not has_address(tensor) or not has_memory(tensor):
        return Missing("its memory is not allocated (fake, or a parameter that FSDP has resharded)")
    if copied and tensor.numel() <= copied and type(tensor) is torch.Tensor and tensor.is_cpu:
        return Leaf(tensor.flatten().tolist(), shape, dtype=name or "")
    assert name is not None  # `_unreadable` has refused unknown dtypes
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.detach().resolve_conj().resolve_neg()
    strides, address = tensor.stride(), tensor.data_ptr()
    reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if tensor.device.type != "cpu":
        flat = tensor.detach().as_strided((reach,), (1,), tensor.storage_offset())
        if reach * tensor.element_size() > LARGE:
            items = torch.view_as_real(flat).view(-1) if flat.is_complex() else flat
            return Leaf(Pages(items, partial(_items, name)), shape, strides, 0, name, address=address)
        return Leaf(_items(name, flat.cpu(), tensor), shape, strides, 0, name, address=address)
    return Leaf(_items(name, tensor, reach=reach), shape, strides, 0, name, address=address)


def _items(name: str, tensor: torch.Tensor, owner: Any = None, reach: int = 0) -> memoryview:
    """The memory of a CPU tensor of dtype `name`, which stays alive with it, and `owner` too.

    Args:
        reach: how many elements of it, where it is not simply all of a contiguous one.
    """
    size = (reach or tensor.numel()) * tensor.element_size()
    block = (ctypes.c_char * size).from_address(tensor.data_ptr())
    block.owner = tensor, owner  # type: ignore[attr-defined]  # ctypes arrays take attributes
    memory: Any = memoryview(block).cast("B")
    items: memoryview = memory.cast(ITEM_FORMATS[name])
    return items


def _unreadable(tensor: torch.Tensor, name: str | None) -> str:
    """Why the memory of `tensor` cannot be read, "" when it can."""
    if tensor.is_nested:
        return "a nested tensor has no strided memory"
    if tensor.is_quantized or name is None:
        return f"dtype {str(tensor.dtype).removeprefix('torch.')} is not read"
    if tensor.device.type == "meta":
        return "a meta tensor has no memory"
    if torch._C._functorch.is_functorch_wrapped_tensor(tensor):
        return "a tensor inside vmap or grad has no memory of its own"
    return ""


def value_of(value: Any) -> Any:
    """A saved value as a rule sees it: tensors as arrays, lists of tensors as lists, the rest as it is."""
    if isinstance(value, torch.Tensor):
        return leaf_of(value)
    if isinstance(value, (tuple, list)) and any(isinstance(one, torch.Tensor) for one in value):
        return [value_of(one) for one in value]
    if isinstance(value, torch.dtype):
        return dtype_name(value)
    return value
