"""The mathematics of the common operations: one table for the words, the values and the slopes.

An `Operation` says what the forward computes (`forward`, a template over the names of its inputs) and,
for each differentiable input, what goes back. Elementwise operations (`elementwise`) state the local
derivative: "∂(a·b)/∂a = b"; the gradient is then multiplied by it. The others state the gradient itself,
with G for the gradient that arrives. `value` and `slope` compute on one element, given every needed value
by torch's own argument name ("self", "other", "alpha", …) and "result" for the output.

Kinks are torch's own: slope 0 for relu and abs at 0, 1 at the edges of clamp, ties of maximum and
minimum shared evenly. The keys are aten names, with an overload where its meaning differs. A row of the
tables is kept together (``fmt: skip``) to be read at a glance.
"""

from __future__ import annotations

from explorer.operations import activations, choices, elementary, tensors
from explorer.operations.table import OPERATIONS, Compute, Operation, Values

__all__ = ["FAMILIES", "OPERATIONS", "Compute", "Operation", "Values"]

FAMILIES = (activations, choices, elementary, tensors)
"""The modules whose import fills the table."""
