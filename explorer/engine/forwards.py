"""What operations compute, by the names of their backward nodes: for the check of saved values.

A forward gets the values of its node by torch's own argument names (`Known`): what the node saved, else what
the nodes before it gave. It returns one array per output. Where a value is not known it gives up by raising
`UnknownValueError`; an addend that nobody saved is left out and noted instead (`Known.addend`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from explorer.engine.array import Array
from explorer.engine.elementwise import Missing
from explorer.engine.registry import Site
from explorer.errors import EngineError
from explorer.graph import TensorSpec

Forward: TypeAlias = "Callable[[Known], Any]"  # an array, or a sequence of arrays: one per output


class UnknownValueError(EngineError):
    """A value that the forward needs is kept nowhere."""


class Known:
    """What a forward sees of its node, by convention named `n`.

    Args:
        saved: what the node saved, as in `Site`.
        given: the value of each argument that another node made, by torch's name.
        outputs: the specs of the node's outputs.
        likely: values of arguments as they are now, in case one is only added.
    """

    def __init__(
        self,
        saved: Mapping[str, Any],
        given: Mapping[str, Any],
        outputs: Sequence[TensorSpec | None],
        likely: Mapping[str, Array] | None = None,
    ) -> None:
        self._site = Site("", saved, (), outputs)
        self._given = given
        self._likely = likely or {}
        self.shapes = [None if spec is None else spec.shape for spec in outputs]
        self.left_out = False  # an addend was left out
        self.assumed = False  # an addend was taken as it is now

    def __getattr__(self, name: str) -> Any:
        saved = self._site.saved.get(name)
        value = self._given.get(name) if saved is None or isinstance(saved, Missing) else saved
        if value is None or isinstance(value, Missing):
            raise UnknownValueError(name)
        return value

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the first output."""
        if self.shapes[0] is None:
            raise UnknownValueError("shape")
        return self.shapes[0]

    def setting(self, name: str) -> Any:
        """A saved setting, which may be None."""
        if name not in self._site.saved:
            raise UnknownValueError(name)
        return self._site.saved[name]

    def factor(self, name: str, beside: str) -> Any:
        """A tensor that need not be there: 1 where torch kept None.

        None says so only where the gradient of the argument `beside` is wanted, which would need it.
        """
        value = self._site.saved.get(name)
        if value is None and name not in self._given and beside in self._given:
            return 1.0
        return getattr(self, name)

    def addend(self, name: str) -> Any:
        """An argument that is added at the end, the same in every row.

        Where it is not known, it is taken as it is now, if that is likely to be the same, or left out.
        """
        try:
            return getattr(self, name)
        except UnknownValueError:
            self.assumed = name in self._likely
            self.left_out = not self.assumed
            return self._likely.get(name, 0.0)


@dataclass(frozen=True, slots=True)
class Computation:
    """A registered forward: its function, and how many elements of an input one of the output takes."""

    function: Forward
    reads: Callable[[Known], int]


_FORWARDS: dict[str, Computation] = {}


def forward(*names: str, reads: Callable[[Known], int] = lambda n: 1) -> Callable[[Forward], Forward]:
    """Register what the operations of the backward nodes `names` compute; `reads` as in `Computation`."""

    def register(function: Forward) -> Forward:
        for name in names:
            if name in _FORWARDS:
                raise ValueError(f"{name} already has a forward")
            _FORWARDS[name] = Computation(function, reads)
        return function

    return register


def forward_of(name: str) -> Computation | None:
    """The forward of a backward node, None when there is none."""
    return _FORWARDS.get(name)


def forward_names() -> tuple[str, ...]:
    """All names that have a forward, sorted."""
    return tuple(sorted(_FORWARDS))
