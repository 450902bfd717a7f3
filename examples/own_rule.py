"""A rule of one's own: how to have a Function checked that the explorer cannot check by itself.

Dropout draws random numbers, so running its forward again would tell nothing. Its backward can still be
held against a formula: `vjp` registers one for the node's name, here from the saved mask and from `keep`,
an attribute of ctx. The rule returns one gradient per input tensor, in the language of arrays.

    explore examples/own_rule.py
"""

import torch

from explorer.engine import vjp


class Dropout(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, keep):
        mask = torch.rand_like(x) < keep
        ctx.save_for_backward(mask)
        ctx.keep = keep
        return x * mask / keep

    @staticmethod
    def backward(ctx, upstream):
        (mask,) = ctx.saved_tensors
        return upstream * mask / ctx.keep, None


@vjp("DropoutBackward")
def dropout(n, g):
    """y = x m / k:  dx = g m / k."""
    (mask,) = n.saved_tensors
    return [g.where(mask) / n.keep]


torch.manual_seed(0)
x = torch.randn(4, 6, requires_grad=True)
loss = Dropout.apply(x, 0.75).square().mean()
loss.backward()
print(f"{(x.grad == 0).sum()} of {x.numel()} gradients are zero: those elements were dropped")
