"""`optimizer.step` without its parentheses does nothing."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.Adam(model.parameters())
for _ in range(5):
    optimizer.zero_grad()
    loss = (model(torch.randn(8, 3)) - 1).pow(2).mean()
    loss.backward()
    optimizer.step  # noqa: B018 - the mistake itself  # BUG
