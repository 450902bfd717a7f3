# ruff: noqa: E501 - a row of the table stays a row
"""Mistakes a backward can make, each planted twice: in what torch sent, and in the engine's own rule.

A `Mutation` names a program (a loss of a given size), the node that goes wrong, and how. `sent` gets what the
node received and sent on and gives a wrong gradient for `slot`; `rule` gets the true rule and its arguments
and gives wrong gradients. A mutation of the fan-out changes what a node receives: no rule takes part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from explorer.engine.array import Array
from explorer.engine.contract import linear
from explorer.engine.elementwise import index_along
from explorer.engine.registry import Site
from explorer.engine.rules.views import rolled

Rule = Callable[..., Sequence[Any]]


@dataclass(frozen=True)
class Sent:
    """What a node received and sent on, and the node itself, for its saved values."""

    node: Any
    received: Tensor
    sent: Tensor


@dataclass(frozen=True)
class Mutation:
    """See the module."""

    name: str
    program: Callable[[int], Tensor]
    node: str
    sent: Callable[[Sent], Tensor]
    rule: Callable[..., Sequence[Any]] | None = None
    slot: int = 0
    fan_out: bool = False


# -------------------------------------------------------------------- programs; n is about their size


def tanh(n: int) -> Tensor:
    return (torch.randn(n, 24).requires_grad_() * 2).tanh().square().sum()


def square(n: int) -> Tensor:
    return (torch.randn(n, 16) @ torch.randn(16, 16).requires_grad_()).square().sum()


def broadcast(n: int) -> Tensor:
    return (torch.randn(n, 24).requires_grad_() + torch.randn(1, 24).requires_grad_()).square().sum()


def softmax(n: int) -> Tensor:
    return (torch.randn(n, 24).requires_grad_() * 2).softmax(-1).square().sum()


def variance(n: int) -> Tensor:
    return (torch.randn(n, 24).requires_grad_() * 2).var(1).square().sum()


def gather(n: int) -> Tensor:
    x = torch.randn(n, 24).requires_grad_() * 2
    return x.gather(1, torch.randint(0, 24, (n, 24))).square().sum()


def product(n: int) -> Tensor:
    return (torch.randn(n, 24).requires_grad_().exp() * torch.randn(n, 24)).square().sum()


def masked(n: int) -> Tensor:
    x = torch.randn(n, 24).requires_grad_() * 2
    return torch.where(torch.rand(n, 24) > 0.5, x, x.detach()).square().sum()


def relu(n: int) -> Tensor:
    return ((torch.randn(n, 24).requires_grad_() * 2).round().relu() + 1).square().sum()


def ties(n: int) -> Tensor:
    return (torch.randint(0, 3, (n, 24)).float().requires_grad_() * 2).amax(1).square().sum()


def embedding(n: int) -> Tensor:
    rows = max(n // 4, 7)
    return F.embedding(torch.randint(0, rows, (n,)), torch.randn(rows, 24).requires_grad_()).square().sum()


def fan_out(n: int) -> Tensor:
    y = torch.randn(n, 24).requires_grad_().sin()
    return (y * 3).square().sum() + y.exp().sum()


def channels(n: int) -> Tensor:
    return (torch.randn(max(n // 256, 2), 64, 5, 5).requires_grad_() * 2).square().sum()


def root(n: int) -> Tensor:
    x = torch.rand(n, 24)
    x[:, 5] = 0.0
    return (x.requires_grad_() * 2).sqrt().square().square().mul(torch.randn(n, 24)).sum()


def turned(n: int) -> Tensor:
    return (torch.randn(24, n).requires_grad_() * 2).t().exp().sum()


def convolution(n: int) -> Tensor:
    x = torch.randn(max(n // 64, 2), 3, 9, 9).requires_grad_() * 2
    return F.conv2d(x, torch.randn(4, 3, 3, 3).requires_grad_(), padding=1).square().sum()


def dropout(n: int) -> Tensor:
    x = torch.randn(n, 24).requires_grad_() * 2
    return (x * ((torch.rand(n, 24) > 0.3) / 0.7)).square().sum()


def ignoring(n: int) -> Tensor:
    target = torch.randint(20, 300, (n,))
    target[n // 3] = target[n // 2] = 7
    return F.nll_loss(torch.randn(n, 300).requires_grad_() * 2, target, ignore_index=7).square()


def causal(n: int) -> Tensor:
    n //= 4
    scores = torch.randn(n, n).requires_grad_() + torch.full((n, n), -torch.inf).triu(1)
    return scores.softmax(-1).square().sum()


def overwriting(n: int) -> Tensor:
    """Three of `n` rows are written, one of them twice."""
    index = torch.tensor([n // 3, n // 5, n // 3])
    return torch.randn(n, 24).requires_grad_().index_select(0, index).square().sum()


def padded(n: int) -> Tensor:
    """A vocabulary of as many words as `n`, of which a sentence uses seven; the sixth is padding."""
    words = torch.tensor([n - 2, 7, 3, 7, n // 2, 5, 9])
    return F.embedding(words, torch.randn(n, 24).requires_grad_(), padding_idx=5).square().sum()


# -------------------------------------------------------------------- what goes wrong


def scaled(place: Any, factor: float) -> Callable[[Sent], Tensor]:
    """One part of what was sent is multiplied."""

    def fault(one: Sent) -> Tensor:
        wrong = one.sent.clone()
        wrong[place] *= factor
        return wrong

    return fault


def scaled_rule(axis: int, index: int, factor: float) -> Callable[..., Sequence[Any]]:
    """One index along an axis of the rule's first gradient is multiplied."""

    def mutate(rule: Rule, n: Site, *g: Any) -> Sequence[Any]:
        first, *rest = rule(n, *g)
        place = index % first.shape[axis]
        return [(first * factor).where(index_along(first.shape, axis).eq(place), first), *rest]

    return mutate


