"""A two-layer network on eight points, one backward, one step of gradient descent: the loss falls.

Run it: explore examples/two_layer.py
"""

import torch
from torch import nn

torch.manual_seed(0)
points = torch.randn(8, 3)
targets = points.sum(1, keepdim=True).sin()

model = nn.Sequential(nn.Linear(3, 16), nn.Tanh(), nn.Linear(16, 1))
loss = nn.functional.mse_loss(model(points), targets)
loss.backward()

with torch.no_grad():
    for parameter in model.parameters():
        parameter -= 0.1 * parameter.grad
    after = nn.functional.mse_loss(model(points), targets)

print(f"loss before {loss.item():.4f}")
print(f"loss after  {after.item():.4f}")
