"""CS231n's sigmoid circuit, gate by gate: f = 1 / (1 + exp(−(w0·x0 + w1·x1 + w2))).

With w = (2, −3, −3) and x = (−1, −2) the output is 0.73. Backwards through the gates, each local derivative
times what arrives: 1/q gives −0.53, +1 passes it, exp gives −0.20, ×(−1) gives 0.20, + passes it to
w2 and both products, and those give −0.20, −0.39 for w0, w1 and 0.39, −0.59 for x0, x1
(Stanford CS231n, "Backpropagation, Intuitions"). The shortcut σ' = σ·(1 − σ) gives the same 0.20 at once.

    explore -o sigmoid.svg examples/gallery/02_sigmoid.py
"""

from math import exp

import torch

from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)


def circuit(w0, x0, w1, x1, w2):
    s = w0 * x0 + w1 * x1 + w2
    return 1 / (1 + (-1 * s).exp())


def backward_by_hand(w0, x0, w1, x1, w2):
    s = w0 * x0 + w1 * x1 + w2
    q = 1 + exp(-s)
    dq = -1 / q**2  # f = 1/q
    de = dq  # q = 1 + e
    dn = exp(-s) * de  # e = exp(n)
    ds = -1 * dn  # n = -1·s
    print(f"gates: {dq:.2f} {de:.2f} {dn:.2f} {ds:.2f}; σ(1 − σ) = {1 / q * (1 - 1 / q):.2f}")
    return {"w0": x0 * ds, "x0": w0 * ds, "w1": x1 * ds, "x1": w1 * ds, "w2": ds}


point = {"w0": 2.0, "x0": -1.0, "w1": -3.0, "x1": -2.0, "w2": -3.0}
w0, x0, w1, x1, w2 = (torch.tensor(value, requires_grad=True) for value in point.values())
f = circuit(w0, x0, w1, x1, w2)
f.backward()
print(f"f = {f.item():.2f}")

rows = side_by_side(
    by_hand=backward_by_hand(**point),
    pytorch={name: leaf.grad.item() for name, leaf in zip(point, (w0, x0, w1, x1, w2), strict=True)},
    engine=engine_gradients(circuit, point),
    numeric=numeric_gradients(lambda w0, x0, w1, x1, w2: 1 / (1 + exp(-(w0 * x0 + w1 * x1 + w2))), point),
)
print(comparison(rows), end="")