def of_first(function: Callable[[Array], Array]) -> Callable[..., Sequence[Any]]:
    """A mutation of the rule's first gradient alone."""

    def mutate(rule: Rule, n: Site, *g: Any) -> Sequence[Any]:
        first, *rest = rule(n, *g)
        return [function(first), *rest]

    return mutate


class _Changed:
    """A `Site` with some saved values replaced."""

    def __init__(self, n: Site, **values: Any) -> None:
        self.__dict__.update(values)
        self._site = n

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__dict__["_site"], name)


def with_saved(**change: Callable[[Any], Any]) -> Callable[..., Sequence[Any]]:
    """The true rule on changed saved values."""

    def mutate(rule: Rule, n: Site, *g: Any) -> Sequence[Any]:
        return rule(_Changed(n, **{name: f(getattr(n, name)) for name, f in change.items()}), *g)

    return mutate


def _last_write(one: Sent) -> Tensor:
    wrong = torch.zeros_like(one.sent)
    for row, gradient in zip(one.node._saved_indices.tolist(), one.received, strict=True):
        wrong[row] = gradient
    return wrong


def _last_write_rule(rule: Rule, n: Site, g: Array) -> Sequence[Any]:
    last = {row: place for place, row in enumerate(n.indices.values())}
    return [
        linear(n.shape(0), g, lambda p, run: ([(last[p[0]], p[1])] if p[0] in last else [], None)),
    ]


def _last_row_write(one: Sent) -> Tensor:
    wrong = torch.zeros_like(one.sent)
    for row, gradient in zip(one.node._saved_index.tolist(), one.received, strict=True):
        wrong[row] = gradient
    return wrong


def _last_row_write_rule(rule: Rule, n: Site, g: Array) -> Sequence[Any]:
    last = {row: place for place, row in enumerate(n.index.values())}
    return [linear(n.shape(0), g, lambda p, run: ([(last[p[0]], p[1])] if p[0] in last else [], None))]


def _stale_ignore(one: Sent) -> Tensor:
    wrong, target = one.sent.clone(), one.node._saved_target
    wrong[target == 7, 7] = wrong.abs().max()
    return wrong


def _above_the_diagonal(one: Sent) -> Tensor:
    wrong = one.sent.clone()
    wrong.diagonal(1)[:] = 0.01
    return wrong


def _above_the_diagonal_rule(rule: Rule, n: Site, g: Array) -> Sequence[Any]:
    (dx,) = rule(n, g)
    above = (index_along(dx.shape, 1) - index_along(dx.shape, 0)).eq(1)
    return [(dx + 0.01).where(above, dx)]


def _not_padding(one: Sent) -> Tensor:
    wrong = one.sent.clone()
    wrong[5] = one.received[5]
    return wrong


def _first_of_ties(one: Sent) -> Tensor:
    x = one.node._saved_self
    index = x.argmax(1, keepdim=True)
    return torch.zeros_like(x).scatter(1, index, one.received.reshape(-1, 1))


def _without_tap(one: Sent) -> Tensor:
    weight = one.node._saved_weight.clone()
    weight[:, :, 1, 2] = 0
    return F.conv_transpose2d(one.received, weight, padding=1)


def _no_tap(weight: Array) -> Array:
    hit = index_along(weight.shape, 2).eq(1) & index_along(weight.shape, 3).eq(2)
    return (weight * 0.0).where(hit, weight)


def _wrapped(first: Array) -> Array:
    size = first.shape[0]
    return first.where(index_along(first.shape, 0) < size - 2, rolled(first, 0, -2))


