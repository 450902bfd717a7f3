"""The optimizer changes the critic between its forward and the second backward (pytorch/pytorch#39141)."""

import torch
from torch import nn

torch.manual_seed(0)
actor = nn.Linear(3, 4)
critic = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
critic_optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
state = torch.randn(6, 3)
action = actor(state)
value = critic(action)
critic_loss = (value - 1).pow(2).mean()
critic_loss.backward(retain_graph=True)
critic_optimizer.step()  # BUG
actor_loss = -value.mean()
actor_loss.backward()
