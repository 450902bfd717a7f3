"""A neuron without and with the full mathematics: y = tanh(w·x + b), loss = (y − t)².

Without: one small step after the other, each derivative written out. With: the chain rule in one line,
∂loss/∂w = 2·(y − t)·(1 − y²)·x. For w = (0.5, −0.3, 0.8), x = (1, 2, −1), b = 0.1, t = 1 the neuron says
y = −0.664, the loss is 2.769, and ∂loss/∂w = (−1.861, −3.721, 1.861), ∂loss/∂b = −1.861: every part wants
y to grow.

    explore --explain examples/gallery/03_neuron.py
"""

from math import tanh

import torch

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
x, target = [1.0, 2.0, -1.0], 1.0


def one_by_one(w, b):
    """Without the mathematics: one small step at a time."""
    s = b
    for weight, value in zip(w, x, strict=True):
        s = s + weight * value
    y = tanh(s)
    dy = 2 * (y - target)
    ds = dy * (1 - y * y)
    return y, {"w": [ds * value for value in x], "b": ds}


def neuron(w, b, inputs):
    """With it: the same for tensors of torch and of the engine."""
    return ((w * inputs).sum() + b).tanh()


point = {"w": [0.5, -0.3, 0.8], "b": 0.1}
w, b = (torch.tensor(value, requires_grad=True) for value in point.values())
y = neuron(w, b, torch.tensor(x))
loss = (y - target) ** 2
loss.backward()

said, by_hand = one_by_one(**point)
print(f"y = {said:.3f}, loss = {loss.item():.3f}")
short = 2 * (y - target) * (1 - y**2) * torch.tensor(x)
print("in one line: " + ", ".join(f"{one:.3f}" for one in short.tolist()))


def engine_loss(w, b):
    return (neuron(w, b, engine.tensor(x)) + -target) ** 2


rows = side_by_side(
    by_hand=by_hand,
    pytorch={"w": w.grad.tolist(), "b": b.grad.item()},
    engine=engine_gradients(engine_loss, point),
    numeric=numeric_gradients(lambda w, b: (one_by_one(w, b)[0] - target) ** 2, point),
)
print(comparison(rows), end="")
