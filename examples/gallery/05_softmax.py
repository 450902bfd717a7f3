"""Softmax and its loss: the gradient by the logits is p − y.

p = softmax(z) and loss = −Σ y·ln p, y being 1 for the right class and 0 elsewhere. Through the Jacobian of
softmax, ∂pᵢ/∂zⱼ = pᵢ·(δᵢⱼ − pⱼ), everything cancels but p − y: what the network said minus what was right.
For z = (1, 2, 3) and the second class, p = (0.090, 0.245, 0.665), the loss is 1.408, and
p − y = (0.090, −0.755, 0.665).

    explore -o softmax.svg examples/gallery/05_softmax.py
"""

from math import exp, log

import torch
from torch.nn.functional import cross_entropy

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
logits, label = [1.0, 2.0, 3.0], 1


def softmax(z):
    powers = [exp(one) for one in z]
    return [one / sum(powers) for one in powers]


z = torch.tensor([logits], requires_grad=True)
loss = cross_entropy(z, torch.tensor([label]))
loss.backward()

p = softmax(logits)
y = [float(place == label) for place in range(3)]
print("p = " + ", ".join(f"{one:.3f}" for one in p))
print(f"loss = {loss.item():.3f}")

# The long way: ∂loss/∂p, then the Jacobian of softmax.
dp = [-one / share for one, share in zip(y, p, strict=True)]
jacobian = [[p[i] * ((i == j) - p[j]) for j in range(3)] for i in range(3)]
long = [sum(dp[i] * jacobian[i][j] for i in range(3)) for j in range(3)]
print("through the Jacobian: " + ", ".join(f"{one:.3f}" for one in long))

rows = side_by_side(
    by_hand={"z": [share - one for share, one in zip(p, y, strict=True)]},
    pytorch={"z": z.grad[0].tolist()},
    engine=engine_gradients(
        lambda z: engine.cross_entropy(z.reshape(1, 3), engine.tensor([label])), {"z": logits}
    ),
    numeric=numeric_gradients(lambda z: -log(softmax(z)[label]), {"z": logits}),
)
print(comparison(rows), end="")
