"""An in-place operation on the result that the derivative of sigmoid needs (pytorch/pytorch#9391)."""

import torch
from torch import nn


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 4)
        self.act = nn.ReLU(inplace=True)

    def forward(self, x):
        gate = torch.sigmoid(self.fc(x))
        gate = gate.mul_(2)  # BUG
        return self.act(gate - 1)


torch.manual_seed(0)
model = Block()
model(torch.randn(8, 4)).sum().backward()
