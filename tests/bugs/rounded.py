"""round() has derivative 0 everywhere (meta-pytorch/botorch#1515 adds straight-through estimators)."""

import torch
from torch import nn

torch.manual_seed(0)
encoder = nn.Linear(4, 4)
decoder = nn.Linear(4, 1)
codes = (10 * encoder(torch.randn(8, 4))).round()  # BUG
loss = (decoder(codes) - 1).pow(2).mean()
loss.backward()
