"""The softmax runs over the batch: each class is shared out among samples, not each sample among classes."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(8, 5)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    probabilities = torch.softmax(model(torch.randn(16, 8)), dim=0)  # BUG
    loss = nn.functional.nll_loss(probabilities.log(), torch.randint(0, 5, (16,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
