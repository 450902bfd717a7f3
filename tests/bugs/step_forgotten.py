"""Nobody calls step()."""

import torch
from torch import nn


def main():
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(5):
        loss = (model(torch.randn(8, 3)) - 1).pow(2).mean()
        optimizer.zero_grad()  # BUG
        loss.backward()


main()
