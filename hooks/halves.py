"""Gradients that became 0 only because float16 has no smaller numbers, proven in float32."""

from __future__ import annotations

from typing import Any

import torch

from hooks.nodes import Event


def underflowed(event: Event) -> bool:
    """Whether a float16 gradient left this node as all zeros only for want of precision.

    Looked at on the CPU alone (elsewhere each look would wait for the device), inside the node's own
    post-hook: its formula can be run once more on the same gradients in float32, without hooks and without
    freeing anything.
    """
    for gradient in event.grad_inputs or ():
        if gradient is not None and gradient.dtype is not torch.float16:
            return False
    sent = [gradient for gradient in event.grad_inputs or () if gradient is not None]
    halves = [g for g in sent if g.dtype is torch.float16 and g.is_cpu and g.layout is torch.strided]
    node: Any = event.node
    if not halves or len(halves) != len(sent) or isinstance(node, torch.autograd.function.BackwardCFunction):
        return False
    received = [gradient for gradient in event.grad_outputs if gradient is not None]
    if any(bool(g.any()) for g in halves) or not any(bool(g.any()) for g in received):
        return False
    try:
        exact = node(*(g if g is None else g.float() for g in event.grad_outputs))
    except RuntimeError:  # a formula that insists on one dtype
        return False
    results = exact if isinstance(exact, tuple) else (exact,)
    return any(result is not None and bool(result.any()) for result in results)
