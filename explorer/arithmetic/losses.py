"""Losses: how far one prediction is from its target, divided by how many there are.

torch's `reduction` is 0 for none, 1 for the mean and 2 for the sum.
"""

from __future__ import annotations

from math import exp, prod

from explorer.arithmetic.rules import Case, Worked, factor, number, rule

__all__ = ["cross_entropy_of_probabilities", "likelihood", "squares"]


@rule("nll_loss_forward nll_loss2d_forward")
def likelihood(case: Case) -> Worked | None:
    """−G·w/Σw at the target of each sample, 0 elsewhere; without weights w/Σw is 1/n."""
    classes = 1 if len(case.place) > 1 else 0
    sample = tuple(one for at, one in enumerate(case.place) if at != classes)
    target = int(case.need("target").at(sample))
    if target != case.place[classes]:
        return None
    weights = case.block("weight")
    weight = 1.0 if weights is None else weights.at((target,))
    given, divisor = _arrived(case, sample), 1.0
    if case.setting("reduction") == (1.0,):
        divisor = case.need("total_weight").at(())
    text = f"−{factor(given)}" + (f"×{number(weight)}" if weight != 1 else "")
    text += f"/{number(divisor)}" if divisor != 1 else ""
    return Worked(f"{text}, class {target} being the target", -given * weight / divisor)


@rule("mse_loss")
def squares(case: Case) -> Worked | None:
    """G·2·(x − t)/n."""
    x, t = _pair(case)
    a, b = (x, t) if case.argument == "self" else (t, x)
    return _shared(case, f"×2×({number(a)} − {factor(b)})", 2 * (a - b))


@rule("smooth_l1_loss huber_loss")
def rounded(case: Case) -> Worked | None:
    """G·(x − t) near 0 (divided by β for smooth L1), G·±1 far away (times δ for Huber)."""
    x, t = _pair(case)
    gap = x - t if case.argument == "self" else t - x
    huber = case.node.name.startswith("Huber")
    limit = (case.setting("delta" if huber else "beta") or (1.0,))[0]
    if abs(gap) < limit:
        said, slope = (f"×{factor(gap)}", gap) if huber else (f"×{factor(gap)}/{number(limit)}", gap / limit)
    else:
        sign = 1.0 if gap > 0 else -1.0
        said, slope = (f"×{factor(sign * limit)}", sign * limit) if huber else (f"×{factor(sign)}", sign)
    return _shared(case, said, slope)


@rule("binary_cross_entropy")
def cross_entropy_of_probabilities(case: Case) -> Worked | None:
    """G·(p − t)/(p·(1 − p))/n."""
    p, t = _pair(case)
    if case.block("weight") is not None or case.argument != "self" or not 0 < p < 1:
        return None
    said = f"×({number(p)} − {factor(t)})/({number(p)}×{number(1 - p)})"
    return _shared(case, said, (p - t) / (p * (1 - p)))


@rule("binary_cross_entropy_with_logits")
def cross_entropy_of_logits(case: Case) -> Worked | None:
    """G·(σ(x) − t)/n."""
    x, t = _pair(case)
    if case.argument != "self" or any(case.block(name) is not None for name in ("weight", "pos_weight")):
        return None
    p = 1 / (1 + exp(-x)) if x >= 0 else exp(x) / (1 + exp(x))
    return _shared(case, f"×({number(p)} − {factor(t)})", p - t)


def _pair(case: Case) -> tuple[float, float]:
    """The prediction and its target."""
    return case.need("self").at(case.place), case.need("target").at(case.place)


def _shared(case: Case, said: str, slope: float) -> Worked:
    """The slope times what arrived, divided by n for the mean."""
    given = _arrived(case, case.place)
    if case.setting("reduction") != (1.0,):
        return Worked(f"{factor(given)}{said}", given * slope)
    count = prod(case.shape)
    return Worked(f"{factor(given)}{said}/{count:,}", given * slope / count)


def _arrived(case: Case, place: tuple[int, ...]) -> float:
    """The gradient of the loss, one number unless the losses were kept apart."""
    return case.given.at(place if case.given.shape else ())
