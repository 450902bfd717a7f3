"""The standard deviation of equal numbers has no derivative (pytorch/pytorch#4320)."""

import torch

a = torch.zeros(4, 3, requires_grad=True)
spread = a.pow(2).sum(dim=1).sqrt()  # BUG
loss = spread.mean()
loss.backward()
print(a.grad)
