"""CS231n's sigmoid circuit: σ(w0·x0 + w1·x1 + w2), written out as 1 / (1 + exp(−s)).

With w = (2, −3, −3) and x = (−1, −2) the output is 0.73 and the gradients are
−0.20, −0.39, 0.20 for w0, w1, w2 and 0.39, −0.59 for x0, x1
(Stanford CS231n, "Backpropagation, Intuitions").

    explore -o sigmoid.svg examples/sigmoid.py
"""

import torch

w0 = torch.tensor(2.0, requires_grad=True)
w1 = torch.tensor(-3.0, requires_grad=True)
w2 = torch.tensor(-3.0, requires_grad=True)
x0 = torch.tensor(-1.0, requires_grad=True)
x1 = torch.tensor(-2.0, requires_grad=True)

s = w0 * x0 + w1 * x1 + w2
sigma = torch.reciprocal(torch.exp(s * -1) + 1)
sigma.backward()

print(f"output {sigma.item():.2f}")
print("w gradients " + " ".join(f"{w.grad:.2f}" for w in (w0, w1, w2)))
print("x gradients " + " ".join(f"{x.grad:.2f}" for x in (x0, x1)))
