"""A custom autograd.Function: Swish, x·σ(x), with the derivative written by hand.

Its backward is the user's own Python, so the explorer shows it as such; here it agrees with PyTorch's
own SiLU to the last digits.

    explore examples/custom_function.py
"""

import torch


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, upstream):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return upstream * (s + x * s * (1 - s))


torch.manual_seed(0)
x = torch.randn(4, 3, requires_grad=True)
loss = Swish.apply(x).square().sum()
loss.backward()

(expected,) = torch.autograd.grad(torch.nn.functional.silu(x).square().sum(), x)
print(f"largest difference from torch's SiLU: {(x.grad - expected).abs().max().item():.0e}")
