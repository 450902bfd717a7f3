"""The engine: n-dimensional arrays as recipes, error bounds, and the rules of backward nodes.

Pure Python, without torch or numpy. `Array` (module `array`) computes only the elements asked for;
`vjp` registers the rule of a backward node (see `explorer.engine.rules` for how to write one):

    from explorer.engine import vjp

    @vjp("MySquareBackward")
    def my_square(n, g):
        (x,) = n.saved_tensors
        return [2 * x * g]

The same rules serve the engine on its own, like micrograd but n-dimensional:

    from explorer import engine

    w = engine.tensor([[0.5, -0.2], [0.1, 0.3]], requires_grad=True)
    loss = engine.cross_entropy(engine.tensor([[1.0, 2.0]]) @ w, engine.tensor([1]))
    loss.backward()
    w.grad.tolist()
"""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.functions import (
    avg_pool2d,
    binary_cross_entropy_with_logits,
    cat,
    conv2d,
    cross_entropy,
    embedding,
    gather,
    l1_loss,
    log_softmax,
    logsumexp,
    max_pool2d,
    mse_loss,
    nll_loss,
    softmax,
    stack,
    where,
)
from explorer.engine.leaf import Leaf, array
from explorer.engine.registry import Site, rule_for, rule_names, vjp
from explorer.engine.rules import FAMILIES
from explorer.engine.tape import Tensor, no_grad, tensor

__all__ = [
    "FAMILIES",
    "Array",
    "Leaf",
    "Site",
    "Tensor",
    "array",
    "avg_pool2d",
    "binary_cross_entropy_with_logits",
    "cat",
    "conv2d",
    "cross_entropy",
    "embedding",
    "gather",
    "l1_loss",
    "log_softmax",
    "logsumexp",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "no_grad",
    "rule_for",
    "rule_names",
    "softmax",
    "stack",
    "tensor",
    "vjp",
    "where",
]
