"""A recurrent matrix that stretches by 1.6 a step: after forty steps the gradient is 1e8 times too large."""

import torch
from torch import nn

torch.manual_seed(0)
recurrent = nn.Linear(16, 16, bias=False)
nn.init.orthogonal_(recurrent.weight, gain=1.6)
optimizer = torch.optim.SGD(recurrent.parameters(), lr=1e-12)
inputs = torch.randn(40, 8, 16)
hidden = torch.zeros(8, 16)
for step in inputs:
    hidden = recurrent(hidden) + step  # BUG
loss = hidden.pow(2).mean()
loss.backward()
optimizer.step()
