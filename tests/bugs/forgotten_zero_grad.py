"""zero_grad is never called (pytorch/pytorch#5251, the loop everybody starts from)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for _ in range(4):
    loss = (model(torch.randn(8, 3)) - 1).pow(2).mean()
    loss.backward()
    optimizer.step()  # BUG
