"""An in-place operation on a result that exp's backward needs (pytorch/pytorch#96265)."""

import torch

torch.manual_seed(0)
weight = torch.randn(4, 3, requires_grad=True)
x = torch.randn(5, 4)
a = x @ weight
b = a.exp()
c = b.sum(dim=1)
b += 1  # BUG
loss = (c + b.mean(dim=1)).sum()
loss.backward()
