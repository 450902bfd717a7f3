"""A block of GPT-2, without and with autograd: attention and MLP, each after a layer norm, each added.

The module is the real one: two heads, a causal mask, GELU, a softmax loss on the next token. By hand its
backward is 25 lines of matrix rules (attention's and the norm's stand in the scripts before this one);
the engine has its own forward in small steps. All 378 gradients agree four ways.

    explore -o gpt_block.svg examples/gallery/10_gpt_block.py
"""

from math import erf, exp, pi, sqrt

import torch
from torch import nn
from torch.nn.functional import cross_entropy, scaled_dot_product_attention

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
TOKENS, WIDTH, HEADS, EPS = 4, 6, 2, 1e-5
SIZE = WIDTH // HEADS
labels = [1, 5, 0, 2]


class Block(nn.Module):
    """The network as it is used, in PyTorch's modules."""

    def __init__(self):
        super().__init__()
        self.ln1 = nn.LayerNorm(WIDTH)
        self.attn = nn.Linear(WIDTH, 3 * WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)
        self.ln2 = nn.LayerNorm(WIDTH)
        self.up = nn.Linear(WIDTH, 2 * WIDTH)
        self.down = nn.Linear(2 * WIDTH, WIDTH)

    def forward(self, x):
        q, k, v = (
            part.view(TOKENS, HEADS, SIZE).transpose(0, 1)
            for part in self.attn(self.ln1(x)).split(WIDTH, dim=-1)
        )
        mixed = scaled_dot_product_attention(q[None], k[None], v[None], is_causal=True)[0]
        x = x + self.proj(mixed.transpose(0, 1).reshape(TOKENS, WIDTH))
        return x + self.down(nn.functional.gelu(self.up(self.ln2(x))))


# ---------------------------------------------------------------- by hand


def norm(x, gamma, beta):
    scale = 1 / (x.var(-1, correction=0, keepdim=True) + EPS).sqrt()
    normed = (x - x.mean(-1, keepdim=True)) * scale
    return gamma * normed + beta, (normed, scale, gamma)


def norm_back(G, kept):
    normed, scale, gamma = kept
    D = G * gamma
    mean, along = (part.mean(-1, keepdim=True) for part in (D, D * normed))
    return scale * (D - mean - normed * along), (G * normed).sum(0), G.sum(0)


def heads(x):
    return x.reshape(TOKENS, HEADS, SIZE).transpose(0, 1)


def joined(x):
    return x.transpose(0, 1).reshape(TOKENS, WIDTH)


def gelu_slope(x):
    """Φ(x) + x·φ(x), one number at a time."""
    slopes = [0.5 * (1 + erf(u / sqrt(2))) + u * exp(-u * u / 2) / sqrt(2 * pi) for u in x.flatten().tolist()]
    return torch.tensor(slopes).reshape(x.shape)


@torch.no_grad()
def backward_by_hand(x, g1, b1, wa, ba, wp, bp, g2, b2, wu, bu, wd, bd):
    n1, kept1 = norm(x, g1, b1)
    q, k, v = (heads(part) for part in (n1 @ wa.T + ba).split(WIDTH, dim=-1))
    A = (q @ k.transpose(1, 2) / SIZE**0.5 + torch.full((TOKENS, TOKENS), float("-inf")).triu(1)).softmax(-1)
    mixed = joined(A @ v)
    middle = x + mixed @ wp.T + bp
    n2, kept2 = norm(middle, g2, b2)
    u = n2 @ wu.T + bu
    active = nn.functional.gelu(u)
    out = middle + active @ wd.T + bd

    d_out = (out.softmax(-1) - torch.eye(WIDTH)[labels]) / TOKENS  # p − y
    d_u = d_out @ wd * gelu_slope(u)
    d_norm, d_g2, d_b2 = norm_back(d_u @ wu, kept2)
    d_middle = d_out + d_norm
    d_mixed = heads(d_middle @ wp)
    d_A = d_mixed @ v.transpose(1, 2)
    d_S = A * (d_A - (d_A * A).sum(-1, keepdim=True)) / SIZE**0.5
    parts = (d_S @ k, d_S.transpose(1, 2) @ q, A.transpose(1, 2) @ d_mixed)
    d_qkv = torch.cat([joined(part) for part in parts], dim=-1)
    d_norm, d_g1, d_b1 = norm_back(d_qkv @ wa, kept1)
    return (
        d_middle + d_norm, d_g1, d_b1, d_qkv.T @ n1, d_qkv.sum(0), d_middle.T @ mixed, d_middle.sum(0),
        d_g2, d_b2, d_u.T @ n2, d_u.sum(0), d_out.T @ active, d_out.sum(0),
    )  # fmt: skip


# ---------------------------------------------------------------- the engine


def engine_norm(x, gamma, beta):
    centred = x - x.mean(-1, True)
    return gamma * (centred / ((centred**2).mean(-1, True) + EPS).sqrt()) + beta


def engine_loss(x, g1, b1, wa, ba, wp, bp, g2, b2, wu, bu, wd, bd):
    hidden = engine.tensor([[-1e9 * (later > row) for later in range(TOKENS)] for row in range(TOKENS)])
    qkv = engine_norm(x, g1, b1) @ wa.T + ba
    q, k, v = (heads(qkv[:, start : start + WIDTH]) for start in range(0, 3 * WIDTH, WIDTH))
    A = engine.softmax(q @ k.T / SIZE**0.5 + hidden)
    x = x + joined(A @ v) @ wp.T + bp
    x = x + (engine_norm(x, g2, b2) @ wu.T + bu).gelu() @ wd.T + bd
    return engine.cross_entropy(x, engine.tensor(labels))


# ---------------------------------------------------------------- PyTorch, and the table

block = Block()
for one in (block.ln1, block.ln2):
    nn.init.uniform_(one.weight, 0.5, 1.5)
    nn.init.normal_(one.bias)
x = torch.randn(TOKENS, WIDTH, requires_grad=True)
loss = cross_entropy(block(x), torch.tensor(labels))
loss.backward()


def torch_loss(**point):
    x, *rest = (torch.tensor(value) for value in point.values())
    out = torch.func.functional_call(block, dict(zip(names, rest, strict=True)), x)
    return cross_entropy(out, torch.tensor(labels))


names = [name for name, _ in block.named_parameters()]
leaves = dict(
    zip(
        ("x", "g1", "b1", "wa", "ba", "wp", "bp", "g2", "b2", "wu", "bu", "wd", "bd"),
        (x, *block.parameters()),
        strict=True,
    )
)
point = {name: leaf.tolist() for name, leaf in leaves.items()}
rows = side_by_side(
    by_hand={n: g.tolist() for n, g in zip(leaves, backward_by_hand(**leaves), strict=True)},
    pytorch={name: leaf.grad.tolist() for name, leaf in leaves.items()},
    engine=engine_gradients(engine_loss, point),
    numeric=numeric_gradients(torch_loss, point),
)
print(comparison(rows, largest=1), end="")
