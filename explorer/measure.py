"""Reads one gradient tensor: its norm, whether it is finite or zero, and its values when there are few.

Tensors of at most `SMALL` elements are copied out and measured in double precision. Of larger ones one
reduction is taken: the sum of squares, where the elements lie in one piece as the product of the tensor
with itself (two to four times faster than ``vector_norm``, for BLAS uses all threads). Anything more is
computed only when its result asks for it: not finite, or so small that squares may have underflowed. On a
CUDA device nothing is fetched here: the reduction runs in double precision, so that one scalar answers all
three questions, and the scalars come over together when `Pending.fetch` is called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch

from explorer.copies import Copies
from explorer.report import SMALL, GradientRecord, Number
from hooks.memory import runs_python

_UNDERFLOW = 1e-17
"""Below this norm, squares in float32 may have underflowed (the smallest normal is 1.2e-38)."""

_LEAST = {torch.float32: 1e-30, torch.float64: 1e-292}
"""From this mean square on, what squares lose by underflow is below the type's own rounding."""

_HALVES = (torch.float16, torch.bfloat16)
_TINY = tuple(
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
    if hasattr(torch, name)
)

_item: Callable[[torch.Tensor], float] = torch._C.TensorBase.item
_tolist: Callable[[torch.Tensor], list[Number]] = torch._C.TensorBase.tolist
"""As torch has them, without what may be wrapped around ``Tensor.item`` to see the user's calls."""

_PART = 1 << 20
"""So many squares are summed in one go: float32 loses a digit with every hundredfold."""

Receive = Callable[[GradientRecord], None]

_dtype_names: dict[torch.dtype, str] = {torch.float32: "float32", torch.float64: "float64"}


@dataclass(slots=True)
class Pending:
    """Measurements whose numbers are still on a device."""

    norms: list[tuple[torch.Tensor, tuple[int, ...], str, int, Receive]] = field(default_factory=list)
    values: Copies = field(default_factory=Copies)

    def fetch(self) -> None:
        """Bring all numbers over, one transfer per device and dtype, and hand out the records."""
        groups: dict[torch.device, list[tuple[torch.Tensor, tuple[int, ...], str, int, Receive]]] = {}
        for item in self.norms:
            groups.setdefault(item[0].device, []).append(item)
        for items in groups.values():
            norms = torch.stack([item[0] for item in items]).tolist()
            for norm, (_, shape, dtype, numel, receive) in zip(norms, items, strict=True):
                receive(_from_device_norm(norm, shape, dtype, numel))
        self.norms.clear()
        self.values.fetch()


def dtype_name(dtype: torch.dtype) -> str:
    """torch's name without its prefix: "float32"."""
    name = _dtype_names.get(dtype)
    if name is None:
        name = _dtype_names[dtype] = str(dtype).removeprefix("torch.")
    return name


def at_once(tensor: torch.Tensor) -> GradientRecord | None:
    """The record of a plain CPU tensor; None for any other, which is for `measure`.

    Raises:
        RuntimeError: torch cannot read this tensor, for example one batched by vmap.
    """
    if type(tensor) is not torch.Tensor or not tensor.is_cpu or tensor.layout is not torch.strided:
        return None
    dtype = tensor.dtype
    least = _LEAST.get(dtype)
    if least is None or tensor.is_nested or tensor._is_zerotensor():
        return None
    numel = tensor.numel()
    if numel <= SMALL:
        if numel == 1:
            return _from_one(_item(tensor), tuple(tensor.shape), dtype_name(dtype))
        return _from_values(_tolist(tensor.reshape(-1)), tuple(tensor.shape), dtype_name(dtype))
    times = 1
    line: torch.Tensor | None
    if tensor.is_contiguous():
        line = tensor.view(-1)
    else:
        line, times = _in_one_line(tensor)
    if line is not None:
        square = (
            _item(line.dot(line))
            if numel <= _PART
            else math.fsum(_item(part.dot(part)) for part in torch.split(line, _PART))
        ) * times
        if least * numel < square < math.inf:
            return GradientRecord(tuple(tensor.shape), _dtype_names[dtype], math.sqrt(square), numel=numel)
    return _from_large(tensor, tuple(tensor.shape), dtype_name(dtype), numel)


