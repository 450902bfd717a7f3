"""The arithmetic of one element of a gradient, in the very numbers that backward used.

A rule is one function per family of operations: from a `Case` (the node, the argument, the place of the
element, and where its numbers can be read) to a `Worked` line: "0.12×0.5 + … + 0.3×0.9 (27 terms)" and what
that comes to in float64. The rules know nothing of torch: numbers are read through `Block`s.

Nothing here is a check (the engine checks): it is what a reader needs to do the sum himself.
"""

from __future__ import annotations

from explorer.arithmetic import choosing, convolution, losses, normalising, pointwise, pooling, products
from explorer.arithmetic.block import Block, blank, flat_block
from explorer.arithmetic.rules import RULES, Case, Worked, work

__all__ = ["FAMILIES", "RULES", "Block", "Case", "Worked", "blank", "flat_block", "work"]

FAMILIES = (choosing, convolution, losses, normalising, pointwise, pooling, products)
"""The modules whose import registers their rules."""
