"""The head is replaced for three classes after the optimizer was made (discuss.pytorch.org, fine-tuning)."""

import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(4, 16)
        self.head = nn.Linear(16, 10)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.head(h)  # BUG


torch.manual_seed(0)
net = Net()
optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
net.head = nn.Linear(16, 3)
for _ in range(4):
    loss = nn.functional.cross_entropy(net(torch.randn(32, 4)), torch.randint(0, 3, (32,)))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
