"""A function of a function: h(x) = x², f(y) = y + 1, at x = 2.

The chain rule multiplies local derivatives: d f(h(x)) / dx = f'(h) · h'(x) = 1 · 2x = 4.

    explore examples/composed.py
"""

import torch


def h(x):
    return x**2


def f(y):
    return y + 1


x = torch.tensor(2.0, requires_grad=True)
y = h(x)
z = f(y)
z.backward()

print(f"f(h({x.item():g})) = {z.item():g}, gradient {x.grad:g}")
