"""Batch normalisation: x̂ = (x − μ) / √(σ² + ε), y = γ·x̂ + β, and back.

Mean and variance are made of all the rows, so every row's gradient has three parts:
∂L/∂x = γ / √(σ² + ε) · (G − mean(G) − x̂ · mean(G·x̂)), with G = ∂L/∂y and means over the rows. The first is
the direct way, the others go through the mean and the variance. So the gradients of a column sum to 0:
moving all rows together changes nothing. torch has one node for all of this, the engine's column comes
from the formula written out in small steps.

    explore -o batch_norm.svg examples/gallery/07_batch_norm.py
"""

import torch
from torch.nn.functional import batch_norm

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
EPS = 1e-5
target = torch.randn(5, 3)


def torch_loss(x, gamma, beta):
    return ((batch_norm(x, None, None, gamma, beta, training=True, eps=EPS) - target) ** 2).sum()


def engine_loss(x, gamma, beta):
    centred = x - x.mean(0)
    normed = centred / ((centred**2).mean(0) + EPS).sqrt()
    return ((gamma * normed + beta - engine.tensor(target.tolist())) ** 2).sum()


@torch.no_grad()
def backward_by_hand(x, gamma, beta):
    scale = 1 / (x.var(0, correction=0) + EPS).sqrt()
    normed = (x - x.mean(0)) * scale
    G = 2 * (gamma * normed + beta - target)
    dx = gamma * scale * (G - G.mean(0) - normed * (G * normed).mean(0))
    return {"x": dx, "gamma": (G * normed).sum(0), "beta": G.sum(0)}


leaves = {
    "x": torch.randn(5, 3, requires_grad=True),
    "gamma": torch.rand(3, requires_grad=True),
    "beta": torch.randn(3, requires_grad=True),
}
loss = torch_loss(**leaves)
loss.backward()
print(f"the columns of ∂L/∂x sum to 0: {leaves['x'].grad.sum(0).abs().max().item() < 1e-12}")

point = {name: leaf.tolist() for name, leaf in leaves.items()}
rows = side_by_side(
    by_hand={name: value.tolist() for name, value in backward_by_hand(**leaves).items()},
    pytorch={name: leaf.grad.tolist() for name, leaf in leaves.items()},
    engine=engine_gradients(engine_loss, point),
    numeric=numeric_gradients(
        lambda **point: torch_loss(**{name: torch.tensor(value) for name, value in point.items()}), point
    ),
)
print(comparison(rows, largest=2), end="")
