"""Nobody called backward (discuss.pytorch.org: "why is x.grad None")."""

import torch

x = torch.tensor(2.0, requires_grad=True)
f = x**2 + 3 * x
print(x.grad)
