"""Values changed past autograd where several threads make the graph: never a wrong line, never a false error.

Sequence numbers begin anew in each thread, so that those of two threads say nothing of what came first.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

import explorer
from explorer.report import Finding
from hooks import threads
from tests.changes import meant, unmeant
from tests.changes.registry import DAMAGED, HEALTHY, Script, labels

CODE = "saved-value-changed"
T = TypeVar("T")
assert meant, unmeant


def elsewhere(work: Callable[[], T]) -> T:
    """What `work` gives in a thread of its own."""
    found: list[T] = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def told(script: Callable[[], object]) -> list[Finding]:
    """What is said of a script's saved values."""
    torch.manual_seed(0)
    with explorer.watch() as watch:
        script()
    assert watch.reports
    assert not any("forward values" in problem for report in watch.reports for problem in report.problems)
    return [one for report in watch.reports for one in report.findings if one.code == CODE]


def advance(count: int = 300) -> None:
    """Make this thread's numbers run ahead of those of others."""
    x = torch.ones(2, requires_grad=True)
    for _ in range(count):
        x = x * 1


def normalised() -> Tensor:
    """A loss behind a value that is normalised in place before its use."""
    x = torch.randn(8, 6, requires_grad=True)
    y = x.exp()
    y.data.div_(y.data.sum(1, keepdim=True))
    return (y * torch.randn(8, 6)).tanh().sum()


def damaged() -> Tensor:
    """A loss, and a value behind it that was changed after its use."""
    l1, l2 = (nn.Linear(6, 5), nn.Linear(5, 3))
    h = l1(torch.randn(8, 6)).tanh()
    loss = F.cross_entropy(l2(h), labels(8, 3))
    h.data.mul_(2)
    return loss


ALL_HERE = [
    "ste_data_hard",
    "ste_data_add_inplace",
    "ste_clamp_sigmoid_mul",
    "weight_binarize_before_forward",
    "wgan_clip",
    "ema_teacher",
]


@pytest.mark.parametrize("name", ALL_HERE)
@pytest.mark.parametrize("ahead", [False, True])
def test_what_is_meant_in_another_thread_is_not_told(name: str, ahead: bool) -> None:
    def script() -> None:
        if ahead:
            advance()
        HEALTHY[name]()

    def other() -> None:
        advance(5)
        elsewhere(script)

    assert told(other) == []


@pytest.mark.parametrize("name", list(DAMAGED)[:8])
def test_what_is_damaged_in_another_thread_is_told_with_its_line(name: str) -> None:
    script, by = DAMAGED[name]
    found = told(lambda: elsewhere(script))
    assert found
    for one in found:
        assert one.severity == "error"
        assert by in one.message


@pytest.mark.parametrize("ahead", [0, 300])
@pytest.mark.parametrize("behind", [0, 300])
def test_a_graph_of_another_thread_differentiated_here(ahead: int, behind: int) -> None:
    def script(build: Callable[[], Tensor]) -> None:
        advance(behind)

        def built() -> Tensor:
            advance(ahead)
            return build()

        elsewhere(built).backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    assert told(lambda: script(normalised)) == []
    found = told(lambda: script(damaged))
    assert found
    assert all("h.data.mul_(2)" in one.message for one in found)


def two_threads(edit_before: bool, ahead: int) -> None:
    """A value made in one thread and used in another; its maker changes it before, or after."""
    x = torch.randn(8, 6, requires_grad=True)
    advance(ahead)
    y = x.exp()
    if edit_before:
        y.data.div_(y.data.sum(1, keepdim=True))
    loss = elsewhere(lambda: (y * torch.randn(8, 6)).tanh().sum())
    if not edit_before:
        y.data.mul_(2)
    loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


@pytest.mark.parametrize("ahead", [0, 300])
def test_a_value_made_here_and_used_there(ahead: int) -> None:
    assert told(lambda: two_threads(True, ahead)) == []
    for one in told(lambda: two_threads(False, ahead)):
        assert one.where is None or "div_" not in one.where.code


@pytest.mark.parametrize("ahead", [0, 300])
def test_a_value_replaced_by_a_third_thread_before_its_use(ahead: int) -> None:
    def script() -> None:
        x = torch.randn(8, 6, requires_grad=True)
        y = x.exp()
        advance(ahead)

        def normalise() -> None:
            advance(ahead)
            y.data.div_(y.data.sum(1, keepdim=True))

        elsewhere(normalise)
        (y * torch.randn(8, 6)).tanh().sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    assert not [one for one in told(script) if one.severity == "error"]


def test_a_thread_that_is_older_than_the_watch() -> None:
    """Its numbers are its own still."""
    torch.manual_seed(0)
    go, met = threading.Event(), threading.Event()
    made: list[Tensor] = []

    def work() -> None:
        advance(50)
        met.set()
        assert go.wait(60)
        made.append(damaged())

    thread = threading.Thread(target=work)
    with explorer.watch():
        thread.start()
        assert met.wait(60)
    with explorer.watch() as watch:
        go.set()
        thread.join()
        made[0].backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert watch.report is not None
    found = [one for one in watch.report.findings if one.code == CODE]
    assert found
    assert all("h.data.mul_(2)" in one.message for one in found)


def penalised(edit: bool) -> Script:
    """A gradient penalty: the second backward goes through nodes that the first has made."""

    def script() -> None:
        model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1))
        x = torch.randn(8, 6, requires_grad=True)
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        if edit:
            slope.data.clamp_(-0.1, 0.1)
        slope.square().sum().sqrt().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped

    return script


@pytest.mark.parametrize("edit", [False, True])
def test_nodes_that_a_backward_made_are_of_no_known_thread_beside_another(edit: bool) -> None:
    def script() -> None:
        elsewhere(lambda: advance(400))
        penalised(edit)()

    assert not [one for one in told(script) if one.severity == "error"]


def test_no_two_threads_have_one_number() -> None:
    numbers = [elsewhere(threads.current) for _ in range(20)]
    assert len({*numbers, threads.current()}) == 21
    assert threads.current() == threads.current()
    assert threads.newest() >= max(numbers)
