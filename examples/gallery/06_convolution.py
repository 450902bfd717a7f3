"""A convolutional layer and its pooling: max_pool(relu(conv(image))), by hand with loops.

Every output pixel of a convolution is a sum of products, so each product sends its part back to one pixel
and one weight: both gradients are sums over all places of the kernel. Max pooling sends everything to the
largest of its window, nothing to the others: of 16 pixels after the convolution 3 get a
gradient (4 windows, and the winner of one is cut off by the relu).
The kernel's gradient has 9 elements, the bias's 1, the image's 36; the last are zero where no winner looked.

    explore --explain examples/gallery/06_convolution.py
"""

import torch
from torch.nn.functional import conv2d, max_pool2d

from explorer import engine
from explorer.comparison import comparison, engine_gradients, numeric_gradients, side_by_side

torch.set_default_dtype(torch.float64)
torch.manual_seed(1)
SIZE, KERNEL, POOL = 6, 3, 2
OUT = SIZE - KERNEL + 1


def layer(image, kernel, bias, conv=conv2d, pool=max_pool2d):
    """The sum of squares of what comes out of the layer."""
    return (pool(conv(image, kernel, bias).relu(), POOL) ** 2).sum()


def backward_by_hand(image, kernel, bias):
    """The same as loops over nested lists, and back again."""
    (image,), (kernel,) = image[0], kernel[0]
    places = [(i, j) for i in range(OUT) for j in range(OUT)]
    window = [(u, v) for u in range(KERNEL) for v in range(KERNEL)]
    conv = {(i, j): bias[0] + sum(kernel[u][v] * image[i + u][j + v] for u, v in window) for i, j in places}
    relu = {place: max(value, 0.0) for place, value in conv.items()}
    d_conv = dict.fromkeys(places, 0.0)
    for i in range(0, OUT, POOL):
        for j in range(0, OUT, POOL):
            winner = max(((i + u, j + v) for u in range(POOL) for v in range(POOL)), key=relu.get)
            d_conv[winner] = 2 * relu[winner] * (conv[winner] > 0)
    d_image = [[0.0] * SIZE for _ in range(SIZE)]
    d_kernel = [[0.0] * KERNEL for _ in range(KERNEL)]
    for (i, j), g in d_conv.items():
        for u, v in window:
            d_image[i + u][j + v] += kernel[u][v] * g
            d_kernel[u][v] += image[i + u][j + v] * g
    print(f"{sum(g != 0 for g in d_conv.values())} of {len(places)} pixels get a gradient")
    return {"image": [[d_image]], "kernel": [[d_kernel]], "bias": [sum(d_conv.values())]}


image = torch.randn(1, 1, SIZE, SIZE, requires_grad=True)
kernel = torch.randn(1, 1, KERNEL, KERNEL, requires_grad=True)
bias = torch.randn(1, requires_grad=True)
loss = layer(image, kernel, bias)
loss.backward()

point = {"image": image.tolist(), "kernel": kernel.tolist(), "bias": bias.tolist()}
rows = side_by_side(
    by_hand=backward_by_hand(**point),
    pytorch={"image": image.grad.tolist(), "kernel": kernel.grad.tolist(), "bias": bias.grad.tolist()},
    engine=engine_gradients(
        lambda image, kernel, bias: layer(image, kernel, bias, engine.conv2d, engine.max_pool2d), point
    ),
    numeric=numeric_gradients(
        lambda **point: layer(**{name: torch.tensor(value) for name, value in point.items()}), point
    ),
)
print(comparison(rows, largest=3), end="")
