"""Backward nodes of torch that have no rule, and why: the table of what the check leaves out."""

from __future__ import annotations

_SPARSE = "sparse tensors have no strided memory to read"
_STRIDES = "the strides of its input are not saved"

ABSENT: dict[str, str] = {
    "AsStridedBackward0": _STRIDES,
    "AsStridedBackward0_copy": _STRIDES,
    "AsStridedScatterBackward0": _STRIDES,
    "SparseMmReduceImplBackward0": _SPARSE,
    "SparseSampledAddmmBackward0": _SPARSE,
    "ToDenseBackward0": _SPARSE,
    "ToSparseBackward0": _SPARSE,
    "ToSparseBackward1": _SPARSE,
    "CopySlices": "inner function not exposed",
    "GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_defaultBackward": (
        "a fused custom operation"
    ),
    "GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_no_reduction_defaultBackward": (
        "a fused custom operation"
    ),
}
"""Node name to the reason, in words a report can show."""
