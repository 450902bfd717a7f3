"""A block of ResNet: relu(x + norm(conv(relu(norm(conv(x)))))), on its own (He et al. 2015).

The sum at the end is why deep networks train: backward it copies the gradient, so ∂L/∂x has one part that
passed no weight at all, beside the one through both convolutions. By hand the whole block is the rules of
the scripts before this one, in reverse order. All 270 gradients agree four ways; the convolutions'
biases are left out, as in ResNet: the normalisation after them takes any constant away again.

    explore -o residual_block.svg examples/gallery/09_residual_block.py
"""

import torch
from torch import nn
from torch.nn.functional import fold, unfold

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
CHANNELS, EPS = 3, 1e-5
SHAPE = (2, CHANNELS, 4, 4)


class Block(nn.Module):
    """The network as it is used, in PyTorch's modules."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(CHANNELS, track_running_stats=False)
        self.conv2 = nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(CHANNELS, track_running_stats=False)

    def forward(self, x):
        h = self.bn1(self.conv1(x)).relu()
        return (x + self.bn2(self.conv2(h))).relu()


def by_channel(values):
    """One number a channel, shaped to multiply pictures."""
    return values.reshape(1, CHANNELS, 1, 1)


def norm(x, gamma, beta):
    """Batch normalisation; also what its backward needs."""
    scale = 1 / (x.var((0, 2, 3), correction=0, keepdim=True) + EPS).sqrt()
    normed = (x - x.mean((0, 2, 3), keepdim=True)) * scale
    return by_channel(gamma) * normed + by_channel(beta), (normed, by_channel(gamma) * scale)


def norm_back(G, kept):
    normed, factor = kept
    mean, along = (part.mean((0, 2, 3), keepdim=True) for part in (G, G * normed))
    return factor * (G - mean - normed * along), (G * normed).sum((0, 2, 3)), G.sum((0, 2, 3))


def conv(x, weight):
    """A convolution as a matrix product with all windows; also the windows."""
    windows = unfold(x, 3, padding=1)
    return (weight.reshape(CHANNELS, -1) @ windows).reshape(SHAPE), windows


def conv_back(G, weight, windows):
    G = G.reshape(SHAPE[0], CHANNELS, -1)
    into = fold(weight.reshape(CHANNELS, -1).T @ G, SHAPE[2:], 3, padding=1)
    return into, (G @ windows.transpose(1, 2)).sum(0).reshape(weight.shape)


@torch.no_grad()
def backward_by_hand(x, w1, g1, b1, w2, g2, b2):
    c1, windows1 = conv(x, w1)
    n1, kept1 = norm(c1, g1, b1)
    c2, windows2 = conv(n1.relu(), w2)
    n2, kept2 = norm(c2, g2, b2)
    d_sum = weights * (x + n2 > 0)
    d_c2, d_g2, d_b2 = norm_back(d_sum, kept2)
    d_h, d_w2 = conv_back(d_c2, w2, windows2)
    d_c1, d_g1, d_b1 = norm_back(d_h * (n1 > 0), kept1)
    d_inner, d_w1 = conv_back(d_c1, w1, windows1)
    return d_sum + d_inner, d_w1, d_g1, d_b1, d_w2, d_g2, d_b2


def engine_norm(x, gamma, beta):
    centred = x - x.mean((0, 2, 3), True)
    normed = centred / ((centred**2).mean((0, 2, 3), True) + EPS).sqrt()
    return by_channel(gamma) * normed + by_channel(beta)


def engine_loss(x, w1, g1, b1, w2, g2, b2):
    h = engine_norm(engine.conv2d(x, w1, padding=1), g1, b1).relu()
    out = (x + engine_norm(engine.conv2d(h, w2, padding=1), g2, b2)).relu()
    return (out * engine.tensor(weights.tolist())).sum()


block = Block()
for one in (block.bn1, block.bn2):
    nn.init.uniform_(one.weight, 0.5, 1.5)
    nn.init.normal_(one.bias)
x = torch.randn(SHAPE, requires_grad=True)
weights = torch.randn(SHAPE)
loss = (block(x) * weights).sum()
loss.backward()


def torch_loss(**point):
    x, *rest = (torch.tensor(value) for value in point.values())
    out = torch.func.functional_call(block, dict(zip(names, rest, strict=True)), x)
    return (out * weights).sum()


names = [name for name, _ in block.named_parameters()]
leaves = dict(zip(("x", "w1", "g1", "b1", "w2", "g2", "b2"), (x, *block.parameters()), strict=True))
point = {name: leaf.tolist() for name, leaf in leaves.items()}
rows = side_by_side(
    by_hand={n: g.tolist() for n, g in zip(leaves, backward_by_hand(**leaves), strict=True)},
    pytorch={name: leaf.grad.tolist() for name, leaf in leaves.items()},
    engine=engine_gradients(engine_loss, point),
    numeric=numeric_gradients(torch_loss, point),
)
print(comparison(rows, largest=2), end="")
