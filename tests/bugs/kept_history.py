"""total_loss += loss keeps every step's graph (pytorch/pytorch#5251, #6017)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
total = 0
for _ in range(6):
    loss = (model(torch.randn(8, 3)) - 1).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()  # BUG
    optimizer.step()
    total += loss
print(total.item())
