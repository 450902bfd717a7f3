"""The engine: n-dimensional arrays as recipes, error bounds, and the rules of backward nodes.

Pure Python, without torch or numpy. `Array` (module `array`) computes only the elements asked for;
`vjp` registers the rule of a backward node (see `explorer.engine.rules` for how to write one):

    from explorer.engine import vjp

    @vjp("MySquareBackward")
    def my_square(n, g):
        (x,) = n.saved_tensors
        return [2 * x * g]
"""

from __future__ import annotations

from explorer.engine.array import Array
from explorer.engine.leaf import Leaf, array
from explorer.engine.registry import Site, rule_for, rule_names, vjp
from explorer.engine.rules import FAMILIES

__all__ = ["FAMILIES", "Array", "Leaf", "Site", "array", "rule_for", "rule_names", "vjp"]
