"""Operations that choose, repeat or add up elements: what comes back is a sum over their uses."""

from __future__ import annotations

from explorer.arithmetic.rules import Case, Worked, rule, total

__all__ = ["cumulated", "embedding", "product_of_all", "selected"]


@rule("embedding")
def embedding(case: Case) -> Worked | None:
    """Σ G over the uses of this row."""
    row, column = case.place
    indices = [int(one) for one in case.need("indices").read()]
    if case.flag("scale_grad_by_freq"):
        return None
    given = case.given.read(*[None] * (len(case.given.shape) - 1), column)
    uses = [g for g, index in zip(given, indices, strict=True) if index == row]
    return _uses(uses, f"row {row}")


@rule("index_select")
def selected(case: Case) -> Worked | None:
    """Σ G over the uses of this slice."""
    (axis,) = case.whole_numbers("dim", 1)
    axis %= len(case.place)
    own = case.place[axis]
    indices = [int(one) for one in case.need("index").read()]
    along = [None if at == axis else one for at, one in enumerate(case.place)]
    given = case.given.read(*along)
    return _uses([g for g, index in zip(given, indices, strict=True) if index == own], f"index {own}")


@rule("cumsum")
def cumulated(case: Case) -> Worked | None:
    """Σ G from the element's own place to the end: it is in every running sum from there on."""
    (axis,) = case.whole_numbers("dim", 1)
    axis %= len(case.place)
    index = [slice(one, None) if at == axis else one for at, one in enumerate(case.place)]
    return total((g,) for g in case.given.read(*index))


@rule("prod")
def product_of_all(case: Case) -> Worked | None:
    """G·(product of the other elements), for a product of all."""
    if case.given.shape or case.setting("dim"):
        return None
    numbers = case.need("self").read()
    own = 0
    for one, size in zip(case.place, case.shape, strict=True):
        own = own * size + one
    return total([(case.given.at(()), *numbers[:own], *numbers[own + 1 :])])


def _uses(uses: list[float], what: str) -> Worked | None:
    said = total((g,) for g in uses)
    if said is None:
        return None
    return Worked(f"{said.text}, {what} being used {len(uses)} times", said.value)
