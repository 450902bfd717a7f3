"""Attention: every token looks at those before it, A = softmax(Q·Kᵀ/√d + mask), out = A·V.

Back: ∂L/∂V = Aᵀ·G and ∂L/∂A = G·Vᵀ; through the softmax of each row, dS = A ∘ (dA − rowsum(dA ∘ A)), which
is the Jacobian diag(p) − p·pᵀ without writing it out; then ∂L/∂Q = dS·K/√d and ∂L/∂K = dSᵀ·Q/√d. The first
token sees only itself, so its attention is 1 and its query's gradient is exactly 0.

    explore -o attention.svg examples/gallery/08_attention.py
"""

import torch
from torch.nn.functional import scaled_dot_product_attention

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
torch.manual_seed(0)
TOKENS, WIDTH = 4, 3
weights = torch.randn(TOKENS, WIDTH)


def torch_loss(Q, K, V):
    return (scaled_dot_product_attention(Q, K, V, is_causal=True) * weights).sum()


def engine_loss(Q, K, V):
    hidden = [[-1e9 * (later > row) for later in range(TOKENS)] for row in range(TOKENS)]
    A = engine.softmax(Q @ K.T / WIDTH**0.5 + engine.tensor(hidden))
    return (A @ V * engine.tensor(weights.tolist())).sum()


@torch.no_grad()
def backward_by_hand(Q, K, V):
    hidden = torch.full((TOKENS, TOKENS), float("-inf")).triu(1)
    A = (Q @ K.T / WIDTH**0.5 + hidden).softmax(-1)
    dA = weights @ V.T
    dS = A * (dA - (dA * A).sum(-1, keepdim=True))
    return {"Q": dS @ K / WIDTH**0.5, "K": dS.T @ Q / WIDTH**0.5, "V": A.T @ weights}


leaves = {name: torch.randn(TOKENS, WIDTH, requires_grad=True) for name in "QKV"}
loss = torch_loss(**leaves)
loss.backward()
print(f"the first query's gradient is 0: {leaves['Q'].grad[0].abs().max().item() < 1e-15}")

point = {name: leaf.tolist() for name, leaf in leaves.items()}
rows = side_by_side(
    by_hand={name: value.tolist() for name, value in backward_by_hand(**leaves).items()},
    pytorch={name: leaf.grad.tolist() for name, leaf in leaves.items()},
    engine=engine_gradients(engine_loss, point),
    numeric=numeric_gradients(
        lambda **point: torch_loss(**{name: torch.tensor(value) for name, value in point.items()}), point
    ),
)
print(comparison(rows, largest=3), end="")
