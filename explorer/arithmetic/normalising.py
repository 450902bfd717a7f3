"""Batch, layer and group norm, whose inputs all meet in a mean and a variance; var, std and norms."""

from __future__ import annotations

from math import fsum, prod, sqrt

from explorer.arithmetic.block import Block
from explorer.arithmetic.rules import Case, Worked, factor, number, rule, total

__all__ = ["batch_norm", "group_norm", "layer_norm"]


@rule("native_batch_norm cudnn_batch_norm miopen_batch_norm")
def batch_norm(case: Case) -> Worked | None:
    """Per channel: weight Σ G·x̂, bias Σ G, input w/σ·(G − mean(G) − x̂·mean(G·x̂)); w/σ·G when it does not
    train, for its mean and variance are then constants."""
    channel = case.place[1] if case.argument == "input" else case.place[0]
    given = case.given.read(None, channel)
    if case.argument == "bias":
        return total((g,) for g in given)
    trains = case.flag("training") or not case.node.name.startswith("NativeBatchNorm")
    if trains:
        mean, scale = case.need("result1").at((channel,)), case.need("result2").at((channel,))
    else:
        mean = case.need("running_mean").at((channel,))
        variance = case.need("running_var").at((channel,))
        scale = 1 / sqrt(variance + (case.setting("eps") or (0.0,))[0])
    source = case.need("input").read(None, channel)
    hats = [(x - mean) * scale for x in source]
    if case.argument == "weight":
        return _hats(given, hats)
    weight = _weight(case, channel)
    own = _own(case.place[:1] + case.place[2:], case.shape[:1] + case.shape[2:])
    if not trains:
        text = f"{factor(weight)}/{number(1 / scale)}×{factor(given[own])}"
        return Worked(text, weight * scale * given[own])
    return _normalised(source[own], mean, scale, weight, given, hats, own)


@rule("native_layer_norm")
def layer_norm(case: Case) -> Worked | None:
    """Per row: input 1/σ·(w·G − mean(w·G) − x̂·mean(w·G·x̂)); weight Σ G·x̂ and bias Σ G over the rows."""
    inner = len(case.setting("normalized_shape") or ())
    shape = case.given.shape
    outer = len(shape) - inner
    means, scales = case.need("result1"), case.need("result2")
    if case.argument != "input":
        column = [None] * outer + list(case.place)
        given = case.given.read(*column)
        if case.argument == "bias":
            return total((g,) for g in given)
        centres, widths = means.read(), scales.read()
        source = case.need("input").read(*column)
        return _hats(given, [(x - m) * s for x, m, s in zip(source, centres, widths, strict=True)])
    row = case.place[:outer]
    where = (*row, *[0] * inner)
    mean, scale = means.at(where), scales.at(where)
    source = case.need("input").read(*row)
    weights = case.block("weight")
    factors = weights.read() if weights is not None else [1.0] * prod(shape[outer:])
    given = [w * g for w, g in zip(factors, case.given.read(*row), strict=True)]
    own = _own(case.place[outer:], shape[outer:])
    hats = [(x - mean) * scale for x in source]
    return _normalised(source[own], mean, scale, 1.0, given, hats, own, "w·G" if weights is not None else "G")


