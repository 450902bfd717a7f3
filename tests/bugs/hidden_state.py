"""The hidden state is carried over without detach (MorvanZhou/PyTorch-Tutorial#57)."""

import torch
from torch import nn

torch.manual_seed(0)
cell = nn.RNNCell(3, 5)
head = nn.Linear(5, 1)
optimizer = torch.optim.SGD([*cell.parameters(), *head.parameters()], lr=0.0)
state = torch.zeros(2, 5)
for _ in range(3):
    state = cell(torch.randn(2, 3), state)  # BUG
    loss = head(state).pow(2).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
