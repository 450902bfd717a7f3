"""How tests explore: walk, capture and record one problem, and compare it with a plain run."""

from __future__ import annotations

from typing import Any

import torch

from explorer.record import Recorder
from explorer.report import GradientRecord, NodeGradients
from explorer.trace import Trace, trace
from hooks.nodes import capture
from tests.problems import Built


def explored(
    built: Built, **options: Any
) -> tuple[Trace, tuple[NodeGradients | None, ...], tuple[GradientRecord | None, ...]]:
    """Walk `built`, watch its backward, and return the trace and the records; nothing may go wrong."""
    found = trace(built.roots)
    recorder = Recorder(found, options.get("inputs", ()))
    with capture(found.live, recorder.observe) as watching:
        built.backward(**options)
    assert watching.problem == ""
    return (found, *recorder.finish())


def same_bits(left: torch.Tensor | None, right: torch.Tensor | None) -> bool:
    """Whether two gradients are equal to the last bit, with equal layout and strides; NaN equals NaN."""
    if left is None or right is None:
        return left is right
    if (left.layout, left.dtype, left.shape) != (right.layout, right.dtype, right.shape):
        return False
    if left.layout is torch.sparse_csr:
        parts = (torch.Tensor.crow_indices, torch.Tensor.col_indices, torch.Tensor.values)
        return all(same_bits(part(left), part(right)) for part in parts)
    if left.layout is not torch.strided:
        if left.is_coalesced() != right.is_coalesced():
            return False
        return same_bits(left._indices(), right._indices()) and same_bits(left._values(), right._values())
    if left.stride() != right.stride():
        return False
    if not left.numel():
        return True
    # A single element counts as contiguous whatever its stride, and then cannot be viewed as bytes.
    left, right = (
        value.detach().resolve_conj().resolve_neg().flatten().clone(memory_format=torch.contiguous_format)
        for value in (left, right)
    )
    return left.view(torch.uint8).equal(right.view(torch.uint8))
