"""Nodes that only pass tensors on: of torch's distributed wrappers, and of forward-mode differentiation."""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.registry import Site, vjp


@vjp("RegisterPostBackwardFunctionBackward", "_DDPSinkBackward")
def passed_on(n: Site, *gradients: Array | None) -> list[Array | None]:
    """y = x for each tensor: dx = g. FSDP2 reduces, and DDP finalises, beside it (torch/distributed)."""
    return [None] * (len(n.inputs) - len(gradients)) + list(gradients)


@vjp("Identity")
def identity(n: Site, *gradients: Array | None) -> list[Array | None]:
    """y = x: dx = g. The primal of a dual tensor (torch/csrc/autograd/functions/basic_ops.h)."""
    return list(gradients)
