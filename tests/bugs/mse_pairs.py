"""A prediction (n, 1) meets a target (n,): every pair is compared (pytorch/pytorch#18349, #4938)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
x, target = torch.randn(8, 3), torch.randn(8)
prediction = model(x)
loss = ((prediction - target) ** 2).mean()  # BUG
loss.backward()
