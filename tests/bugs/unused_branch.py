"""A layer that forward never calls: DDP says "did not receive grad" (pytorch/pytorch#41101)."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.used = nn.Linear(3, 3)
        self.unused = nn.Linear(3, 3)

    def forward(self, x):
        return self.used(x)


torch.manual_seed(0)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
net(torch.randn(5, 3)).pow(2).mean().backward()
optimizer.step()