def in_shape_of(tensor: torch.Tensor, other: torch.Tensor, record: GradientRecord) -> GradientRecord | None:
    """The record of `tensor` from that of `other`, if it has the very same elements in memory.

    None where that is not so, and for small ones, whose values stand in another order.
    """
    if record.values is not None or type(tensor) is not torch.Tensor or not tensor.is_cpu:
        return None
    if (
        tensor.layout is not torch.strided
        or other.layout is not torch.strided
        or type(other) is not type(tensor)
    ):
        return None
    if tensor.data_ptr() != other.data_ptr():
        return None
    if tensor.dtype != other.dtype or tensor.numel() != record.numel or tensor.is_nested:
        return None
    if not (tensor.is_contiguous() and other.is_contiguous()) and _steps(tensor) != _steps(other):
        return None
    shape = tuple(tensor.shape)
    if shape == record.shape:
        return record
    if record.finite and not record.zero:
        return GradientRecord(shape, record.dtype, record.norm, numel=record.numel)
    return replace(record, shape=shape)


def _steps(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """(size, stride) of each dimension, in an order that a transpose does not change."""
    return sorted(pair for pair in zip(tensor.shape, tensor.stride(), strict=True) if pair[0] != 1)


def _in_one_line(tensor: torch.Tensor) -> tuple[torch.Tensor | None, int]:
    """All elements as one dimension, in the order of memory, and how often each of them occurs.

    None where they do not lie in one piece.
    """
    times = 1
    for dim, stride in reversed(list(enumerate(tensor.stride()))):
        if stride == 0:  # expanded: the same element all along
            times *= tensor.shape[dim]
            tensor = tensor.select(dim, 0)
    strides = tensor.stride()
    tensor = tensor.permute(sorted(range(len(strides)), key=strides.__getitem__, reverse=True))
    return (tensor.view(-1) if tensor.is_contiguous() else None), times


def measure(tensor: torch.Tensor, pending: Pending, receive: Receive) -> bool:
    """Measure `tensor` and hand the record to `receive`: now, or when `pending` is fetched.

    Sparse gradients are coalesced first, halves are summed in float32, nested ones measured over all
    their elements. A tensor without data (meta, fake) gives nothing.

    Raises:
        RuntimeError: torch cannot read this tensor, for example one batched by vmap, or reading it would run
            somebody's Python.
    """
    record = at_once(tensor)
    if record is not None:
        receive(record)
        return True
    if runs_python(tensor):
        raise RuntimeError(f"reading a {type(tensor).__name__} would run its own __torch_dispatch__")
    shape, dtype = _shape(tensor), dtype_name(tensor.dtype)
    flat = elements(tensor)
    if flat is None:
        return False
    numel = flat.numel() if tensor.is_nested else math.prod(shape)
    if flat.is_cuda:
        if numel <= SMALL:
            sparse = tensor.layout is not torch.strided and not tensor.is_nested
            dense = tensor.to_dense() if sparse else flat
            pending.values.add(dense, lambda numbers: receive(_from_values(numbers, shape, dtype)))
        else:
            norm = torch.linalg.vector_norm(flat, dtype=_widest(flat.dtype))
            pending.norms.append((norm, shape, dtype, numel, receive))
    elif numel <= SMALL:
        sparse = flat is not tensor and tensor.layout is not torch.strided and not tensor.is_nested
        dense = tensor.to_dense() if sparse else flat
        receive(_from_values(dense.reshape(-1).tolist(), shape, dtype))
    else:
        receive(_from_large(flat, shape, dtype, numel))
    return True


def has_data(tensor: torch.Tensor) -> bool:
    """Whether `tensor` is more than a shape and a dtype, as meta and fake tensors are."""
    return not tensor.is_meta and type(tensor).__name__ != "FakeTensor"


def elements(tensor: torch.Tensor) -> torch.Tensor | None:
    """The dense tensor that holds all elements of `tensor` that may differ from zero.

    A strided tensor is returned as it is, and zeros without memory as one zero expanded; None for one
    without data.
    """
    if not has_data(tensor):
        return None
    if tensor._is_zerotensor():  # torch.func's zeros without memory
        return tensor.new_zeros(()).expand(tensor.shape)
    if hasattr(tensor, "_local_tensor"):
        # A DTensor's reductions are collective calls, which would wait for the other ranks.
        tensor = tensor._local_tensor
    if tensor.layout is torch.sparse_coo:
        return tensor.coalesce().values()
    if tensor.layout in (torch.sparse_csr, torch.sparse_csc, torch.sparse_bsr, torch.sparse_bsc):
        return tensor.values()
    if tensor.layout is not torch.strided and not tensor.is_nested:
        return tensor.to_dense()
    if tensor.is_nested:
        return (
            tensor.values()
            if tensor.layout is torch.jagged
            else torch.cat([part.reshape(-1) for part in tensor.unbind()])
        )
    return tensor.float() if tensor.dtype in _TINY else tensor


def _shape(tensor: torch.Tensor) -> tuple[int, ...]:
    """The shape, -1 where a nested tensor's rows differ."""
    if not tensor.is_nested:
        return tuple(tensor.shape)
    return (tensor.size(0), *(-1 for _ in range(tensor.dim() - 1)))


def _widest(dtype: torch.dtype) -> torch.dtype:
    return torch.complex128 if dtype.is_complex else torch.float64


def _from_one(value: float, shape: tuple[int, ...], dtype: str) -> GradientRecord:
    """The record of a single element."""
    if value == 0.0 or not math.isfinite(value):
        return _from_values([value], shape, dtype)
    return GradientRecord(shape, dtype, abs(value), values=(value,))


def _from_values(values: list[Number], shape: tuple[int, ...], dtype: str) -> GradientRecord:
    """The record of a tensor whose every element is here."""
    if values and type(values[0]) is complex:
        parts = [part for value in values for part in (value.real, value.imag)]
    else:
        parts = values  # type: ignore[assignment]  # no complex among them: the elements share one dtype
    norm = math.hypot(*parts)
    if not math.isfinite(norm) or norm == 0.0:
        return _unusual(values, parts, shape, dtype)
    return GradientRecord(shape, dtype, norm, numel=len(values), values=tuple(values))


def _unusual(values: list[Number], parts: list[float], shape: tuple[int, ...], dtype: str) -> GradientRecord:
    """The record of values that are all zero, or not all finite, or too large for their norm."""
    nans = sum(value != value for value in values)
    infs = sum(value == value and math.isinf(abs(value)) for value in values)
    norm = math.nan if nans else math.hypot(*parts)
    return GradientRecord(
        shape,
        dtype,
        norm,
        finite=not (nans or infs),
        zero=bool(values) and not any(values),
        nans=nans,
        infs=infs,
        numel=len(values),
        values=tuple(values),
    )


def _from_large(flat: torch.Tensor, shape: tuple[int, ...], dtype: str, numel: int) -> GradientRecord:
    """The record of a CPU tensor from one reduction, more only if the first asks for it."""
    if flat.dtype in _HALVES:
        norm = torch.linalg.vector_norm(flat, dtype=torch.float32).item()
    else:
        norm = torch.linalg.vector_norm(flat).item()
    if _UNDERFLOW < norm < math.inf:
        return GradientRecord(shape, dtype, norm, numel=numel)
    if norm <= _UNDERFLOW:
        zero = not bool(flat.any())
        if not zero:
            norm = _scaled_norm(flat)
        return GradientRecord(shape, dtype, norm, zero=zero, numel=numel)
    nans = int(flat.isnan().sum())
    infs = int((flat.isinf() & ~flat.isnan()).sum())
    if not (nans or infs):
        norm = _scaled_norm(flat)
    elif nans:
        norm = math.nan
    return GradientRecord(shape, dtype, norm, finite=not (nans or infs), nans=nans, infs=infs, numel=numel)


def _scaled_norm(flat: torch.Tensor) -> float:
    """The norm of finite elements, without overflow or underflow on the way."""
    flat = flat.cpu() if flat.device.type == "mps" else flat  # which has no float64
    largest = flat.abs().max().double()
    return float(largest * torch.linalg.vector_norm(flat.to(_widest(flat.dtype)) / largest))


def _from_device_norm(norm: float, shape: tuple[int, ...], dtype: str, numel: int) -> GradientRecord:
    """The record of a device tensor from its double-precision norm.

    In double precision no float32 square overflows or underflows, so the norm alone tells nan, inf and
    zero apart. How many elements are not finite it does not tell: they are not counted.
    """
    return GradientRecord(
        shape,
        dtype,
        norm,
        finite=math.isfinite(norm),
        zero=norm == 0.0 and numel > 0,
        numel=numel,
    )
