"""Three variables, two paths to each, worked by hand and compared with PyTorch: r = 144.

    d = a·b        e = b·c        f = d + e        g = a·c        r = f·g

At a = 2, b = 3, c = 4: d = 6, e = 12, f = 18, g = 8, r = 144. The local derivatives, multiplied along
every path from r and summed over the paths:

    dr/da = g·b + f·c = 24 + 72 = 96      (through d, and through g)
    dr/db = g·a + g·c = 16 + 32 = 48      (through d, and through e)
    dr/dc = g·b + f·a = 24 + 36 = 60      (through e, and through g)

    explore examples/by_hand.py
"""

import torch

a = torch.tensor(2.0, requires_grad=True)
b = torch.tensor(3.0, requires_grad=True)
c = torch.tensor(4.0, requires_grad=True)

d = a * b
e = b * c
f = d + e
g = a * c
r = f * g
r.backward()

by_hand = {
    "a": 8.0 * 3.0 + 18.0 * 4.0,
    "b": 8.0 * 2.0 + 8.0 * 4.0,
    "c": 8.0 * 3.0 + 18.0 * 2.0,
}

print(f"r = {r.item():g}")
for name, leaf in (("a", a), ("b", b), ("c", c)):
    print(f"dr/d{name}: by hand {by_hand[name]:g}, PyTorch {leaf.grad:g}")
