"""f = x·y·z by hand, by PyTorch, by the engine, and by wiggling each input.

At (2, 3, 4): f = 24 and the gradients are 12, 8, 6. The derivative of a product by one factor is the
product of the others: ∂f/∂x = y·z = 12, ∂f/∂y = x·z = 8, ∂f/∂z = x·y = 6.

    explore --explain examples/gallery/01_product.py
"""

import torch

from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)


def product(x, y, z):
    return x * y * z


point = {"x": 2.0, "y": 3.0, "z": 4.0}
x, y, z = (torch.tensor(value, requires_grad=True) for value in point.values())
f = product(x, y, z)
f.backward()
print(f"f = {f.item():g}")

rows = side_by_side(
    by_hand={"x": 3.0 * 4.0, "y": 2.0 * 4.0, "z": 2.0 * 3.0},
    pytorch={"x": x.grad.item(), "y": y.grad.item(), "z": z.grad.item()},
    engine=engine_gradients(product, point),
    numeric=numeric_gradients(product, point),
)
print(comparison(rows), end="")
