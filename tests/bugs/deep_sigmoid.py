"""Twenty sigmoid layers: the gradient vanishes (pytorch/pytorch#91692 asks for backward traces)."""

import torch
from torch import nn

torch.manual_seed(0)
layers = []
for _ in range(20):
    layers += [nn.Linear(16, 16), nn.Sigmoid()]
model = nn.Sequential(*layers, nn.Linear(16, 1))
loss = model(torch.randn(32, 16)).pow(2).mean()  # BUG
loss.backward()