@rule("native_group_norm")
def group_norm(case: Case) -> Worked | None:
    """Per image and group of channels, as layer norm with one weight per channel."""
    (groups,) = case.whole_numbers("group", 1)
    batch, channels = case.given.shape[:2]
    per = channels // groups
    means, scales = case.need("result1"), case.need("result2")
    source = case.need("input")
    if case.argument != "input":
        (channel,) = case.place
        given = case.given.read(None, channel)
        if case.argument == "bias":
            return total((g,) for g in given)
        hats = []
        for n in range(batch):
            where = (n, channel // per)
            mean, scale = means.at(where), scales.at(where)
            hats += [(x - mean) * scale for x in source.read(n, channel)]
        return _hats(given, hats)
    n, channel = case.place[:2]
    group = channel // per
    chosen = slice(group * per, (group + 1) * per)
    mean, scale = means.at((n, group)), scales.at((n, group))
    numbers = source.read(n, chosen)
    size = len(numbers) // per
    weights = case.block("weight")
    factors = weights.read(chosen) if weights is not None else [1.0] * per
    given = [factors[at // size] * g for at, g in enumerate(case.given.read(n, chosen))]
    own = _own((channel - group * per, *case.place[2:]), (per, *case.shape[2:]))
    hats = [(x - mean) * scale for x in numbers]
    return _normalised(
        numbers[own], mean, scale, 1.0, given, hats, own, "w·G" if weights is not None else "G"
    )


@rule("mean")
def mean(case: Case) -> Worked | None:
    """G/n: every element that was averaged has the same share."""
    given, shared = reduced(case), prod(case.shape) // max(prod(case.given.shape), 1)
    return Worked(f"{factor(given)}/{shared}", given / shared)


@rule("var std")
def spread_of(case: Case) -> Worked | None:
    """Variance: G·2·(x − mean)/(n − c); standard deviation: G·(x − mean)/(std·(n − c))."""
    numbers = case.need("self").read(*line(case))
    x, centre = case.need("self").at(case.place), fsum(numbers) / len(numbers)
    correction = case.setting("correction")
    divisor = len(numbers) - (correction[0] if correction else 1.0)
    given = reduced(case)
    if case.node.name.startswith("Var"):
        text = f"{factor(given)}×2×({number(x)} − {factor(centre)})/{number(divisor)}"
        return Worked(text, given * 2 * (x - centre) / divisor)
    deviation = sqrt(fsum((one - centre) ** 2 for one in numbers) / divisor)
    text = f"{factor(given)}×({number(x)} − {factor(centre)})/({number(deviation)}×{number(divisor)})"
    return Worked(text, given * (x - centre) / (deviation * divisor))


@rule("norm linalg_vector_norm")
def norm(case: Case) -> Worked | None:
    """The 2-norm: G·x/‖x‖."""
    order = case.setting("ord") or case.setting("p")
    if order is not None and order != (2.0,):
        return None
    numbers = case.need("self").read(*line(case))
    x, size, given = case.need("self").at(case.place), sqrt(fsum(one * one for one in numbers)), reduced(case)
    return Worked(f"{factor(given)}×{factor(x)}/{number(size)}", given * x / size)


def line(case: Case) -> tuple[int | None, ...]:
    """The index of everything that was reduced together with the element."""
    axes = _axes(case)
    return tuple(None if at in axes else i for at, i in enumerate(case.place))


def reduced(case: Case) -> float:
    """The gradient that arrived for the reduction the element took part in."""
    axes = _axes(case)
    if len(case.given.shape) == len(case.place):  # the axes were kept, with size 1
        return case.given.at(tuple(0 if at in axes else i for at, i in enumerate(case.place)))
    return case.given.at(tuple(i for at, i in enumerate(case.place) if at not in axes))


def _axes(case: Case) -> frozenset[int]:
    """The axes that were reduced: all, where none are named."""
    rank = len(case.place)
    found = case.setting("dim")
    if not found or not case.given.shape:
        return frozenset(range(rank))
    return frozenset(int(one) % rank for one in found)


def _hats(given: list[float], hats: list[float]) -> Worked | None:
    """Σ G·x̂."""
    said = total(zip(given, hats, strict=True))
    return Worked(f"{said.text}, each G×x̂", said.value) if said else None


def _normalised(
    x: float,
    mean: float,
    scale: float,
    weight: float,
    given: list[float],
    hats: list[float],
    own: int,
    said: str = "G",
) -> Worked:
    """w/σ·(G − mean(G) − x̂·mean(G·x̂)), with where x̂ comes from."""
    count = len(given)
    level = fsum(given) / count
    lean = fsum(g * hat for g, hat in zip(given, hats, strict=True)) / count
    hat, sigma = hats[own], number(1 / scale)
    text = (
        f"x̂ = ({number(x)} − {factor(mean)})/{sigma} = {number(hat)}, mean({said}) = {number(level)}, "
        f"mean({said}·x̂) = {number(lean)} over {count:,} elements; so {factor(weight)}/{sigma}"
        f"×({number(given[own])} − {factor(level)} − {factor(hat)}×{factor(lean)})"
    )
    return Worked(text, weight * scale * (given[own] - level - hat * lean))


def _weight(case: Case, channel: int) -> float:
    """The learnt factor of a channel, 1 where there is none."""
    found: Block | None = case.block("weight")
    return 1.0 if found is None else found.at((channel,))


def _own(place: tuple[int, ...], shape: tuple[int, ...]) -> int:
    """The row-major position of `place` in `shape`."""
    found = 0
    for one, size in zip(place, shape, strict=True):
        found = found * size + one
    return found
