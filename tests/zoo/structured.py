"""Graphs, points, rays and equations: message passing, point sets, NeRF, physics, learnt optimisation."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from tests.zoo.registry import model

NODES, EDGES = 6, torch.tensor([[0, 0, 1, 2, 3, 4, 5, 5, 2], [1, 2, 2, 0, 4, 5, 3, 0, 3]])


@model("GNN message passing")
def gnn() -> None:
    """A graph convolution by index_add, one by scatter, and attention over the edges (GAT)."""
    source, target = EDGES
    x = torch.randn(NODES, 4)
    first, second, attend = nn.Linear(4, 8), nn.Linear(8, 8), nn.Parameter(torch.randn(16) * 0.3)
    degree = torch.zeros(NODES).index_add(0, target, torch.ones(9)).clamp(min=1)
    h = first(x)
    h = F.relu(torch.zeros(NODES, 8).index_add(0, target, h[source]) / degree[:, None])
    h = second(h)
    scores = F.leaky_relu((torch.cat([h[source], h[target]], 1) * attend).sum(1), 0.2)
    most = torch.full((NODES,), -torch.inf).scatter_reduce(0, target, scores, "amax")
    weights = (scores - most[target]).exp()
    total = torch.zeros(NODES).scatter_add(0, target, weights)
    weights = weights / (total[target] + 1e-9)
    h = F.elu(
        torch.zeros(NODES, 8).scatter_add(0, target[:, None].expand(-1, 8), h[source] * weights[:, None])
    )
    pooled = torch.cat([h.mean(0), h.amax(0)])
    F.mse_loss(pooled, torch.zeros(16)).backward()


@model("graph convolution by a sparse matrix")
def gcn_sparse() -> None:
    adjacency = torch.sparse_coo_tensor(
        EDGES, torch.ones(9), (NODES, NODES), check_invariants=True
    ).coalesce()
    weight, x = nn.Linear(4, 5), torch.randn(NODES, 4)
    F.relu(torch.sparse.mm(adjacency, weight(x))).square().mean().backward()


@model("point set network")
def points() -> None:
    x = torch.randn(2, 10, 3)
    local, whole = nn.Sequential(nn.Conv1d(3, 8, 1), nn.BatchNorm1d(8), nn.ReLU()), nn.Linear(8, 3)
    near = torch.cdist(x, x).topk(4, largest=False)[1]
    edges = x.unsqueeze(1).expand(-1, 10, -1, -1).gather(
        2, near.unsqueeze(-1).expand(-1, -1, -1, 3)
    ) - x.unsqueeze(2)
    y = local(edges.reshape(2, 40, 3).transpose(1, 2)).view(2, 8, 10, 4).max(-1)[0].max(-1)[0]
    moved = x.mean(1) + whole(y)
    chamfer = torch.cdist(moved, torch.randn(5, 3)).min(1)[0].mean()
    (chamfer + F.l1_loss(moved, torch.zeros(2, 3))).backward()


@model("NeRF")
def nerf() -> None:
    network = nn.Sequential(nn.Linear(3 + 3 * 2 * 3, 16), nn.ReLU(), nn.Linear(16, 4))
    origin, ways = torch.randn(4, 3) * 0.1, F.normalize(torch.randn(4, 3), dim=-1)
    depths = torch.linspace(0.5, 2, 8).expand(4, 8) + torch.rand(4, 8) * 0.1
    x = origin[:, None] + ways[:, None] * depths[..., None]
    waves = x[..., None] * (2.0 ** torch.arange(3) * math.pi)
    y = network(torch.cat([x, waves.sin().flatten(-2), waves.cos().flatten(-2)], -1))
    colour, density = torch.sigmoid(y[..., :3]), F.relu(y[..., 3] + 0.5)
    gaps = torch.cat([depths[:, 1:] - depths[:, :-1], torch.full((4, 1), 1e2)], -1)
    alpha = 1 - torch.exp(-density * gaps)
    seen = torch.cumprod(torch.cat([torch.ones(4, 1), 1 - alpha + 1e-6], -1), -1)[:, :-1]
    pixel = (alpha * seen).unsqueeze(-1).mul(colour).sum(1)
    F.mse_loss(pixel, torch.rand(4, 3)).backward()


@model("voxel grid sampled along rays")
def voxels() -> None:
    grid = nn.Parameter(torch.randn(1, 4, 5, 5, 5))
    x = torch.rand(1, 6, 3, 2, 3) * 2.4 - 1.2
    features = F.grid_sample(grid, x, align_corners=True, padding_mode="border").flatten(2)[0].t()
    nn.Linear(4, 1)(features).square().mean().backward()


# -------------------------------------------------------------------- equations


def slope(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]


@model("physics-informed network, heat equation")
def heat() -> None:
    network = nn.Sequential(nn.Linear(2, 10), nn.Tanh(), nn.Linear(10, 10), nn.Tanh(), nn.Linear(10, 1))
    x, t = torch.rand(6, 1, requires_grad=True), torch.rand(6, 1, requires_grad=True)
    u = network(torch.cat([x, t], 1))
    flow, bend = slope(u, t), slope(slope(u, x), x)
    start = network(torch.cat([x.detach(), torch.zeros(6, 1)], 1))
    (
        (flow - 0.1 * bend).square().mean() + (start - torch.sin(math.pi * x.detach())).square().mean()
    ).backward()


@model("physics-informed network, other activations")
def burgers() -> None:
    for act in (nn.SiLU(), nn.Softplus(), nn.GELU(), nn.Sigmoid(), nn.GELU("tanh"), nn.ELU(), nn.Mish()):
        network = nn.Sequential(nn.Linear(2, 6), act, nn.Linear(6, 6), act, nn.Linear(6, 1))
        z = torch.rand(5, 2, requires_grad=True)
        u = network(z)
        first = slope(u, z)
        second = slope(first[:, :1], z)[:, :1]
        F.mse_loss(first[:, 1:] + u * first[:, :1], 0.01 * second).backward()


@model("sinusoidal network (SIREN)")
def siren() -> None:
    layers = [nn.Linear(2, 8), nn.Linear(8, 8), nn.Linear(8, 1)]
    x = torch.rand(5, 2, requires_grad=True)
    y = torch.sin(30 * layers[0](x))
    y = layers[2](torch.sin(layers[1](y)))
    first = slope(y, x)
    laplacian = sum(slope(first[:, i], x)[:, i] for i in range(2))
    (
        F.mse_loss(y, torch.zeros(5, 1))
        + (first.norm(dim=1) - 1).square().mean()
        + 1e-3 * laplacian.square().mean()
    ).backward()


@model("Hamiltonian network, integrated")
def hamiltonian() -> None:
    energy = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))
    state = torch.randn(3, 2, requires_grad=True)
    for _ in range(2):
        push = slope(energy(state).sum(), state)
        state = state + 0.1 * torch.stack([push[:, 1], -push[:, 0]], 1)
    F.mse_loss(state, torch.zeros(3, 2)).backward()


@model("MAML")
def maml() -> None:
    weights = [
        torch.randn(1, 8, requires_grad=True),
        torch.randn(8, requires_grad=True),
        torch.randn(8, 1, requires_grad=True),
    ]

    def predict(x: Tensor, w: list[Tensor]) -> Tensor:
        return torch.relu(x @ w[0] + w[1]) @ w[2]

    x, y = torch.randn(5, 1), torch.randn(5, 1)
    steps = torch.autograd.grad(F.mse_loss(predict(x, weights), y), weights, create_graph=True)
    fast = [w - 0.01 * step for w, step in zip(weights, steps, strict=True)]
    F.mse_loss(predict(x + 1, fast), y).backward()


@model("MAML on a convolutional network")
def maml_images() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4, track_running_stats=False), nn.ReLU(),
        nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, 3),
    )  # fmt: skip
    names, weights = zip(*network.named_parameters(), strict=True)
    x, y = torch.randn(4, 1, 8, 8), torch.randint(3, (4,))
    loss = F.cross_entropy(network(x), y)
    steps = torch.autograd.grad(loss, weights, create_graph=True)
    fast = {name: w - 0.1 * step for name, w, step in zip(names, weights, steps, strict=True)}
    F.cross_entropy(torch.func.functional_call(network, fast, (x,)), y).backward()


@model("Fourier operator layer")
def fourier() -> None:
    weight = nn.Parameter(torch.randn(3, 3, 4, dtype=torch.complex64) * 0.3)
    x = torch.randn(2, 3, 12, requires_grad=True)
    modes = torch.einsum("bim,iom->bom", torch.fft.rfft(x)[..., :4], weight)
    y = torch.fft.irfft(F.pad(modes, (0, 3)), n=12)
    F.gelu(y + nn.Conv1d(3, 3, 1)(x)).square().mean().backward()


@model("Gaussian process")
def gaussian_process() -> None:
    log_scale, log_noise = (
        torch.zeros(2, dtype=torch.float64).requires_grad_(),
        torch.tensor(-2.0, dtype=torch.float64, requires_grad=True),
    )
    x, y = torch.randn(6, 2, dtype=torch.float64), torch.randn(6, dtype=torch.float64)
    z = x / log_scale.exp()
    kernel = torch.exp(-0.5 * torch.cdist(z, z).square()) + log_noise.exp() * torch.eye(6)
    factor = torch.linalg.cholesky(kernel)
    alpha = torch.cholesky_solve(y.unsqueeze(1), factor)
    (0.5 * y @ alpha.squeeze(1) + factor.diagonal().log().sum()).backward()
