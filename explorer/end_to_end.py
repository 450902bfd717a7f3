"""The end-to-end check: the engine's own gradients from the root on, without looking at torch's.

Small graphs only: every gradient on the way is kept whole, with its error bound, until it is used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from explorer.engine.array import Array
from explorer.engine.compare import Comparison, compare
from explorer.engine.elementwise import ADD, Full, Missing, apply
from explorer.engine.leaf import Leaf
from explorer.engine.registry import Rule, Site, apply_rule
from explorer.engine.rounding import Rounding, rounding_of
from explorer.engine.run import Run
from explorer.graph import Graph
from explorer.junctions import Slot


class EndToEnd:
    """Carries the engine's own gradients along, as far as every node on the way can be followed.

    `leaves` holds what each leaf that was compared received by the engine's own reckoning.

    Args:
        graph: the graph; `targets` as in `Junctions`.
        follow: whether the graph is small enough.
        hooked: whether a user's hook may have changed what slot k of node i received.
        senders: how many edges lead to one output of a node.
    """

    def __init__(
        self,
        graph: Graph,
        targets: Sequence[Sequence[Slot | None]],
        follow: bool,
        hooked: Callable[[int, int], bool],
        senders: Callable[[Slot], int],
    ) -> None:
        self._nodes = graph.nodes
        self._roots = set(graph.roots)
        self._targets = targets
        self._hooked = hooked
        self._senders = senders
        self._own: dict[Slot, Array] | None = {} if follow else None
        self.leaves: dict[int, Array] = {}
        self._compared = 0
        self._from_root_on = (
            True  # every leaf's gradient was compared, and none rests on a gradient of torch's
        )

    @property
    def following(self) -> bool:
        """Whether the graph is followed, up to here."""
        return self._own is not None

    @property
    def full(self) -> bool:
        """Whether every leaf was compared with a gradient that rests on the root's alone."""
        return self._own is not None and self._compared > 0 and self._from_root_on

    def stop(self) -> None:
        """From a node that cannot be followed on, the engine has no gradient of its own."""
        self._own = None

    def _received(self, index: int, slot: int, received: Array | None) -> Array | None:
        """The engine's own gradient for one output: given at a root or behind a hook, else summed."""
        assert self._own is not None  # only asked while the graph is followed
        own = self._own.pop((index, slot), None)
        if (index, slot) in self._roots:
            return received
        if self._hooked(index, slot):
            self._from_root_on = False  # from here on it is torch's own gradient that is followed
            return received
        return own

    def carry(
        self, index: int, incoming: Sequence[Array | None], rule: Rule, site: Site, rounding: Rounding
    ) -> None:
        """Send the engine's own gradients on from node `index`, by its rule."""
        if self._own is None:
            return
        kept = Run(rounding, bounds=False)
        own = [
            self._received(
                index, slot, one if one is None or isinstance(one, Missing) else _stored(one, kept)
            )
            for slot, one in enumerate(incoming)
        ]
        try:
            nothing = all(one is None for one in own)
            gradients = [None] * len(site.inputs) if nothing else apply_rule(rule, site, own)
            run = Run(replace(rounding, quadrature=True))
            for slot, gradient in enumerate(gradients):
                target = self._targets[index][slot]
                if target is None or gradient is None:
                    continue
                if isinstance(gradient, Missing):
                    self.stop()
                    return
                other = self._own.get(target)
                total = gradient if other is None else apply(ADD, other, gradient)
                self._own[target] = _stored(total, run)
        except Exception:  # noqa: BLE001 - the local check has reported the rule's failure already
            self.stop()

    def leaf(self, index: int, incoming: Sequence[Array | None]) -> Comparison | None:
        """Compare what a leaf receives, None where there is nothing of our own to compare with."""
        if self._own is None or not incoming or incoming[0] is None:
            return None
        own = None if isinstance(incoming[0], Missing) else self._received(index, 0, incoming[0])
        if own is None or own is incoming[0]:
            self._from_root_on &= (index, 0) in self._roots and not self._senders((index, 0))
            return None
        spec = self._nodes[index].outputs[0]
        rounding = replace(rounding_of([spec.dtype] if spec else []), quadrature=True)
        self._compared += 1
        self.leaves[index] = own
        return compare(own, incoming[0], rounding, whole=True, factor=8.0, run=Run(rounding))

    def close(self) -> None:
        """Let the gradients go."""
        if self._own is not None:
            self._own.clear()


def _stored(array: Array, run: Run) -> Array:
    """Everything `array` gives, computed and kept as a list of values and their bounds."""
    if array.numel == 0:
        return Full(0.0, array.shape)
    found: tuple[Any, Any] = array.eval(array.full_box, run)
    values, errors = found
    dtype = "complex128" if array.is_complex else "float64"
    return Leaf(list(values), array.shape, dtype=dtype, errors=errors)
