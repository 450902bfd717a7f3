"""Backward nodes of torch that have no rule, and why: the table of what the check leaves out."""

from __future__ import annotations

_STRIDES = "the strides of its input are not saved"
_FUSED = "it keeps finished gradients, and nothing to compute them from"
_SECOND = "torch has no derivative of this gradient"

ABSENT: dict[str, str] = {
    "AsStridedBackward0": _STRIDES,
    "AsStridedBackward0_copy": _STRIDES,
    "AsStridedBackward1": _STRIDES,
    "AsStridedScatterBackward0": _STRIDES,
    "SparseMmReduceImplBackward0": "a reduction over sparse rows: not written",
    "CopySlices": "inner function not exposed",
    "ForeachExpBackward0": "torch exposes nothing of what it saved",
    "GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_defaultBackward": _FUSED,
    "GeneratedBackwardFor_torch_nn__linear_cross_entropy_batch_chunked_no_reduction_defaultBackward": _FUSED,
    "CdistBackwardBackward0": _SECOND,
    "PdistBackwardBackward0": _SECOND,
    "EmbeddingBagBackwardBackward0": _SECOND,
    "EmbeddingBagDenseBackwardBackward0": _SECOND,
    "GridSampler2DBackwardBackward0": _SECOND,
    "GridSampler2DCpuFallbackBackwardBackward0": _SECOND,
    "GridSampler3DBackwardBackward0": _SECOND,
    "SendRpcBackward": "it sends the gradient to another process",
    "UndefinedGradBackward": "it passes an undefined gradient on",
    "EmbeddingRenormBackward0": "torch has no derivative of it",
    "GeqrfBackward0": "torch has no derivative of it",
    "SpecialZetaBackward0": "torch has no derivative by its first argument",
    "SpecialZetaBackward1": "torch has no derivative by its first argument",
    "SpecialZetaBackward2": "torch has no derivative by its first argument",
    "StandardGammaBackward0": "the derivative of a random sample: not written",
    "StandardGammaGradBackward0": _SECOND,
}
"""Node name to the reason, in words a report can show."""

_DEVICE = "made on other devices only: not written"
_OPAQUE = "it works on oneDNN's opaque layout"
_NESTED = "nested tensors have no strided memory"
_HIDDEN = "torch makes it of other nodes or in forms that users do not meet: not written"

GROUPS: tuple[tuple[tuple[str, ...], str], ...] = (
    (("Cudnn", "Miopen", "Mps", "LstmMps", "Thnn", "Nnpack", "ConvDepthwise", "FlashAttention",
      "EfficientAttention", "ScaledDotProductCudnn", "ScaledDotProductFused", "GroupedMm", "FusedDropout",
      "PinMemory"), _DEVICE),
    (("Mkldnn", "ToMkldnn", "MaxPool2DBackward"), _OPAQUE),
    (("Nested", "ToPaddedTensor", "Chunk"), _NESTED),
    (("Sparse", "ToSparse", "Coalesce", "Values"), "sparse tensors in a form that is not written"),
    (("FakeQuantize", "FusedMovingAvg"), "quantisation in training: not written"),
    (("Unique", "Eq", "Ne", "Ge", "Gt", "Le", "Lt", "Random"), "its derivative is 0, or undefined"),
    (("TestAutograd", "TestWarn"), "a node of torch's own tests"),
    (("Foreach",), "a node of many tensors, which optimizers make: not written"),
)  # fmt: skip
"""Beginnings of names, and the reason for all of them that have no rule."""


def reason_for(name: str) -> str | None:
    """Why node `name` has no rule, in words; None for a node that is not torch's."""
    if name in ABSENT:
        return ABSENT[name]
    if "AutogradNestedTensor" in name:
        return _NESTED
    for beginnings, reason in GROUPS:
        if name.startswith(beginnings):
            return reason
    return _HIDDEN if name.removesuffix("_copy").rstrip("0123456789").endswith("Backward") else None
