"""The same loss is differentiated twice (karpathy/nn-zero-to-hero#31)."""

import torch

torch.manual_seed(0)
weight = torch.randn(3, 2, requires_grad=True)
logits = torch.randn(4, 3) @ weight
counts = logits.exp()
probabilities = counts / counts.sum(1, keepdim=True)
loss = -probabilities[:, 0].log().mean()  # BUG
loss.backward()
loss.backward()
