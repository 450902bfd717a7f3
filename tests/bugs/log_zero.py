"""The logarithm of a probability that is exactly 0 (pytorch/pytorch#4132)."""

import torch

logits = torch.tensor([[0.0, 200.0], [1.0, 2.0]], requires_grad=True)
probabilities = torch.softmax(logits, dim=1)
loss = -torch.log(probabilities)[:, 0].mean()  # BUG
loss.backward()
