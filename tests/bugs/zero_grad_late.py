"""zero_grad stands between backward and step (IDEA-Research/DN-DETR#18)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    loss = (model(torch.randn(8, 3)) - 1).pow(2).mean()
    loss.backward()
    optimizer.zero_grad()
    optimizer.step()  # BUG