MUTATIONS = [
    Mutation("sign", tanh, "TanhBackward0", lambda s: -s.sent, of_first(lambda d: -d)),
    Mutation("factor 1.001", tanh, "TanhBackward0", lambda s: s.sent * 1.001, of_first(lambda d: d * 1.001)),
    Mutation(
        "transposed", square, "MmBackward0", lambda s: s.sent.t(),
        lambda rule, n, g: [None, rule(n, g)[1].mT], slot=1,
    ),
    Mutation(
        "missing broadcast sum", broadcast, "AddBackward0", lambda s: s.received[:1],
        lambda rule, n, g: [g, g.slice(0, 0, 1)], slot=1,
    ),
    Mutation(
        "missing term", softmax, "SoftmaxBackward0", lambda s: s.received * s.node._saved_result,
        lambda rule, n, g: [g * n.result],
    ),
    Mutation("n/(n-1)", variance, "VarBackward0", lambda s: s.sent * (24 / 23), of_first(lambda d: d * (24 / 23))),
    Mutation(
        "off-by-one index", gather, "GatherBackward0", lambda s: s.sent.roll(1, 1),
        of_first(lambda d: rolled(d, 1, 1)),
    ),
    Mutation(
        "stale saved tensor", product, "MulBackward0", lambda s: s.received * (s.node._saved_other + 0.001),
        with_saved(other=lambda other: other + 0.001),
    ),
    Mutation(
        "wrong mask", masked, "WhereBackward0", lambda s: s.received * s.node._saved_condition.roll(1, 1),
        with_saved(condition=lambda mask: rolled(mask, 1, 1)),
    ),
    Mutation(
        "≥ for >", relu, "ReluBackward0", lambda s: s.received * (s.node._saved_result >= 0),
        lambda rule, n, g: [g.where(n.result >= 0)],
    ),
    Mutation("ties: first takes all", ties, "AmaxBackward0", _first_of_ties, lambda rule, n, g: [
        g.reshape(-1, 1).where(n.self.eq(n.result.reshape(-1, 1)))
    ]),
    Mutation(
        "double accumulation", embedding, "EmbeddingBackward0", lambda s: s.sent * 2, of_first(lambda d: d + d)
    ),
    Mutation("lost fan-out", fan_out, "SinBackward0", lambda s: s.received - s.node._saved_self.sin().exp(), fan_out=True),
    Mutation("doubled fan-out", fan_out, "SinBackward0", lambda s: s.received * 2, fan_out=True),
    Mutation("last write wins", embedding, "EmbeddingBackward0", _last_write, _last_write_rule),
    Mutation(
        "rolled embedding rows", embedding, "EmbeddingBackward0", lambda s: s.sent.roll(1, 0),
        of_first(lambda d: rolled(d, 0, 1)),
    ),
    Mutation("one channel off 1 %", channels, "MulBackward0", scaled((slice(None), 37), 1.01), scaled_rule(1, 37, 1.01)),
    Mutation("last row", tanh, "TanhBackward0", scaled(-1, 0.5), scaled_rule(0, -1, 0.5)),
    Mutation("last column", tanh, "TanhBackward0", scaled((slice(None), -1), 0.5), scaled_rule(1, -1, 0.5)),
    Mutation("last batch item", channels, "MulBackward0", scaled(-1, 0.0), scaled_rule(0, -1, 0.0)),
    Mutation("wrapped tail", tanh, "TanhBackward0", lambda s: torch.cat([s.sent[:-2], s.sent[:2]]), of_first(_wrapped)),
    Mutation(
        "NaN turned into 0", root, "SqrtBackward0", lambda s: s.sent.nan_to_num(0.0),
        of_first(lambda d: d.where(d.eq(d), 0.0)),
    ),
    Mutation(
        "read as contiguous", turned, "TBackward0", lambda s: s.received.reshape(s.sent.shape),
        lambda rule, n, g: [g.reshape(*n.shape(0))],
    ),
    Mutation("one conv tap missing", convolution, "ConvolutionBackward0", _without_tap, with_saved(weight=_no_tap)),
    Mutation(
        "wrong dropout mask", dropout, "MulBackward0", lambda s: s.received * s.node._saved_other.roll(1, 0),
        with_saved(other=lambda mask: rolled(mask, 0, 1)),
    ),
    Mutation("stale ignore_index", ignoring, "NllLossBackward0", _stale_ignore, with_saved(ignore_index=lambda _: -100)),
    Mutation(
        "wrong ignore_index", ignoring, "NllLossBackward0",
        lambda s: s.sent * (s.node._saved_target != s.node._saved_target.max()).unsqueeze(1),
        with_saved(target=lambda t: t.minimum(t.amax(0, keepdim=True) - 1)),
    ),
    Mutation("mask off by one", causal, "SoftmaxBackward0", _above_the_diagonal, _above_the_diagonal_rule),
    Mutation("last row write wins", overwriting, "IndexSelectBackward0", _last_row_write, _last_row_write_rule),
    Mutation("unused row not zero", padded, "EmbeddingBackward0", lambda s: s.sent.index_fill(0, torch.tensor([8]), 0.01), of_first(
        lambda d: (d + 0.01).where(index_along(d.shape, 0).eq(8), d)
    )),
    Mutation("padding row not zero", padded, "EmbeddingBackward0", _not_padding, with_saved(padding_idx=lambda _: -1)),
]  # fmt: skip
