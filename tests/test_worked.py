"""One element worked out: what the text says is evaluated and held against torch's own gradient."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from explorer.report import Report
from explorer.values import argument_names, fill
from explorer.watching import Watch
from explorer.witness import FEW_NODES
from explorer.worked import worked
from tests.small_reports import report_of

BUILDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "product": lambda a, b: a * b,
    "quotient": lambda a, b: a / b,
    "broadcast product": lambda a, b: a * b[:1],
    "broadcast sum": lambda a, b: a + b[1],
    "power": lambda a, b: a**2 + b,
    "tanh": lambda a, b: (a * b).tanh(),
    "matrix product": lambda a, b: a @ b.T,
    "batches": lambda a, b: torch.bmm(torch.stack([a, b]), torch.stack([b.T, a.T])),
    "layer": lambda a, b: torch.addmm(a[:, 0], a, b.T[:, :2]),
    "softmax": lambda a, b: (a * b).softmax(-1),
    "log softmax": lambda a, b: (a + b).log_softmax(1),
}


def told(report: Report, saved: dict[tuple[int, str], tuple[float | complex, ...]]) -> list[str]:
    """Every worked element of a report."""
    forward, graph = fill(report.graph, report.forward, saved), report.graph
    return [
        text
        for node in graph.nodes
        for index in graph.outgoing[node.id]
        if (name := argument_names(graph, node)[graph.edges[index].source_slot])
        and (text := worked(report, forward, node, name, report.edge_gradients[index]))
    ]


def value(text: str) -> float:
    """The arithmetic of a worked element, evaluated."""
    return float(eval(text.replace("×", "*").replace("−", "-")))


def right(text: str) -> bool:
    """Whether "element [1, 0]: 2×3 + 1 = 7" is true to the digits it has."""
    found = re.fullmatch(r"element \[[\d, ]*\]: (.+) = (\S+)", text)
    assert found is not None, text
    terms = sum(abs(value(term)) for term in found[1].split(" + "))
    return abs(value(found[1]) - float(found[2])) <= 3e-3 * terms


@pytest.mark.parametrize("name", BUILDS)
def test_the_arithmetic_gives_what_torch_sent(name: str) -> None:
    torch.manual_seed(3)
    a = torch.randn(2, 3, requires_grad=True)
    b = torch.rand(2, 3).add(0.5).requires_grad_()
    out = BUILDS[name](a, b)
    report, saved = report_of((out * torch.arange(out.numel()).reshape(out.shape)).sum(), a=a, b=b)
    texts = told(report, saved)
    assert len(texts) >= 2
    assert all(map(right, texts)), texts


def test_a_wrong_element_would_be_noticed() -> None:
    assert right("element [1, 0]: 2×3 + 1×4 = 10")
    assert not right("element [1, 0]: 2×3 + 1×4 = 9")
    assert not right("element [0]: (-2) × 3 = 6")


def test_nothing_is_worked_out_where_there_is_nothing_to_see() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    assert told(*report_of((x * 1j).abs().sum(), x=x)) == []  # complex numbers on the way
    assert told(*report_of((x * 0).sum(), x=x)) == []  # all zero
    assert told(*report_of(x.exp().sum() / 0, x=x)) == []  # infinite


def test_large_gradients_are_worked_out_in_the_first_explored_call_alone() -> None:
    """A training loop explored call by call would wait for the same thousands of terms again and again."""
    large, small = torch.nn.Linear(100, 50), torch.nn.Linear(50, 2)
    with Watch(check="off", work_out=FEW_NODES) as watch:
        for _ in range(3):
            small(large(torch.randn(60, 100))).pow(2).mean().backward()
    sent = [
        {record.shape for edge in report.elements if (record := report.edge_gradients[edge]) is not None}
        for report in watch.reports
    ]
    assert sent[0] - sent[1] == {(100, 50)}
    assert sent[1] == sent[2]
    assert {(50, 2), (50,), (60, 50)} <= sent[1]
