"""A float16 gradient that underflows without GradScaler (pytorch/pytorch#57776)."""

import torch

torch.manual_seed(0)
x = torch.full((4,), 1e-3, dtype=torch.float16, requires_grad=True)
small = x.pow(3)  # BUG
loss = (small.float() * 1e-3).mean()
loss.backward()
