"""A bias far below zero kills the layer (pytorch/pytorch#73697 asks for tools that show this)."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 1))
with torch.no_grad():
    model[0].bias[:5] = -50.0
x = torch.randn(16, 8)
loss = (model(x) - 1).pow(2).mean()  # BUG
loss.backward()
