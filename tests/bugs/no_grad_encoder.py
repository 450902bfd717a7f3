"""The encoder is to be trained, and runs under no_grad (pytorch/pytorch#45325)."""

import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.Linear(6, 4)
head = nn.Linear(4, 2)
optimizer = torch.optim.SGD([*encoder.parameters(), *head.parameters()], lr=0.1)
x = torch.randn(8, 6)
with torch.no_grad():
    features = encoder(x)  # BUG
loss = nn.functional.cross_entropy(head(features), torch.randint(0, 2, (8,)))
loss.backward()
optimizer.step()
