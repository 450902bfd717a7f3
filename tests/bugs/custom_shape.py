"""A Function whose backward returns the wrong shape (pytorch/pytorch#34953)."""

import torch


class Rows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias):
        return x + bias

    @staticmethod
    def backward(ctx, grad_output):
        return grad_output, grad_output[:2, :2]


torch.manual_seed(0)
x = torch.randn(4, 3, requires_grad=True)
bias = torch.zeros(3, requires_grad=True)
loss = Rows.apply(x, bias).pow(2).sum()  # BUG
loss.backward()
