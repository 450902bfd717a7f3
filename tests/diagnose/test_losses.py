"""What enters a loss wrongly: probabilities for logits, a mean over nothing; and the healthy neighbours."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan

import pytest
import torch
from torch.nn import functional

import explorer
from explorer.diagnose.double_softmax import double_softmax
from explorer.diagnose.non_finite_loss import non_finite_loss
from explorer.diagnose.softmax_dimension import softmax_dimension
from explorer.evidence import Evidence, Looked
from explorer.report import Finding, Report

Loss = Callable[[torch.Tensor], torch.Tensor]
CLASSES = torch.tensor([0, 1, 2, 0])


def explored(loss: Loss, *shape: int) -> Report:
    torch.manual_seed(0)
    x = torch.randn(*(shape or (4, 3)), requires_grad=True)
    return explorer.explore(loss(x), check="off")


def twice(loss: Loss, *shape: int) -> list[Finding]:
    return list(double_softmax(explored(loss, *shape), Evidence(calls=1)))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: functional.cross_entropy(torch.softmax(x, 1), CLASSES), ()),
        (lambda x: functional.cross_entropy(torch.softmax(x, -1), CLASSES, label_smoothing=0.1), ()),
        (lambda x: functional.cross_entropy(torch.softmax(x, -1).view(-1, 3), CLASSES), (2, 2, 3)),
        (lambda x: functional.cross_entropy(torch.softmax(x, 1), CLASSES.view(2, 1, 2)), (2, 3, 1, 2)),
        (
            lambda x: functional.binary_cross_entropy_with_logits(x.sigmoid().squeeze(1), torch.ones(4)),
            (4, 1),
        ),
    ],
)
def test_probabilities_where_logits_belong(loss: Loss, shape: tuple[int, ...]) -> None:
    (finding,) = twice(loss, *shape)
    assert (finding.code, finding.severity) == ("double-softmax", "warning")
    assert "is applied twice" in finding.message


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: functional.cross_entropy(x, CLASSES), ()),
        (lambda x: functional.nll_loss(torch.softmax(x, 1).log(), CLASSES), ()),
        (lambda x: functional.cross_entropy(functional.log_softmax(x, 1), CLASSES), ()),  # changes nothing
        (lambda x: functional.cross_entropy(torch.softmax(x, 0), CLASSES), ()),  # another dimension
        (
            lambda x: functional.cross_entropy(torch.softmax(x, 1) @ torch.randn(3, 3), CLASSES),
            (),
        ),  # attention
        (lambda x: functional.kl_div(functional.log_softmax(x, 1), torch.softmax(x, 1).detach()), ()),
        (lambda x: functional.binary_cross_entropy(x.sigmoid(), torch.ones(4, 3)), ()),
        (lambda x: functional.binary_cross_entropy_with_logits(x.sigmoid() * 8, torch.ones(4, 3)), ()),
    ],
)
@pytest.mark.filterwarnings("ignore:reduction")
def test_healthy_losses(loss: Loss, shape: tuple[int, ...]) -> None:
    assert twice(loss, *shape) == []


def misdirected(loss: Loss, *shape: int) -> list[Finding]:
    return list(softmax_dimension(explored(loss, *shape), Evidence(calls=1)))


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: functional.nll_loss(torch.softmax(x, 0).log(), CLASSES), ()),
        (lambda x: functional.nll_loss((torch.softmax(x, 0) + 1e-9).log(), CLASSES), ()),
        (lambda x: functional.nll_loss(functional.log_softmax(x, -2), CLASSES), ()),
        (lambda x: functional.nll_loss(functional.log_softmax(x, 3), CLASSES.view(2, 1, 2)), (2, 3, 1, 2)),
    ],
)
def test_a_softmax_over_another_dimension_than_the_classes(loss: Loss, shape: tuple[int, ...]) -> None:
    (finding,) = misdirected(loss, *shape)
    assert (finding.code, finding.severity) == ("softmax-dimension", "warning")
    assert "`dim=1`" in finding.advice


@pytest.mark.parametrize(
    ("loss", "shape"),
    [
        (lambda x: functional.nll_loss(torch.softmax(x, 1).log(), CLASSES), ()),
        (lambda x: functional.nll_loss(functional.log_softmax(x, -1), CLASSES), ()),
        (lambda x: functional.nll_loss(functional.log_softmax(x, 1), CLASSES.view(2, 1, 2)), (2, 3, 1, 2)),
        (lambda x: functional.nll_loss(functional.log_softmax(x, 0), CLASSES[0]), (3,)),  # one sample
        # Pairs of pictures and texts, judged both ways: each text among the pictures.
        (lambda x: functional.nll_loss(functional.log_softmax(x, 0), torch.arange(4)), (4, 4)),
        (lambda x: functional.nll_loss(functional.log_softmax(x, 0).t(), CLASSES), (3, 4)),
        (lambda x: functional.nll_loss(functional.log_softmax(x, 0) + x, CLASSES), ()),  # nothing is certain
        (lambda x: functional.cross_entropy(functional.log_softmax(x, 0), CLASSES), ()),
    ],
)
def test_a_softmax_over_the_classes(loss: Loss, shape: tuple[int, ...]) -> None:
    assert misdirected(loss, *shape) == []


def test_one_line_is_told_once() -> None:
    def both(x: torch.Tensor) -> torch.Tensor:
        return sum((functional.cross_entropy(torch.softmax(x * k, 1), CLASSES) for k in (1, 2)), x.sum())

    (finding,) = seen(both)
    assert finding.code == "double-softmax"
    assert finding.where is not None
    assert finding.where.function in ("<genexpr>", "both")


def seen(loss: Loss) -> list[Finding]:
    torch.manual_seed(0)
    x = torch.randn(4, 3, requires_grad=True)
    with explorer.watch() as watch:
        loss(x).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    return list(watch.report.findings)


def bad(loss: Loss) -> list[Finding]:
    return [finding for finding in seen(loss) if finding.code.startswith("non-finite")]


def test_a_mean_over_nothing() -> None:
    (finding,) = bad(lambda x: functional.cross_entropy(x, torch.full((4,), -100)))
    assert (finding.code, finding.severity) == ("non-finite-loss", "error")
    assert "is nan, though every gradient is exactly 0" in finding.message
    (finding,) = bad(lambda x: x.sum() + inf)
    assert "is inf, though its gradients are finite" in finding.message


def test_a_loss_whose_gradient_shows_it_is_told_once() -> None:
    (finding,) = bad(lambda x: (x * 0).sum() / torch.zeros(()))
    assert finding.code == "non-finite-gradient"
    assert bad(lambda x: functional.cross_entropy(x, CLASSES)) == []


def test_a_loss_of_several_elements_and_a_failed_backward_are_not_judged() -> None:
    report = explored(lambda x: x.sum())
    assert list(non_finite_loss(report, Evidence(calls=1, looked=Looked(loss=None)))) == []
    assert list(non_finite_loss(report, Evidence(calls=1, looked=Looked(loss=2.0)))) == []
    assert len(list(non_finite_loss(report, Evidence(calls=1, looked=Looked(loss=nan))))) == 1


def test_the_first_bad_value_of_the_forward_is_named() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        ratio = (x * 0) / torch.zeros(4, 3)
        scaled = ratio * 2
        return (scaled + 1).pow(2).sum()

    (finding,) = bad(loss)
    assert finding.where is not None
    assert finding.where.code == "ratio = (x * 0) / torch.zeros(4, 3)"
    assert "already NaN, the first value known that is not finite is that of" in finding.message


def test_a_mask_over_some_elements_is_recognised() -> None:
    def loss(x: torch.Tensor) -> torch.Tensor:
        positive = x.relu()
        return torch.where(positive > 0, positive.sqrt(), torch.zeros(4, 3)).sum()

    (finding,) = bad(loss)
    assert "0·inf" in finding.message
    assert "mask the *input*" in finding.advice
