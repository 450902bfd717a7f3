"""What the gradient is for: three steps of gradient descent, momentum and Adam, by hand and by torch.optim.

The function is a long valley, f(a, b) = a² + 10·b², from (3, 1), with the gradient (2a, 20b):

    gradient descent   w ← w − η·g
    momentum           v ← μ·v + g,  w ← w − η·v
    Adam               m ← β₁·m + (1 − β₁)·g,  s ← β₂·s + (1 − β₂)·g²,  w ← w − η·m̂ / (√ŝ + ε)

with m̂ = m/(1 − β₁ᵗ), ŝ = s/(1 − β₂ᵗ). Adam divides by the size of the gradient: its first step is η in
both directions, however steep. The columns are where each way arrives: with the gradient by hand, with
torch.optim, with the engine's gradient, and with the difference quotient.

    explore examples/gallery/11_optimizers.py
"""

from math import sqrt

import torch

from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
START, STEPS = {"a": 3.0, "b": 1.0}, 3


def valley(a, b):
    return a**2 + 10 * b**2


def gradient_descent(w, g, state, step, rate=0.02):
    return w - rate * g, None


def momentum(w, g, v, step, rate=0.02, mu=0.9):
    v = g if v is None else mu * v + g
    return w - rate * v, v


def adam(w, g, state, step, rate=0.1, beta1=0.9, beta2=0.999, eps=1e-8):
    m, s = state or (0.0, 0.0)
    m, s = beta1 * m + (1 - beta1) * g, beta2 * s + (1 - beta2) * g * g
    return w - rate * (m / (1 - beta1**step)) / (sqrt(s / (1 - beta2**step)) + eps), (m, s)


def ours(rule, gradient):
    """Where `rule` arrives with the gradients that `gradient` finds."""
    point, states = dict(START), dict.fromkeys(START)
    for step in range(1, STEPS + 1):
        found = gradient(point)
        for name in point:
            point[name], states[name] = rule(point[name], found[name], states[name], step)
    return point


def theirs(make):
    """Where PyTorch arrives: clear .grad, backward() adds to it, step() uses it."""
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in START.items()}
    optimizer = make(leaves.values())
    for _ in range(STEPS):
        optimizer.zero_grad()
        valley(**leaves).backward()
        optimizer.step()
    return {name: leaf.item() for name, leaf in leaves.items()}


ways = {
    "gradient descent": (gradient_descent, lambda p: torch.optim.SGD(p, lr=0.02)),
    "momentum": (momentum, lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9)),
    "Adam": (adam, lambda p: torch.optim.Adam(p, lr=0.1)),
}
rows = []
for name, (rule, make) in ways.items():
    columns = (
        ours(rule, lambda point: {"a": 2 * point["a"], "b": 20 * point["b"]}),
        theirs(make),
        ours(rule, lambda point: engine_gradients(valley, point)),
        ours(rule, lambda point: numeric_gradients(valley, point)),
    )
    rows += side_by_side(*({f"{name}, {one}": value for one, value in c.items()} for c in columns))
    print(f"{name}: f = {valley(**START):g} before, {valley(**columns[1]):.3f} after")
print(comparison(rows), end="")
