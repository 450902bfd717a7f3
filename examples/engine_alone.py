"""The engine on its own: backpropagation in pure Python, held against PyTorch and finite differences.

A two-layer softmax classifier learns three spirals and a tiny CNN learns to tell bars from crosses, both
with nothing but `explorer.engine`: n-dimensional tensors in plain Python lists, whose gradients come from
the very rules that check PyTorch's. Then every gradient of both models is computed three times: by the
engine, by PyTorch, and as a difference quotient of the engine's loss.

    explore examples/engine_alone.py
"""

from math import cos, pi, sin
from random import Random

import torch
from torch.nn.functional import conv2d, cross_entropy, max_pool2d

from explorer import engine

random = Random(0)


def normal(*shape, scale=1.0):
    """Nested lists of normal random numbers."""
    if not shape:
        return scale * random.gauss(0, 1)
    return [normal(*shape[1:], scale=scale) for _ in range(shape[0])]


def spirals(count):
    """Points of three spiral arms, and the number of the arm of each."""
    points, labels = [], []
    for arm in range(3):
        for i in range(count):
            radius = (i + 1) / count
            angle = 2 * pi * arm / 3 + 2.5 * radius + 0.1 * random.gauss(0, 1)
            points.append([radius * cos(angle), radius * sin(angle)])
            labels.append(arm)
    return points, labels


def pictures():
    """Noisy 6x6 pictures: a bar that lies, a bar that stands, a cross."""
    images, labels = [], []
    for label in (0, 1, 2) * 2:
        row, column = random.randrange(1, 5), random.randrange(1, 5)
        lit = [
            [float((label != 1 and i == row) or (label != 0 and j == column)) for j in range(6)]
            for i in range(6)
        ]
        images.append([[[pixel + 0.1 * random.gauss(0, 1) for pixel in line] for line in lit]])
        labels.append(label)
    return images, labels


def classifier(x, w1, b1, w2, b2):
    """Two layers: tanh, then one logit for each class."""
    return (x @ w1 + b1).tanh() @ w2 + b2


def cnn(images, kernel, bias, weight, pool, conv):
    """Convolution, ReLU, max pooling, and a linear layer on top."""
    hidden = pool(conv(images, kernel, bias).relu(), 2)
    return hidden.reshape(hidden.shape[0], -1) @ weight


def train(loss_of, parameters, rate, steps):
    """Gradient descent; returns the loss before and after."""
    losses = []
    for _ in range(steps):
        loss = loss_of(*parameters)
        loss.backward()
        parameters[:] = [engine.tensor(p - rate * p.grad, requires_grad=True) for p in parameters]
        losses.append(loss.item())
    return losses[0], loss_of(*parameters).item()


def flat(nested):
    """All numbers of nested lists in one list."""
    return [one for part in nested for one in flat(part)] if isinstance(nested, list) else [nested]


def quotients(loss_of, parameters, step=1e-5):
    """The gradient of each element of each parameter as a central difference of the loss."""
    found = []
    with engine.no_grad():
        for parameter in parameters:
            numbers = parameter.array.memory
            for i, kept in enumerate(numbers):
                numbers[i] = kept + step
                above = loss_of(*parameters).item()
                numbers[i] = kept - step
                below = loss_of(*parameters).item()
                numbers[i] = kept
                found.append((above - below) / (2 * step))
    return found


points, arms = spirals(20)
x, y = engine.tensor(points), engine.tensor(arms)
layers = [engine.tensor(normal(*shape), requires_grad=True) for shape in [(2, 10), (10,), (10, 3), (3,)]]


def spiral_loss(*weights):
    return engine.cross_entropy(classifier(x, *weights), y)


before, after = train(spiral_loss, layers, 1.0, 60)
print(f"spirals: loss {before:.2f} before, {after:.2f} after")

images, kinds = pictures()
u, v = engine.tensor(images), engine.tensor(kinds)
filters = [
    engine.tensor(normal(*shape, scale=0.5), requires_grad=True) for shape in [(2, 1, 3, 3), (2,), (8, 3)]
]


def picture_loss(*weights):
    return engine.cross_entropy(cnn(u, *weights, engine.max_pool2d, engine.conv2d), v)


before, after = train(picture_loss, filters, 0.5, 20)
print(f"pictures: loss {before:.2f} before, {after:.2f} after")

# The gradients of both losses, three times.
(spiral_loss(*layers) + picture_loss(*filters)).backward()
ours = [one for p in layers + filters for one in flat(p.grad.tolist())]

w1, b1, w2, b2, kernel, bias, weight = (
    torch.tensor(p.tolist(), dtype=torch.float64, requires_grad=True) for p in layers + filters
)
logits = classifier(torch.tensor(points, dtype=torch.float64), w1, b1, w2, b2)
scores = cnn(torch.tensor(images, dtype=torch.float64), kernel, bias, weight, max_pool2d, conv2d)
loss = cross_entropy(logits, torch.tensor(arms)) + cross_entropy(scores, torch.tensor(kinds))
loss.backward()
theirs = [one for p in (w1, b1, w2, b2, kernel, bias, weight) for one in flat(p.grad.tolist())]

numeric = quotients(spiral_loss, layers) + quotients(picture_loss, filters)

print(f"{len(ours)} gradients")
for name, others in {"PyTorch": theirs, "difference quotients": numeric}.items():
    gap = max(abs(a - b) for a, b in zip(ours, others, strict=True))
    print(f"largest difference from {name}: {gap:.0e}")
