"""Models that make data: VAE, VQ-VAE, GANs with and without gradient penalty, diffusion, flows, energies."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.distributions import Normal, kl_divergence
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from tests.zoo.registry import model


@model("VAE")
def vae() -> None:
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.ReLU())
    mean, log_variance = nn.Linear(16, 4), nn.Linear(16, 4)
    decoder = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 64), nn.Sigmoid())
    x = torch.rand(3, 1, 8, 8)
    hidden = encoder(x)
    mu, lv = mean(hidden), log_variance(hidden)
    y = decoder(mu + torch.exp(0.5 * lv) * torch.randn_like(mu))
    kl = -0.5 * torch.sum(1 + lv - mu.pow(2) - lv.exp())
    (F.binary_cross_entropy(y, x.flatten(1), reduction="sum") + kl).backward()


@model("VAE with torch.distributions")
def vae_distributions() -> None:
    encoder, decoder, x = nn.Linear(8, 8), nn.Linear(4, 8), torch.randn(3, 8)
    mu, scale = encoder(x).chunk(2, -1)
    posterior = Normal(mu, F.softplus(scale) + 1e-4)
    likelihood = Normal(decoder(posterior.rsample()), 0.5).log_prob(x).sum(-1)
    (kl_divergence(posterior, Normal(torch.zeros(4), torch.ones(4))).sum(-1) - likelihood).mean().backward()


@model("VQ-VAE")
def vq_vae() -> None:
    encoder, decoder, codes = nn.Conv2d(1, 4, 4, 2, 1), nn.ConvTranspose2d(4, 1, 4, 2, 1), nn.Embedding(6, 4)
    x = torch.randn(2, 1, 8, 8)
    z = encoder(x).permute(0, 2, 3, 1).contiguous()
    chosen = torch.cdist(z.view(-1, 4), codes.weight).argmin(1)
    q = codes(chosen).view(z.shape)
    loss = F.mse_loss(q, z.detach()) + 0.25 * F.mse_loss(z, q.detach())
    straight = z + (q - z).detach()
    (F.mse_loss(decoder(straight.permute(0, 3, 1, 2)), x) + loss).backward()


def discriminator() -> nn.Module:
    return nn.Sequential(
        nn.utils.parametrizations.spectral_norm(nn.Conv2d(1, 4, 4, 2, 1)), nn.LeakyReLU(0.2),
        nn.Conv2d(4, 8, 4, 2, 1), nn.BatchNorm2d(8), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(32, 1),
    )  # fmt: skip


@model("GAN")
def gan() -> None:
    generator = nn.Sequential(
        nn.ConvTranspose2d(4, 8, 4, 1, 0, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        nn.ConvTranspose2d(8, 1, 4, 2, 1, bias=False), nn.Tanh(),
    )  # fmt: skip
    judge, real = discriminator(), torch.rand(3, 1, 8, 8) * 2 - 1
    fake = generator(torch.randn(3, 4, 1, 1))
    ones, zeros = torch.ones(3, 1), torch.zeros(3, 1)
    loss = F.binary_cross_entropy_with_logits
    (loss(judge(real), ones) + loss(judge(fake.detach()), zeros)).backward()
    loss(judge(fake), ones).backward()


def gradient_penalty(judge: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    share = torch.rand(real.shape[0], *[1] * (real.dim() - 1))
    middle = (share * real + (1 - share) * fake).requires_grad_()
    (slope,) = torch.autograd.grad(judge(middle).sum(), middle, create_graph=True)
    return ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


@model("WGAN-GP, linear")
def wgan_linear() -> None:
    judge = nn.Sequential(
        nn.Linear(6, 8), nn.LeakyReLU(0.2), nn.LayerNorm(8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1)
    )
    real, fake = torch.randn(4, 6), torch.randn(4, 6)
    (judge(fake).mean() - judge(real).mean() + 10 * gradient_penalty(judge, real, fake)).backward()


@model("WGAN-GP, convolutional")
def wgan_convolutional() -> None:
    judge = nn.Sequential(
        nn.Conv2d(1, 4, 4, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(4, 8, 3, 2, 1),
        nn.InstanceNorm2d(8, affine=True), nn.SiLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 1),
    )  # fmt: skip
    real, fake = torch.randn(3, 1, 8, 8), torch.randn(3, 1, 8, 8)
    (judge(fake).mean() - judge(real).mean() + 10 * gradient_penalty(judge, real, fake)).backward()


@model("R1 penalty through batch norm and pooling")
def r1() -> None:
    judge = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Softplus(), nn.MaxPool2d(2), nn.GroupNorm(2, 4),
        nn.GELU(), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1), nn.ELU(), nn.AdaptiveAvgPool2d(2),
        nn.Flatten(), nn.Linear(16, 1),
    )  # fmt: skip
    real = torch.randn(3, 1, 8, 8, requires_grad=True)
    scores = judge(real)
    (slope,) = torch.autograd.grad(scores.sum(), real, create_graph=True)
    (F.softplus(-scores).mean() + 5 * slope.square().sum((1, 2, 3)).mean()).backward()


@model("diffusion")
def diffusion() -> None:
    betas = torch.linspace(1e-4, 0.02, 10)
    kept = torch.cumprod(1 - betas, 0)
    embed = nn.Sequential(nn.Linear(8, 16), nn.SiLU(), nn.Linear(16, 8))
    first, second, last = (
        nn.Conv2d(1, 8, 3, padding=1),
        nn.Conv2d(8, 8, 3, padding=1),
        nn.Conv2d(8, 1, 3, padding=1),
    )
    norm, attend = nn.GroupNorm(4, 8), nn.MultiheadAttention(8, 2, batch_first=True)
    x, t, noise = torch.randn(2, 1, 8, 8), torch.randint(10, (2,)), torch.randn(2, 1, 8, 8)
    a = kept[t].view(-1, 1, 1, 1)
    speeds = torch.exp(-math.log(10000) * torch.arange(4) / 4)
    time = embed(torch.cat([(t[:, None] * speeds).sin(), (t[:, None] * speeds).cos()], -1))
    h = first(a.sqrt() * x + (1 - a).sqrt() * noise)
    h = h + second(F.silu(norm(h)) + time[:, :, None, None])
    flat = h.flatten(2).transpose(1, 2)
    h = h + attend(flat, flat, flat, need_weights=False)[0].transpose(1, 2).view(h.shape)
    F.mse_loss(last(F.interpolate(F.avg_pool2d(h, 2), scale_factor=2.0, mode="nearest")), noise).backward()


@model("normalising flow")
def flow() -> None:
    network, turn = (
        nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 4)),
        nn.Parameter(torch.randn(4, 4) * 0.3 + torch.eye(4)),
    )
    x = torch.randn(5, 4)
    y, volume = x @ turn, torch.linalg.slogdet(turn)[1]
    kept, moved = y.chunk(2, 1)
    scale, shift = network(kept).chunk(2, 1)
    scale = torch.tanh(scale)
    z = torch.cat([kept, moved * scale.exp() + shift], 1)
    (0.5 * z.square().sum(1) + 0.5 * math.log(2 * math.pi) * 4 - scale.sum(1) - volume).mean().backward()


@model("score matching")
def score_matching() -> None:
    energy = nn.Sequential(nn.Linear(2, 8), nn.Softplus(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1))
    x = torch.randn(4, 2, requires_grad=True)
    (score,) = torch.autograd.grad(energy(x).sum(), x, create_graph=True)
    trace = sum(torch.autograd.grad(score[:, i].sum(), x, create_graph=True)[0][:, i] for i in range(2))
    (trace + 0.5 * score.square().sum(1)).mean().backward()


@model("contrastive learning")
def contrastive() -> None:
    project = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 6))
    a, b = (F.normalize(project(torch.randn(4, 8)), dim=1) for _ in range(2))
    heat = nn.Parameter(torch.tensor(2.0))
    logits = heat.exp().clamp(max=100) * a @ b.t()
    target = torch.arange(4)
    triplet = F.triplet_margin_loss(a, b, b.roll(1, 0))
    cosine = F.cosine_embedding_loss(a, b, torch.tensor([1, -1, 1, -1]))
    (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target) + triplet + cosine).backward()
