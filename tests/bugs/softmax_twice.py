"""The network ends in a softmax, and the loss applies one itself (sugi-chan/custom_bert_pipeline#1)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 5), nn.Softmax(dim=1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(2):
    loss = nn.functional.cross_entropy(model(torch.randn(16, 8)), torch.randint(0, 5, (16,)))  # BUG
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
