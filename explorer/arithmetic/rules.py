"""What a rule gets and gives, how a sum is written out, and the table of rules."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from math import fsum, prod
from typing import NamedTuple

from explorer.arithmetic.block import LARGEST, Block
from explorer.errors import RuleError
from explorer.formulas import operation
from explorer.graph import Node

__all__ = ["FEW", "RULES", "Case", "Worked", "factor", "number", "rule", "total", "work"]

FEW = 6
"""A sum of at most so many terms is written out; of a longer one the first two and the last."""


class Worked(NamedTuple):
    """A line of arithmetic, what it comes to in float64, and the size of its terms together (0: not said)."""

    text: str
    value: float
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class Case:
    """One element of the gradient that `node` sends to its `argument`.

    `place` is the element's index in the gradient sent, of shape `shape`; `given` is the gradient that
    arrived for the first output. `block` reads an argument or result by torch's name ("weight",
    "result1"), `setting` a number or list of numbers the node keeps ("stride"); both give None where it is
    not known.
    """

    node: Node
    argument: str
    place: tuple[int, ...]
    shape: tuple[int, ...]
    given: Block
    block: Callable[[str], Block | None]
    setting: Callable[[str], tuple[float, ...] | None]

    def need(self, name: str) -> Block:
        """The argument `name`.

        Raises:
            LookupError: it is not known.
        """
        found = self.block(name)
        if found is None:
            raise LookupError(f"{name} is not known")
        return found

    def whole_numbers(self, name: str, count: int, default: int | None = None) -> tuple[int, ...]:
        """`count` whole numbers of a setting, a single one repeated; `default` for an empty one.

        Raises:
            LookupError: it is not known, or has another length.
        """
        found = self.setting(name)
        if not found and default is not None:
            return (default,) * count
        if found is None or len(found) not in {1, count}:
            raise LookupError(f"{name} is not known")
        return tuple(int(one) for one in found) * (count if len(found) == 1 else 1)

    def flag(self, name: str) -> bool:
        """Whether a setting is known to be true."""
        return bool((self.setting(name) or (0.0,))[0])


Rule = Callable[[Case], "Worked | None"]

RULES: dict[str, Rule] = {}
"""aten name ("convolution") -> its rule."""


def rule(names: str) -> Callable[[Rule], Rule]:
    """Register a rule for the operations `names` (aten names, separated by spaces).

    Raises:
        RuleError: one of them has a rule already.
    """

    def register(function: Rule) -> Rule:
        for name in names.split():
            if name in RULES:
                raise RuleError(f"the arithmetic of {name} is registered twice")
            RULES[name] = function
        return function

    return register


def work(case: Case) -> Worked | None:
    """The arithmetic of one element; None where no rule is there, or its numbers are not known."""
    base = operation(case.node.name).split("(", 1)[0]
    found = RULES.get(base) or RULES.get(base.split(".", 1)[0]) or RULES["elementwise"]
    try:
        return found(case)
    except (LookupError, ArithmeticError, ValueError, TypeError):
        return None


def total(terms: Iterable[Sequence[float]], scale: tuple[float, ...] = ()) -> Worked | None:
    """A sum of products in numbers: "2×3 + 4×(-1)", a long one without its middle.

    Terms that are exactly 0 are counted, not written. None for a sum of nothing, or of one plain number,
    where there is nothing to work out, and of more than `LARGEST` terms.

    Args:
        scale: factors of the whole sum.
    """
    every = list(islice(terms, LARGEST + 1))
    if len(every) > LARGEST:
        return None
    living = [term for term in every if 0.0 not in term]
    if not living or (len(every) == 1 and len(every[0]) == 1 and not scale):
        return None
    elided = len(living) > FEW
    shown = ["×".join(map(factor, term)) for term in ([*living[:2], living[-1]] if elided else living)]
    if elided:
        shown.insert(2, "…")
    zeros = len(every) - len(living)
    noted = [f"{len(every):,} terms"] if elided or zeros else []
    noted += [f"{zeros:,} of them 0"] if zeros else []
    text = " + ".join(shown)
    if scale:
        text = "×".join(map(factor, scale)) + (f"×({text})" if len(shown) > 1 else f"×{text}")
    text += f" ({', '.join(noted)})" if noted else ""
    products = list(map(prod, living))
    return Worked(text, prod(scale) * fsum(products), abs(prod(scale)) * fsum(map(abs, products)))


def number(value: float) -> str:
    """Four significant digits."""
    return f"{value:.4g}"


def factor(value: float) -> str:
    """The same, a negative number in brackets."""
    return f"({value:.4g})" if value < 0 else f"{value:.4g}"
