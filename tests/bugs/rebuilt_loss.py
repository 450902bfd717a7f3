"""The loss is rebuilt from a number, which has no graph (pytorch/pytorch#6017 on float(loss))."""

import torch
from torch import nn

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
value = model(torch.randn(8, 3)).pow(2).mean()
loss = torch.tensor(value.item(), requires_grad=True)  # BUG
loss.backward()
optimizer.step()
print([parameter.grad for parameter in model.parameters()])
