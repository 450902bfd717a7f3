"""Nobody called backward, so .grad is None (pytorch/pytorch#30531 lists the reasons)."""

import torch

x = torch.tensor(2.0, requires_grad=True)
f = x**2 + 3 * x
print(x.grad)
