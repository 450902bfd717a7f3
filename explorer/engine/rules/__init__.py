"""The rules: one vector-Jacobian product per backward node, a family a file.

How to add one:

    from explorer.engine.array import Array
    from explorer.engine.registry import Site, vjp

    @vjp("SoftmaxBackward0")
    def softmax(n: Site, g: Array) -> list[Array | None]:
        \"\"\"y = eˣ / Σ eˣ:  dx = g y - y Σ g y.\"\"\"
        gy = g * n.result
        return [gy - n.result * gy.sum(n.dim, keepdim=True)]

- `n.NAME`: saved value by torch's name (``_saved_`` dropped): an `Array`, a list of them, or a plain value
  with negative integers signed; None where torch kept none. Arithmetic with None or with a value that was
  freed gives a `Missing` array: its slot becomes `unchecked`, the others stay good.
- `n.shape(i)`: shape of input i (of the tensor behind ``next_functions[i]``); `n.needs(i)`; `n.inputs[i]`
  and `n.outputs[k]` are `TensorSpec`s; `n.name` is the node's name when one rule serves several.
- `g`: the gradient of the output; a node with several outputs takes ``(n, g0, g1, ...)``, None if undefined.
- Return one array or None per entry of ``next_functions``. Summing to a broadcast input, complex to real
  and casts happen afterwards. Compute only what is wanted where the rest is costly (`n.needs`).
- Write the formula as torch arranges it: error bounds follow the arrangement.
- Building blocks: operators, `where`, `sum`, `@`, views of `Array`; `index_along` (indices), `cat`, `stack`,
  `pad`; `dots` (an element is a dot of two boxes), `linear` (an element is a weighted sum of some elements).
- A new family is a new module here, imported below.
"""

from __future__ import annotations

from explorer.engine.registry import apply_rule, rule_for, rule_names, unregister, vjp
from explorer.engine.rules import (
    activations,
    arithmetic,
    attention,
    complex_numbers,
    convolution,
    factors,
    functions,
    grids,
    indexing,
    losses,
    lu,
    masks,
    normalisation,
    padding,
    placing,
    products,
    reducing,
    reductions,
    reflectors,
    resizing,
    second,
    second_layers,
    selections,
    sequences,
    solving,
    sparse,
    special,
    spectral,
    steps,
    unary,
    vectors,
    views,
    windows,
    wrappers,
)

FAMILIES = (
    activations,
    arithmetic,
    attention,
    complex_numbers,
    convolution,
    factors,
    functions,
    grids,
    indexing,
    losses,
    lu,
    masks,
    normalisation,
    padding,
    placing,
    products,
    reducing,
    reductions,
    reflectors,
    resizing,
    second,
    second_layers,
    selections,
    sequences,
    solving,
    sparse,
    special,
    spectral,
    steps,
    unary,
    vectors,
    views,
    windows,
    wrappers,
)
"""The modules that hold rules."""

__all__ = ["FAMILIES", "apply_rule", "rule_for", "rule_names", "unregister", "vjp"]
