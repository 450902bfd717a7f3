"""One evaluation: the rounding it assumes, what it has computed already, and how much it cost."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Any, TypeAlias

from explorer.engine.rounding import Rounding

if TYPE_CHECKING:
    from explorer.engine.memory import Box, Values

Errors: TypeAlias = "list[float] | None"
"""Error bounds, one per value; None where every value is exact."""
Bounded: TypeAlias = "tuple[Values, Errors]"


class Run:
    """State of one evaluation of some recipes.

    `bounds`: carry error bounds (otherwise values only, which is twice as fast). `quick`: sums give
    a cheap *lower* bound on their error bound and do not look at the errors of their terms; what
    agrees within a lower bound agrees within the bound itself, so most elements never need more.
    `memo` keeps what shared subexpressions gave. `work` counts elements read and multiplied, the
    engine's own measure of time. `peak`, when not None, is the largest finite magnitude met so far, and
    `infinite` whether an infinite one was.

    Several gradients of one node may share a run. `turn` counts them: what an earlier one left in `memo`
    costs nothing, yet is counted as work, so that nobody takes the elements at hand for the price of others.
    """

    __slots__ = ("bounds", "costs", "infinite", "memo", "peak", "places", "quick", "rounding", "turn", "work")

    def __init__(self, rounding: Rounding, *, quick: bool = False, bounds: bool = True) -> None:
        self.rounding = rounding
        self.quick = quick
        self.bounds = bounds
        self.memo: dict[Any, Any] = {}
        self.costs: dict[Any, tuple[int, int]] = {}
        self.places: dict[Any, tuple[Any, list[int]]] = {}
        self.work = 0
        self.turn = 0
        self.peak: float | None = None
        self.infinite = False

    def recall(self, key: Any) -> Any:
        """What `keep` has stored under `key`, None before."""
        value = self.memo.get(key)
        if value is not None and self.turn:
            work, turn = self.costs[key]
            if turn != self.turn:
                self.work += work
                self.costs[key] = work, self.turn
        return value

    def keep(self, key: Any, value: Any, before: int) -> None:
        """Store what was computed since the work was `before`."""
        self.memo[key] = value
        self.costs[key] = self.work - before, self.turn

    def see(self, values: Values) -> None:
        """Note the largest finite magnitude among intermediate `values` (only when asked to)."""
        if self.peak is not None:
            for value in values:
                size = abs(value)
                if self.peak < size < inf:
                    self.peak = size
                elif size == inf:
                    self.infinite = True

    def see_sum(self, terms: Values) -> None:
        """Note what a sum meets on its way: each term, and the sum of all that have one sign.

        Torch adds in an order of its own; no partial sum is larger than the larger of those two.
        """
        self.see(terms)
        if terms and not any(isinstance(term, complex) for term in terms):
            self.see([sum(t for t in terms if t > 0), sum(t for t in terms if t < 0)])

    def terms(self, recipe: _Recipe, box: Box) -> Bounded:
        """`recipe` over `box` as terms of a sum: values alone when the run is quick."""
        if not self.quick or not self.bounds:
            return recipe.eval(box, self)
        self.bounds = False
        try:
            return recipe.eval(box, self)
        finally:
            self.bounds = True


if TYPE_CHECKING:
    from explorer.engine.array import Array as _Recipe
