"""Tensor memory to an engine leaf, without a copy.

``(c_type * n).from_address(data_ptr)`` reads the tensor's own memory; the ctypes object holds the tensor,
so that the memory cannot dangle while a leaf looks at it. A tensor elsewhere (CUDA) is copied to the CPU.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch

from explorer.engine.array import Array
from explorer.engine.elementwise import Full, Missing
from explorer.engine.leaf import Leaf
from explorer.engine.memory import ITEM_FORMATS
from explorer.sparse import entries_of
from hooks.memory import has_memory

_NAMES = {getattr(torch, name): name for name in ITEM_FORMATS if hasattr(torch, name)}


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
    if tensor.data_ptr() == 0 and tensor._is_zerotensor():  # torch.func's zeros
        return Full(0j if tensor.is_complex() else 0.0, shape)
    if tensor.data_ptr() == 0 or not has_memory(tensor):
        return Missing("its memory is not allocated (fake, or a parameter that FSDP has resharded)")
    if copied and tensor.numel() <= copied and type(tensor) is torch.Tensor and tensor.is_cpu:
        return Leaf(tensor.flatten().tolist(), shape, dtype=name or "")
    if tensor.device.type != "cpu":
        tensor = tensor.detach().cpu()
    if tensor.is_conj() or tensor.is_neg():
        tensor = tensor.detach().resolve_conj().resolve_neg()
    assert name is not None  # `_unreadable` has refused unknown dtypes
    strides = tensor.stride()
    pointer = tensor.data_ptr()
    reach = 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    block = (ctypes.c_char * (reach * tensor.element_size())).from_address(pointer)
    block.owner = tensor  # type: ignore[attr-defined]  # ctypes arrays take attributes: keeps the memory alive
    memory = memoryview(block).cast("B").cast(ITEM_FORMATS[name])  # type: ignore[call-overload]  # a valid format
    return Leaf(memory, shape, strides, 0, name, address=pointer)


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
