"""Elementwise operations: upstream × local, for every output that the element went into."""

from __future__ import annotations

from math import pi, sqrt, tanh

from explorer.arithmetic.block import spread
from explorer.arithmetic.rules import Case, Worked, rule, total
from explorer.formulas import arguments, operation
from explorer.mathematics import lookup
from explorer.values import plain_only

__all__ = ["elementwise", "expand", "gelu"]

PASSING = frozenset({"add.Tensor", "sub.Tensor", "rsub.Tensor", "clone", "alias", "_to_copy", "lift_fresh"})
"""What passes a gradient on as it is: with one use there is nothing to work out."""

CUBE = 0.044715
"""The constant of GELU's tanh form."""

USES = 4096
"""An element broadcast to more places than this is not worked out."""


@rule("elementwise")
def elementwise(case: Case) -> Worked | None:
    """Σ G·∂out/∂in over the outputs made from this element; several only where it was broadcast."""
    found = lookup(case.node.name)
    users = spread(case.place, case.shape, case.given.shape)
    if found is None or not found.elementwise or case.argument not in found.slope or not users:
        return None
    if plain_only(case.node) or len(users) > USES:
        return None
    upstream = case.given.uses(case.place, case.shape)
    slopes = [float(found.slope[case.argument](_at(case, place))) for place in users]
    if set(slopes) == {1.0} and (len(users) > 1 or operation(case.node.name).split("(")[0] in PASSING):
        return total((one,) for one in upstream)
    return total(zip(upstream, slopes, strict=True))


@rule("expand")
def expand(case: Case) -> Worked | None:
    """Σ G over the places the element was repeated to."""
    return total((one,) for one in case.given.uses(case.place, case.shape))


@rule("gelu")
def gelu(case: Case) -> Worked | None:
    """G·(Φ(x) + x·φ(x)), or with tanh for Φ: ½(1 + t) + ½x·(1 − t²)·√(2/π)·(1 + 3·0.044715·x²), where
    t = tanh(√(2/π)·(x + 0.044715·x³))."""
    if not plain_only(case.node):
        return elementwise(case)
    x, given, root = case.need("self").at(case.place), case.given.at(case.place), sqrt(2 / pi)
    t = tanh(root * (x + CUBE * x**3))
    slope = 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * CUBE * x * x)
    return total([(given, slope)])


def _at(case: Case, place: tuple[int, ...]) -> dict[str, float]:
    """Every known argument and the result, by torch's name, at one place of the output."""
    known: dict[str, float] = {}
    for name in (*arguments(operation(case.node.name)), "result"):
        block = case.block(name)
        if block is not None and len(block.shape) <= len(place):
            known[name] = block.spread_at(place)
            continue
        setting = case.setting(name)
        if setting is not None and len(setting) == 1:
            known[name] = setting[0]
    return known
