"""Patches of several owners on one place: undone in any order, nothing of theirs stays."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import explorer
from hooks.handles import Handles


def original() -> str:
    return "original"


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_whoever_ends_first(order: tuple[int, ...]) -> None:
    places = [SimpleNamespace(call=original), SimpleNamespace(call=original)]
    owners = []
    for _ in range(3):
        owner = Handles()
        below = places[0].call

        def patched(below: object = below) -> object:
            return below

        for place in places:
            owner.patch(place, "call", patched)
        owners.append(owner)
    for number in order:
        owners[number].close()
    assert [place.call for place in places] == [original, original]


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_what_a_class_inherited_is_not_left_as_its_own(order: tuple[int, ...]) -> None:
    class Above:
        def call(self) -> str:
            return "above"

    class Below(Above):
        pass

    owners = [Handles() for _ in range(3)]
    for owner in owners:
        owner.patch(Below, "call", lambda self: "patched")
    for number in order:
        assert "call" in vars(Below)
        owners[number].close()
    assert "call" not in vars(Below)


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_watches_that_end_in_any_order(order: tuple[int, ...]) -> None:
    def bound() -> list[object]:
        owners: list[tuple[Any, str]] = [
            (torch.optim.Optimizer, "zero_grad"),
            (torch.autograd.graph, "_engine_run_backward"),
            *((torch.Tensor, name) for name in ("detach", "item", "data")),
            (torch.no_grad, "__exit__"),
        ]
        return [vars(owner).get(name) for owner, name in owners]

    before = bound()
    watches = [explorer.watch() for _ in range(3)]
    for watch in watches:
        watch.__enter__()
    assert all(now is not then for now, then in zip(bound(), before, strict=True))
    for number in order:
        watches[number].__exit__(None, None, None)
    assert all(now is then for now, then in zip(bound(), before, strict=True))


def test_what_somebody_else_put_over_it_stays() -> None:
    place = SimpleNamespace(call=original)
    owner = Handles()
    owner.patch(place, "call", lambda: "ours")

    def theirs() -> str:
        return "theirs"

    place.call = theirs
    owner.close()
    assert place.call is theirs


def test_what_has_no_weak_references_is_put_back() -> None:
    place = SimpleNamespace(call=3)
    with Handles() as owner:
        owner.patch(place, "call", 4)
        assert place.call == 4
    assert place.call == 3


def test_an_interrupt_while_undoing_leaves_nothing_undone() -> None:
    place = SimpleNamespace(call=original)

    def interrupted() -> None:
        raise KeyboardInterrupt

    owner = Handles()
    owner.patch(place, "call", lambda: "ours")
    owner.callback(interrupted)
    with pytest.raises(KeyboardInterrupt):
        owner.close()
    assert place.call is original
    assert len(owner) == 0
