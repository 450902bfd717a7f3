"""torch.where hides the value of sqrt, not its derivative (pytorch/pytorch#68425, #187297)."""

import torch

x = torch.tensor([0.0, 1.0, 4.0], requires_grad=True)
root = torch.sqrt(x)  # BUG
y = torch.where(x > 0, root, torch.zeros_like(x))
loss = y.sum()
loss.backward()
print(x.grad)
