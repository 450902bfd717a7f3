"""A Function whose backward forgets the chain rule's factor (pytorch/pytorch#54375)."""

import torch


class Square(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx, grad_output):  # BUG
        (x,) = ctx.saved_tensors
        return grad_output * 3 * x


torch.manual_seed(0)
x = torch.randn(6, requires_grad=True)
loss = Square.apply(x).sum()
loss.backward()
