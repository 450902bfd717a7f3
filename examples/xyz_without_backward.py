"""The same f = x·y·z, but nobody calls backward(): every .grad stays None.

`explore` says so, finds f by itself, and shows the gradients 12, 8, 6 that a backward would give.

    explore examples/xyz_without_backward.py
"""

import torch

x = torch.tensor(2.0, requires_grad=True)
y = torch.tensor(3.0, requires_grad=True)
z = torch.tensor(4.0, requires_grad=True)

f = x * y * z

print(f"f = {f.item():g}")
print(f"x.grad = {x.grad}, y.grad = {y.grad}, z.grad = {z.grad}")
