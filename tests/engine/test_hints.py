# ruff: noqa: E501 - a row of the table stays a row
"""Hints: mistakes that hide in a few elements of a large gradient, caught with them and missed without.

Each row is a program with a large gradient, the node that goes wrong, and what it sends then. The same
mistake is looked for twice: with the hints of the node's rule, and with none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import explorer.check
from explorer.engine import registry
from explorer.engine.array import Array
from explorer.engine.compare import Comparison, compare
from explorer.engine.hints.reading import READS, run_of, seen
from explorer.engine.leaf import Leaf
from explorer.engine.memory import Box
from explorer.engine.run import Run
from explorer.report import Verdict
from hooks.nodes import Event
from tests.engine.mutations import Sent
from tests.engine.op_check import check_operation
from tests.engine.test_faults import verdict_of
from tests.test_op_db import DIFFERENTIABLE

ROWS, WIDTH = 100_000, 8


@dataclass(frozen=True)
class Hidden:
    """See the module."""

    name: str
    program: Callable[[], Tensor]
    node: str
    sent: Callable[[Sent], Tensor]
    slot: int = 0


def leaf(*shape: int) -> Tensor:
    return torch.randn(shape).requires_grad_()


def some(count: int, size: int, *more: int) -> Tensor:
    """A few indices below `size`, each once but the third, which comes three times; and `more`."""
    chosen = torch.randperm(size)[:count]
    chosen[-5] = chosen[-7] = chosen[2]
    return torch.cat([chosen, torch.tensor(more, dtype=torch.long)])


def changed(change: Callable[[Sent, Tensor], object]) -> Callable[[Sent], Tensor]:
    """What was sent, with something done to a copy of it."""

    def fault(one: Sent) -> Tensor:
        wrong = one.sent.clone()
        change(one, wrong)
        return wrong

    return fault


def last_write(saved: str) -> Callable[[Sent], Tensor]:
    """Rows that were read several times get the gradient of the last reader alone."""

    def change(one: Sent, wrong: Tensor) -> None:
        index = getattr(one.node, saved)
        for row, gradient in zip(index.tolist(), one.received, strict=True):
            wrong[row] = gradient

    return changed(change)


def last_writer(saved: str) -> Callable[[Sent], Tensor]:
    """Of the places that were written to one row only the last gets its gradient."""

    def change(one: Sent, wrong: Tensor) -> None:
        index = getattr(one.node, saved).reshape(len(wrong), -1)[:, 0].tolist()
        for place, row in enumerate(index):
            if row in index[place + 1 :]:
                wrong[place] = 0

    return changed(change)


def beside(saved: str) -> Callable[[Sent], Tensor]:
    """Rows that nobody read, next to one that somebody did, are not zero."""

    def change(one: Sent, wrong: Tensor) -> None:
        index = set(getattr(one.node, saved).reshape(-1).tolist())
        wrong[[row + 1 for row in index if 0 <= row + 1 < len(wrong) and row + 1 not in index]] = 0.5

    return changed(change)


def passed_on(one: Sent) -> Tensor:
    """What was overwritten or masked gets the gradient all the same."""
    return one.received.clone()


def embedding(**options: Any) -> Tensor:
    index = some(30, ROWS, 77, 78) if "padding_idx" not in options else some(30, ROWS, options["padding_idx"])
    return F.embedding(index, leaf(ROWS, WIDTH), **options).square().sum()


def bag() -> Tensor:
    return (
        F.embedding_bag(some(32, ROWS), leaf(ROWS, WIDTH), torch.arange(0, 32, 2), mode="sum").square().sum()
    )


def _bag_last(one: Sent) -> Tensor:
    wrong = one.sent.clone()
    for place, row in enumerate(one.node._saved_indices.tolist()):
        wrong[row] = one.received[place // 2]
    return wrong


def written(how: str) -> Tensor:
    """A few of many rows written; the source has as many rows as the index."""
    x = leaf(ROWS, WIDTH) * 2
    index = some(40, ROWS) if how != "index_copy" else torch.randperm(ROWS)[:40]
    if how == "index_fill":
        return x.index_fill(0, index, 3.0).square().sum()
    if how == "index_put":
        return x.index_put((index,), leaf(40, WIDTH)).square().sum()
    if how == "scatter":
        return x.scatter(0, index[:, None].expand(-1, WIDTH), leaf(40, WIDTH)).square().sum()
    return x.index_copy(0, index, leaf(40, WIDTH)).square().sum()


def added(how: str) -> Tensor:
    """Thousands of rows added up in as many others; two of them meet in one."""
    x = leaf(ROWS, WIDTH) * 2
    index = torch.randperm(ROWS)[:2000]
    index[300] = index[1200]
    source = leaf(2000, WIDTH)
    if how == "index_add":
        return x.index_add(0, index, source * 2).square().sum()
    if how == "index_put":
        return x.index_put((index,), source * 2, accumulate=True).square().sum()
    wide = index[:, None].expand(-1, WIDTH)
    if how == "scatter_reduce":
        return x.scatter_reduce(0, wide, source * 2, "sum").square().sum()
    return x.scatter_add(0, wide, source * 2).square().sum()


def gather() -> Tensor:
    return leaf(ROWS, WIDTH).gather(0, some(30, ROWS)[:, None].expand(-1, WIDTH)).square().sum()


def _gather_last(one: Sent) -> Tensor:
    wrong = torch.zeros_like(one.sent)
    return wrong.scatter(0, one.node._saved_index, one.received)


def _from_the_end(one: Sent) -> Tensor:
    wrong = one.sent.clone()
    wrong[-35] = 0
    return wrong


def mask(*places: int) -> Tensor:
    found = torch.zeros(ROWS * WIDTH, dtype=torch.bool)
    found[list(places)] = True
    return found.reshape(ROWS, WIDTH)


MIDDLE = tuple(range(ROWS * WIDTH // 2 - 60, ROWS * WIDTH // 2 - 20))


def kinked(function: Callable[[Tensor], Tensor], kink: float) -> Callable[[], Tensor]:
    """Elements above the kink, but for a few in the middle, which lie on it."""

    def program() -> Tensor:
        x = torch.rand(ROWS, WIDTH) + kink + 0.05
        x[mask(*MIDDLE)] = kink
        return (function(x.requires_grad_() * 1.0) + 1).square().sum()

    return program


def other_side(value: float = 0.0) -> Callable[[Sent], Tensor]:
    """The elements on the kink are taken for some on the other side."""
    return changed(lambda one, wrong: wrong.__setitem__(mask(*MIDDLE), one.received[mask(*MIDDLE)] * value))


def winners(function: Callable[[Tensor], Tensor], *shape: int) -> Callable[[], Tensor]:
    return lambda: function(leaf(*shape) * 2).square().sum()


def shifted(one: Sent) -> Tensor:
    """The element beside the winner gets its gradient."""
    return one.sent.roll(1, -1)


def _cummax_last(one: Sent) -> Tensor:
    wrong = torch.zeros_like(one.sent).scatter(1, one.node._saved_indices, one.received)
    wrong[:, 0] = one.sent[:, 0]  # the first element always wins once, and is always looked at
    return wrong


def nll(rows: int = 3000, classes: int = 500) -> Tensor:
    target = torch.randint(20, classes, (rows,))
    target[[rows // 500, rows // 4, rows // 2 + 1]] = 7
    target[[rows // 30, rows // 3]] = 8
    x = torch.randn(rows, classes).requires_grad_() * 2
    return F.nll_loss(x, target, ignore_index=7).square()


def nll_2d() -> Tensor:
    target = torch.randint(20, 60, (2, 40, 41))
    target[1, 20] = 7
    x = torch.randn(2, 60, 40, 41).requires_grad_() * 2
    return F.nll_loss(x, target, ignore_index=7).square()


def _ignored_counts(one: Sent) -> Tensor:
    """A stale `ignore_index`: ignored rows get what others get."""
    wrong, target = one.sent.clone(), one.node._saved_target
    hit = F.one_hot(target, wrong.shape[1]).movedim(-1, 1) & (target == 7).unsqueeze(1)
    wrong[hit.bool()] = wrong.abs().max()
    return wrong


def _wrong_ignore(one: Sent) -> Tensor:
    """Class 8 is ignored in place of 7."""
    wrong = one.sent.clone()
    wrong[one.node._saved_target == 8] = 0
    return wrong


def _beside_the_target(one: Sent) -> Tensor:
    wrong, target = one.sent.clone(), one.node._saved_target
    wrong[torch.arange(len(target)), (target + 1) % wrong.shape[1]] += wrong.abs().max()
    return wrong


def attention() -> Tensor:
    q, k, v = (torch.randn(1, 2, rows, 8).requires_grad_() for rows in (300, 900, 900))
    return F.scaled_dot_product_attention(q / 2, k / 2, v * 2, is_causal=True).square().sum()


def causal(function: Callable[[Tensor, int], Tensor]) -> Callable[[], Tensor]:
    """Scores of which the upper triangle is masked with -inf."""

    def program() -> Tensor:
        scores = leaf(1700, 1700) + torch.full((1700, 1700), -torch.inf).triu(1)
        return function(scores, -1).square().tril().nan_to_num(0.0).sum()

    return program


def _above_the_diagonal(one: Sent) -> Tensor:
    """The mask is one off."""
    wrong = one.sent.clone()
    wrong.diagonal(1)[:] = 0.01
    return wrong


def ctc() -> Tensor:
    p = (torch.randn(120, 3, 200).requires_grad_() * 2).log_softmax(-1)
    lengths = torch.tensor([120, 100, 90]), torch.tensor([6, 5, 4])
    return F.ctc_loss(p, torch.randint(60, 200, (3, 6)), *lengths, blank=57) * 2


def _without_blank(one: Sent) -> Tensor:
    wrong = one.sent.clone()
    wrong[:, :, 57] = one.node._saved_log_probs[:, :, 57].exp() * wrong.abs().max()
    return wrong


def unpooled() -> Tensor:
    index = torch.arange(0, 4 * 64 * 64, 4).reshape(1, 1, 64, 64).repeat(1, 4, 1, 1)
    index[:, :, 32, 40] = index[:, :, 32, 10]
    return F.max_unpool2d(leaf(1, 4, 64, 64) * 2, index, [2, 2]).square().sum()


OVERWRITING = {
    "index_fill": "IndexFillBackward0", "index_put": "IndexPutBackward0", "scatter": "ScatterBackward0",
    "index_copy": "IndexCopyBackward0",
}  # fmt: skip
ADDING = {
    "index_add": "IndexAddBackward0", "scatter_add": "ScatterAddBackward0", "scatter_reduce": "ScatterReduceBackward0"
}  # fmt: skip

HIDDEN = [
    Hidden("embedding: last write wins", embedding, "EmbeddingBackward0", last_write("_saved_indices")),
    Hidden("embedding: an unused row", embedding, "EmbeddingBackward0", beside("_saved_indices")),
    Hidden("embedding: the padding row", lambda: embedding(padding_idx=41), "EmbeddingBackward0", last_write("_saved_indices")),
    Hidden("embedding_bag: last write wins", bag, "EmbeddingBagBackward0", _bag_last),
    Hidden("embedding_bag: an unused row", bag, "EmbeddingBagBackward0", beside("_saved_indices")),
    Hidden("index_select: last write wins", lambda: leaf(ROWS, WIDTH).index_select(0, some(30, ROWS)).square().sum(), "IndexSelectBackward0", last_write("_saved_index")),
    Hidden("index_select: an unused row", lambda: leaf(ROWS, WIDTH).index_select(0, some(30, ROWS)).square().sum(), "IndexSelectBackward0", beside("_saved_index")),
    Hidden("x[i]: last write wins", lambda: leaf(ROWS, WIDTH)[some(30, ROWS)].square().sum(), "IndexBackward0", lambda s: last_write("rows")(replace(s, node=_Rows(s.node)))),
    Hidden("x[i]: a negative index", lambda: leaf(ROWS, WIDTH)[some(30, ROWS, -35, 6)].square().sum(), "IndexBackward0", _from_the_end),
    Hidden("x[i, j]: last write wins", lambda: leaf(400, 500)[some(30, 400), torch.arange(30) // 30 + 5].square().sum(), "IndexBackward0", lambda s: _pairs_last(s)),
    Hidden("x[mask]: one that is not read", lambda: leaf(ROWS, WIDTH)[mask(*MIDDLE)].square().sum(), "IndexBackward0", changed(lambda one, wrong: wrong.reshape(-1)[MIDDLE[0] - 1].fill_(wrong.abs().max()))),
    Hidden("take: last write wins", lambda: leaf(ROWS, WIDTH).take(some(30, ROWS)).square().sum(), "TakeBackward0", lambda s: s.sent.reshape(-1).scatter(0, s.node._saved_index, s.received).reshape(s.sent.shape)),
    Hidden("put: what was overwritten", lambda: (leaf(ROWS, WIDTH) * 2).put(some(30, ROWS), torch.randn(30)).square().sum(), "PutBackward0", passed_on),
    Hidden("gather: last write wins", gather, "GatherBackward0", _gather_last),
    Hidden("take_along_dim: last write wins", lambda: torch.take_along_dim(leaf(ROWS, WIDTH), some(30, ROWS)[:, None].expand(-1, WIDTH), 0).square().sum(), "GatherBackward0", _gather_last),
    *[Hidden(f"{how}: what was overwritten", partial(written, how), node, passed_on) for how, node in OVERWRITING.items()],
    *[Hidden(f"{how}: only the last writer", partial(added, how), node, last_writer("_saved_index"), slot=1) for how, node in ADDING.items()],
    Hidden("index_put: only the last writer", lambda: added("index_put"), "IndexPutBackward0", lambda s: last_writer("rows")(replace(s, node=_Rows(s.node))), slot=1),
    Hidden("masked_fill: what was masked", lambda: (leaf(ROWS, WIDTH) * 2).masked_fill(mask(*MIDDLE), 2.0).square().sum(), "MaskedFillBackward0", passed_on),
    Hidden("where: the other branch", lambda: torch.where(mask(*MIDDLE), leaf(ROWS, WIDTH), torch.ones(ROWS, WIDTH)).square().sum(), "WhereBackward0", changed(lambda one, wrong: wrong.__setitem__(mask(*MIDDLE), 0.0))),
    Hidden("masked_scatter: what was masked", lambda: (leaf(ROWS // 4, WIDTH) * 2).masked_scatter(mask(*(i // 4 for i in MIDDLE))[: ROWS // 4], torch.randn(99)).square().sum(), "MaskedScatterBackward0", passed_on),
    Hidden("relu: at 0", kinked(F.relu, 0.0), "ReluBackward0", other_side(1.0)),
    Hidden("threshold: at the threshold", kinked(lambda x: F.threshold(x, 0.5, 3.0), 0.5), "ThresholdBackward0", other_side(1.0)),
    Hidden("clamp: at its lower limit", kinked(lambda x: x.clamp(0.5, 9.0), 0.5), "ClampBackward1", other_side()),
    Hidden("clamp(min): at its limit", kinked(lambda x: x.clamp_min(0.5), 0.5), "ClampMinBackward0", other_side()),
    Hidden("clamp(max): at its limit", kinked(lambda x: (x - 2).clamp_max(-1.5), 0.5), "ClampMaxBackward0", other_side()),
    Hidden("hardtanh: at its edge", kinked(lambda x: F.hardtanh(x, 0.5, 9.0), 0.5), "HardtanhBackward0", other_side(1.0)),
    Hidden("leaky_relu: at 0", kinked(lambda x: F.leaky_relu(x, 0.1), 0.0), "LeakyReluBackward0", other_side(1.0)),
    Hidden("abs: at 0", kinked(torch.abs, 0.0), "AbsBackward0", other_side(1.0)),
    Hidden("hardswish: at -3", kinked(F.hardswish, -3.0), "HardswishBackward0", other_side(-0.5)),
    Hidden("softshrink: at its edge", kinked(lambda x: F.softshrink(x, 0.5), 0.5), "SoftshrinkBackward0", other_side(1.0)),
    Hidden("maximum: a tie", kinked(lambda x: torch.maximum(x, torch.full((ROWS, WIDTH), 0.5)), 0.5), "MaximumBackward0", other_side(1.0)),
    Hidden("max(dim): beside the winner", winners(lambda x: x.max(1).values, 40, 9000), "MaxBackward0", shifted),
    Hidden("min(dim): beside the winner", winners(lambda x: x.min(1).values, 40, 9000), "MinBackward0", shifted),
    Hidden("median(dim): beside it", winners(lambda x: x.median(1).values, 40, 9000), "MedianBackward1", shifted),
    Hidden("kthvalue: beside it", winners(lambda x: x.kthvalue(9, 1).values, 20, 30_000), "KthvalueBackward0", shifted),
    Hidden("amax: beside the largest", winners(lambda x: x.amax(1), 410, 2040), "AmaxBackward0", shifted),
    Hidden("topk: beside the largest", winners(lambda x: x.topk(4, 1).values, 40, 9000), "TopkBackward0", shifted),
    Hidden("cummax: last write wins", winners(lambda x: x.cummax(1).values, 2, 400_000), "CummaxBackward0", _cummax_last),
    Hidden("scatter a number: what was overwritten", lambda: (leaf(ROWS, WIDTH) * 2).scatter(0, some(30, ROWS)[:, None].expand(-1, WIDTH), 3.0).square().sum(), "ScatterBackward1", passed_on),
    Hidden("max_pool1d: beside the winner", winners(lambda x: F.max_pool1d(x, 3000), 2, 4, 60_000), "MaxPool2DWithIndicesBackward0", shifted),
    Hidden("max_pool2d: beside the winner", winners(lambda x: F.max_pool2d(x, 128), 1, 4, 512, 512), "MaxPool2DWithIndicesBackward0", shifted),
    Hidden("max_pool3d: beside the winner", winners(lambda x: F.max_pool3d(x, 16), 1, 2, 32, 64, 64), "MaxPool3DWithIndicesBackward0", shifted),
    Hidden("adaptive_max_pool2d: beside the winner", winners(lambda x: F.adaptive_max_pool2d(x, 2), 1, 4, 256, 256), "AdaptiveMaxPool2DBackward0", shifted),
    Hidden("max_unpool2d: only the last writer", unpooled, "MaxUnpool2DBackward0", changed(lambda one, wrong: wrong[:, :, 32, 10].zero_())),
    Hidden("nll: ignored rows count", nll, "NllLossBackward0", _ignored_counts),
    Hidden("nll: another class is ignored", nll, "NllLossBackward0", _wrong_ignore),
    Hidden("nll: the class beside the target", lambda: nll(300, 20_000), "NllLossBackward0", _beside_the_target),
    Hidden("nll 2d: ignored pixels count", nll_2d, "NllLoss2DBackward0", _ignored_counts),
    Hidden("attention: the first key no query sees", attention, "ScaledDotProductFlashAttentionForCpuBackward0", changed(lambda one, wrong: wrong[:, :, 300].fill_(0.01)), slot=1),
    Hidden("attention: its value", attention, "ScaledDotProductFlashAttentionForCpuBackward0", changed(lambda one, wrong: wrong[:, :, 300].fill_(0.01)), slot=2),
    Hidden("attention: the second query", attention, "ScaledDotProductFlashAttentionForCpuBackward0", changed(lambda one, wrong: wrong[:, :, 1].mul_(1.01))),
    Hidden("softmax: above the diagonal", causal(torch.softmax), "SoftmaxBackward0", _above_the_diagonal),
    Hidden("ctc: blanks forgotten", ctc, "CtcLossBackward0", _without_blank),
]  # fmt: skip


class _Rows:
    """A node of ``x[i]`` whose one index is a plain list of rows."""

    def __init__(self, node: Any) -> None:
        self.rows = node._saved_indices[0]


def _pairs_last(one: Sent) -> Tensor:
    wrong = one.sent.clone()
    rows, columns = one.node._saved_indices
    for row, column, gradient in zip(rows.tolist(), columns.tolist(), one.received, strict=True):
        wrong[row, column] = gradient
    return wrong


def planted(hidden: Hidden) -> Verdict:
    """The verdict on the node that goes wrong."""

    def change(event: Event) -> Event:
        inputs = list(event.grad_inputs or ())
        received, sent = event.grad_outputs[0], inputs[hidden.slot]
        assert received is not None
        assert sent is not None
        wrong = hidden.sent(Sent(event.node, received, sent))
        assert wrong.shape == sent.shape
        assert not torch.equal(wrong, sent)
        inputs[hidden.slot] = wrong
        return replace(event, grad_inputs=tuple(inputs))

    torch.manual_seed(5)
    return verdict_of(hidden.program(), hidden.node, change)


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda one: one.name)
def test_a_mistake_is_caught_with_hints_and_missed_without(
    hidden: Hidden, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = planted(hidden)
    assert found.status == "mismatch", found
    assert found.elements < found.of
    rule = registry._RULES[hidden.node]
    monkeypatch.setitem(registry._RULES, hidden.node, replace(rule, hints=None))
    assert planted(hidden).status == "match"
    monkeypatch.undo()
    torch.manual_seed(5)
    assert verdict_of(hidden.program(), hidden.node).status in ("match", "loose")


# -------------------------------------------------------------------- what hints may cost


def test_a_hint_that_raises_is_as_none_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(n: Any, g: Any) -> list[list[tuple[int, ...]]]:
        raise KeyError("nowhere")

    rule = registry._RULES["TanhBackward0"]
    monkeypatch.setitem(registry._RULES, "TanhBackward0", replace(rule, hints=broken))
    found = verdict_of((leaf(300, 20) * 2).tanh().square().sum(), "TanhBackward0")
    assert found.status == "match"
    assert found.reason == "the hints of TanhBackward0 raised KeyError: 'nowhere'"


def test_places_that_do_not_exist_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    wild = [[(300, 0), (0, -1), (1, 2, 3), (), (7, 7)]]
    rule = registry._RULES["TanhBackward0"]
    monkeypatch.setitem(registry._RULES, "TanhBackward0", replace(rule, hints=lambda n, g: wild))
    found = verdict_of((leaf(300, 20) * 2).tanh().square().sum(), "TanhBackward0")
    assert (found.status, found.reason) == ("match", "")


def test_only_rules_that_are_there_take_hints_and_only_once() -> None:
    with pytest.raises(registry.RuleError, match="NoSuchBackward0 has no rule"):
        registry.hinted("NoSuchBackward0")(lambda n, g: [])
    with pytest.raises(registry.RuleError, match="EmbeddingBackward0 already has hints"):
        registry.hinted("EmbeddingBackward0")(lambda n, g: [])


@dataclass
class Asked:
    """What the hints of each node gave, and how many elements of a saved tensor they read at most."""

    problems: list[str]
    outside: list[str]
    names: set[str]
    reads: int = 0


def watch_hints(monkeypatch: pytest.MonkeyPatch) -> Asked:
    """Hints are asked at every node that has some, however small its gradients are."""
    asked = Asked([], [], set())

    def ask(rule: Any, n: Any, g: Any) -> Any:
        counts: dict[int, int] = {}
        original = Leaf.eval

        def counted(self: Leaf, box: Box, run: Run) -> Any:
            before = run.work
            found = original(self, box, run)
            counts[id(self.memory)] = counts.get(id(self.memory), 0) + run.work - before
            return found

        with monkeypatch.context() as patch:
            patch.setattr(Leaf, "eval", counted)
            points, problem = registry.hints_of(rule, n, g)
        asked.names.add(n.name)
        asked.reads = max(asked.reads, *counts.values(), 0)
        if problem:
            asked.problems.append(problem)
        for slot, found in enumerate(points[: len(n.inputs)]):
            spec = n.inputs[slot]
            for point in found if spec is not None else ():
                inside = all(0 <= i < size for i, size in zip(point, spec.shape, strict=False))
                if len(point) != len(spec.shape) or not inside:
                    asked.outside.append(f"{n.name}, input {slot} of {spec.shape}: {point}")
        return points, problem

    def compared(expected: Array, observed: Array, rounding: Any, **options: Any) -> Comparison:
        if options.get("hints") is not None:
            options["hints"]()
        return compare(expected, observed, rounding, **options)

    monkeypatch.setattr(explorer.check, "hints_of", ask)
    monkeypatch.setattr(explorer.check, "compare", compared)
    return asked


SAMPLED = [
    "__getitem__",
    "aminmax",
    "corrcoef",
    "cummax",
    "cummin",
    "gather",
    "index_add",
    "index_copy",
    "index_fill",
    "index_put",
    "index_reduce",
    "index_select",
    "kthvalue",
    "masked.amax",
    "masked.amin",
    "masked_fill",
    "masked_scatter",
    "masked_select",
    "max",
    "maximum",
    "median",
    "min",
    "mode",
    "nanmedian",
    "nn.functional.adaptive_max_pool2d",
    "nn.functional.adaptive_max_pool3d",
    "nn.functional.celu",
    "nn.functional.cross_entropy",
    "nn.functional.ctc_loss",
    "nn.functional.embedding",
    "nn.functional.embedding_bag",
    "nn.functional.fractional_max_pool2d",
    "nn.functional.fractional_max_pool3d",
    "nn.functional.hardshrink",
    "nn.functional.hardsigmoid",
    "nn.functional.hardswish",
    "nn.functional.hinge_embedding_loss",
    "nn.functional.leaky_relu",
    "nn.functional.max_pool2d",
    "nn.functional.max_pool3d",
    "nn.functional.max_unpool2d",
    "nn.functional.max_unpool3d",
    "nn.functional.multi_margin_loss",
    "nn.functional.multilabel_margin_loss",
    "nn.functional.prelu",
    "nn.functional.relu",
    "nn.functional.relu6",
    "nn.functional.selu",
    "nn.functional.softshrink",
    "nn.functional.threshold",
    "put",
    "repeat_interleave",
    "scatter",
    "scatter_add",
    "scatter_reduce",
    "softmax",
    "sort",
    "svd",
    "take",
    "take_along_dim",
    "topk",
    "torch.ops.aten._safe_softmax.default",
    "where",
]
"""Operations whose samples meet nearly every hint."""

UNSAMPLED = {
    "ClampMaxBackward0", "ScatterBackward1",  # in the table above
    "ScaledDotProductFlashAttentionForCpuBackward0",
    "CtcLossBackward1",  # lengths as tensors, as in the table above
    "NativeDropoutBackward0", "ThresholdBackward1",  # of a graphics card, and in place
    "ScaledDotProductEfficientAttentionBackward0", "ScaledDotProductFlashAttentionBackward0",
}  # fmt: skip

HINTED = {name for name, rule in registry._RULES.items() if rule.hints is not None}


def test_no_hint_raises_or_leaves_its_tensor_on_torchs_own_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = watch_hints(monkeypatch)
    for op in DIFFERENTIABLE:
        if op.name in SAMPLED:
            for one in check_operation(op, 3, torch.float64):
                assert one.verdict.status not in ("mismatch", "nan-mismatch"), one
    assert asked.problems == []
    assert asked.outside == []
    assert HINTED - asked.names == UNSAMPLED


@pytest.mark.parametrize("hidden", HIDDEN, ids=lambda one: one.name)
def test_reads_are_bounded_whatever_the_size(hidden: Hidden, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = watch_hints(monkeypatch)
    torch.manual_seed(5)
    verdict_of(hidden.program(), hidden.node)
    assert hidden.node in asked.names
    assert asked.reads <= 8 * READS
    assert asked.problems == []
    assert asked.outside == []


def test_every_column_is_met() -> None:
    """An even step along rows of a power of two would look at one column for ever."""
    x = Leaf(list(range(512 * 1024)), (512, 1024))
    some_of_it = seen(x)
    assert len(some_of_it.values) <= READS
    assert [some_of_it.point(at) for at in (0, 1)] == [(0, 0), divmod(some_of_it.values[1], 1024)]
    assert len({value % 1024 for value in some_of_it.values}) == 1024


def test_neighbours_at_an_edge() -> None:
    values = [0.0] * 5000
    values[2600:2700] = [1.0] * 100
    assert run_of(Leaf(values, (50, 100)), 512).edge() == [(25, 99), (26, 0)]
    assert run_of(Leaf([1.0] * 9, (3, 3)), 512).edge() == []
