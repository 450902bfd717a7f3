"""Reinforcement learning (DQN, PPO, SAC, REINFORCE), and tables: a recommender, a tabular network."""

from __future__ import annotations

import torch
from torch import nn
from torch.distributions import Categorical, Normal
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from tests.zoo.registry import model


@model("DQN")
def dqn() -> None:
    value, target = (nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 3)) for _ in range(2))
    states, following, actions = torch.randn(8, 4), torch.randn(8, 4), torch.randint(3, (8, 1))
    rewards, done = torch.randn(8), torch.rand(8) < 0.2
    with torch.no_grad():
        best = value(following).argmax(1, keepdim=True)
        goal = rewards + 0.99 * target(following).gather(1, best).squeeze(1) * ~done
    F.smooth_l1_loss(value(states).gather(1, actions).squeeze(1), goal).backward()


@model("dueling, quantile DQN")
def quantile_dqn() -> None:
    body, good, lead = nn.Linear(4, 8), nn.Linear(8, 5), nn.Linear(8, 3 * 5)
    hidden = F.relu(body(torch.randn(6, 4)))
    lead_ = lead(hidden).view(6, 3, 5)
    q = good(hidden).unsqueeze(1) + lead_ - lead_.mean(1, keepdim=True)
    q = q[torch.arange(6), torch.randint(3, (6,))]
    gap = torch.randn(6, 5).unsqueeze(1) - q.unsqueeze(2)
    levels = (torch.arange(5) + 0.5) / 5
    huber = F.huber_loss(
        q.unsqueeze(2).expand_as(gap), q.detach().unsqueeze(2) + gap.detach(), reduction="none"
    )
    ((levels.view(1, 5, 1) - (gap.detach() < 0).float()).abs() * huber).sum(1).mean().backward()


@model("PPO")
def ppo() -> None:
    body, policy, value = nn.Sequential(nn.Linear(4, 16), nn.Tanh()), nn.Linear(16, 3), nn.Linear(16, 1)
    states, actions, old = torch.randn(10, 4), torch.randint(3, (10,)), torch.randn(10) * 0.2 - 1.1
    gains, returns, before = torch.randn(10), torch.randn(10), torch.randn(10)
    hidden = body(states)
    chances = Categorical(logits=policy(hidden))
    ratio = (chances.log_prob(actions) - old).exp()
    gains = (gains - gains.mean()) / (gains.std() + 1e-8)
    actor = -torch.min(gains * ratio, gains * ratio.clamp(0.8, 1.2)).mean()
    v = value(hidden).squeeze(-1)
    clipped = before + torch.clamp(v - before, -0.2, 0.2)
    critic = 0.5 * torch.max((v - returns) ** 2, (clipped - returns) ** 2).mean()
    (actor + 0.5 * critic - 0.01 * chances.entropy().mean()).backward()
    nn.utils.clip_grad_norm_([*body.parameters(), *policy.parameters(), *value.parameters()], 0.5)


@model("SAC")
def sac() -> None:
    policy = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4))
    critics = [nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 1)) for _ in range(2)]
    log_alpha, states = torch.zeros((), requires_grad=True), torch.randn(8, 4)
    goal, taken = torch.randn(8, 1), torch.rand(8, 2) * 2 - 1
    sum(F.mse_loss(q(torch.cat([states, taken], 1)), goal) for q in critics).backward()
    mean, log_std = policy(states).chunk(2, 1)
    choice = Normal(mean, log_std.clamp(-20, 2).exp())
    raw = choice.rsample()
    action = torch.tanh(raw)
    log_chance = (choice.log_prob(raw) - torch.log(1 - action.pow(2) + 1e-6)).sum(1, keepdim=True)
    q = torch.min(*[critic(torch.cat([states, action], 1)) for critic in critics])
    (log_alpha.exp().detach() * log_chance - q).mean().backward()
    (-(log_alpha.exp() * (log_chance.detach() - 2.0))).mean().backward()


@model("REINFORCE with a recurrent policy")
def reinforce() -> None:
    cell, policy = nn.GRUCell(3, 8), nn.Linear(8, 2)
    h, logs = torch.zeros(1, 8), []
    for _ in range(5):
        h = cell(torch.randn(1, 3), h)
        chances = Categorical(probs=policy(h).softmax(-1))
        logs.append(chances.log_prob(chances.sample()))
    returns = torch.randn(5).cumsum(0).flip(0)
    (-(torch.cat(logs) * returns)).sum().backward()


@model("two-tower recommender with an embedding bag")
def recommender() -> None:
    users, items = nn.EmbeddingBag(12, 6, mode="mean"), nn.EmbeddingBag(9, 6, mode="sum")
    bags, offsets = torch.tensor([1, 4, 4, 7, 2, 11]), torch.tensor([0, 2, 5])
    u, v = users(bags, offsets), items(torch.randint(9, (3, 2)))
    cross = nn.Bilinear(6, 6, 1)(u, v).squeeze(-1)
    scores = (u * v).sum(-1) + cross
    F.binary_cross_entropy_with_logits(
        scores, torch.tensor([1.0, 0, 1]), pos_weight=torch.tensor(2.0)
    ).backward()


@model("tabular network with gates")
def tabular() -> None:
    parts = [nn.Embedding(5, 4), nn.Embedding(3, 4)]
    table, numbers = torch.stack([torch.randint(5, (6,)), torch.randint(3, (6,))], 1), torch.randn(6, 4)
    x = torch.cat([part(table[:, i]) for i, part in enumerate(parts)] + [nn.BatchNorm1d(4)(numbers)], 1)
    y = nn.Sequential(
        nn.Linear(12, 16), nn.SELU(), nn.AlphaDropout(0.1), nn.Linear(16, 8), nn.CELU(), nn.Linear(8, 2)
    )(x)
    mean, log_variance = y.unbind(1)
    target = torch.randn(6)
    nll = F.gaussian_nll_loss(mean, target, F.softplus(log_variance))
    poisson = F.poisson_nll_loss(mean, target.abs())
    (nll + poisson + F.kl_div(y.log_softmax(1), torch.full((6, 2), 0.5), reduction="batchmean")).backward()
