"""Notes of who took hold of memory: ordered within a thread, complete or said not to be; nothing stays."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import explorer
from hooks import edits
from hooks.edits import Edits, Hold, Moment
from hooks.evidence import Collector
from hooks.forward import observe_forward
from hooks.handles import Handles
from hooks.memory import storage_of

NAMES = ("data", "detach", "detach_", "item", "tolist")


def state() -> dict[str, object]:
    """What the class has under the names that a watch patches, and whether it is its own."""
    return {
        name: (vars(torch.Tensor).get(name), inspect.getattr_static(torch.Tensor, name)) for name in NAMES
    } | {"zero_grad": (vars(torch.optim.Optimizer)["zero_grad"], None)}


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    """Every test ends as it began: the very same objects."""
    before = state()
    yield
    after = state()
    for name, objects in before.items():
        assert all(a is b for a, b in zip(objects, after[name], strict=True)), name  # type: ignore[call-overload]  # pairs


def use() -> Tensor:
    """All that is patched, used once."""
    x = torch.ones(2, requires_grad=True)
    y = x * 2
    y.data.mul_(3)
    x.data = torch.ones(2)
    y.detach()
    y.sum().item()
    return y


def noted(collector: Collector, tensor: Tensor) -> int:
    """How many notes there are of a tensor's memory."""
    storage = storage_of(tensor)
    assert storage is not None
    return len(collector.cuts.edits.on(storage))


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_leaves_nothing(error: type[BaseException]) -> None:
    with pytest.raises(error), explorer.watch():  # noqa: PT012 - what came before the error counts
        use()
        raise error


def test_a_failing_backward_leaves_nothing() -> None:
    with pytest.raises(RuntimeError), explorer.watch():  # noqa: PT012 - as above
        y = use()
        y.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2), (1, 2, 0), (0, 2, 1), (2, 0, 1)])
def test_watches_closed_in_any_order(order: tuple[int, ...]) -> None:
    """Each notes all until its own end, and nothing stays after the last."""
    collectors = [Collector() for _ in order]
    for one in collectors:
        one.__enter__()
    open_ = set(order)
    for number in order:
        y = use()
        assert [noted(one, y) > 0 for one in collectors] == [index in open_ for index in range(len(order))]
        collectors[number].__exit__(None, None, None)
        open_.remove(number)


def test_two_watches_in_two_threads() -> None:
    both, failed = threading.Barrier(2, timeout=60), list[BaseException]()

    def work(first: bool) -> None:
        try:
            both.wait()
            with explorer.watch():
                both.wait()
                use()
                if first:
                    both.wait()
            if not first:
                both.wait()
        except BaseException as error:  # noqa: BLE001 - told to the test
            failed.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (True, False)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert failed == []


@pytest.mark.parametrize("name", ["detach", "item"])
def test_a_patch_of_the_users_made_inside_stays(name: str) -> None:
    calls: list[str] = []
    original = vars(torch.Tensor).get(name)
    try:
        with explorer.watch():
            ours: Callable[..., Any] = getattr(torch.Tensor, name)

            def theirs(self: Tensor) -> Any:
                calls.append(name)
                return ours(self)

            setattr(torch.Tensor, name, theirs)
            getattr(torch.ones(1, requires_grad=True), name)()
        assert vars(torch.Tensor)[name] is theirs
        getattr(torch.ones(1, requires_grad=True), name)()
        assert calls == [name] * 2
    finally:
        if original is None:
            delattr(torch.Tensor, name)
        else:
            setattr(torch.Tensor, name, original)


def test_a_patch_of_the_users_made_before_is_put_back() -> None:
    calls: list[int] = []
    original: Any = torch.Tensor.data

    def read(self: Tensor) -> Any:
        calls.append(1)
        return original.__get__(self)

    theirs = property(read, lambda self, value: original.__set__(self, value))
    torch.Tensor.data = theirs  # type: ignore[assignment]  # as a user's script would
    try:
        with explorer.watch():
            use()
        assert vars(torch.Tensor)["data"] is theirs
        assert calls
    finally:
        del torch.Tensor.data


def test_a_note_is_ordered_within_its_thread_alone() -> None:
    code = inspect.currentframe()
    assert code is not None
    hold = Hold(Moment(1, 7), "data", None, None)  # type: ignore[arg-type]  # its place is not asked for
    assert hold.before(Moment(1, 7))
    assert hold.after(Moment(1, 6))
    for other in (Moment(2, 6), Moment(2, 7), Moment(2, 8), None):
        assert not hold.before(other)
        assert not hold.after(other)


def test_the_moment_of_a_node() -> None:
    """Of the thread that made it, where that was observed."""
    handles, notes = Handles(), Edits()
    made: list[Tensor] = []
    x = torch.ones(2, requires_grad=True)
    with handles:
        notes.attach(handles)
        before = x * 2
        assert notes.complete(notes.made(before.grad_fn))
        with observe_forward():
            here = x * 2
            thread = threading.Thread(target=lambda: made.append(x * 2))
            thread.start()
            thread.join()
        moments = [notes.made(one.grad_fn) for one in (here, made[0])]
        assert all(map(notes.complete, moments))
        assert None not in moments
        assert moments[0] is not None
        assert moments[1] is not None
        assert moments[0].thread != moments[1].thread
        assert notes.made(before.grad_fn) is None  # it may be of either thread now
        notes.stop()
        assert not any(map(notes.complete, moments))


def test_too_many_notes_are_let_go_of_and_trusted_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "MOST", 3)
    with Collector() as collector:
        x = torch.ones(2, requires_grad=True)
        first = x * 2
        notes = collector.cuts.edits
        assert notes.complete(notes.made(first.grad_fn))
        kept = [(x * 2) for _ in range(5)]
        for one in kept:
            one.data.mul_(2)
        assert not notes.complete(notes.made(first.grad_fn))
        last = x * 2
        assert notes.complete(notes.made(last.grad_fn))


def test_the_version_of_a_parameter_counts_in_its_thread() -> None:
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.mul_(1)
    with observe_forward(), Collector() as collector:
        notes = collector.cuts.edits
        y = layer(torch.ones(1, 2))
        assert notes.unchanged(layer.bias, [y.grad_fn])
        assert not notes.unchanged(layer.bias, [])
        made: list[Tensor] = []
        thread = threading.Thread(target=lambda: made.append(layer(torch.ones(1, 2))))
        thread.start()
        thread.join()
        assert not notes.unchanged(layer.bias, [y.grad_fn, made[0].grad_fn])
        assert notes.unchanged(layer.bias, [y.grad_fn])
        layer.bias.data.mul_(2)
        assert not notes.unchanged(layer.bias, [y.grad_fn])
