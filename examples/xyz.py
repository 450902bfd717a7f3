"""f = x·y·z at (2, 3, 4): the gradients are yz = 12, xz = 8, xy = 6.

Run it: explore examples/xyz.py
"""

import torch

x = torch.tensor(2.0, requires_grad=True)
y = torch.tensor(3.0, requires_grad=True)
z = torch.tensor(4.0, requires_grad=True)

f = x * y * z
f.backward()

print(f"f = {f.item():g}")
print(f"df/dx = {x.grad:g}, df/dy = {y.grad:g}, df/dz = {z.grad:g}")
