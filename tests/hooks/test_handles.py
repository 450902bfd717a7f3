"""Patches of several owners on one place: undone in any order, nothing of theirs stays."""

from __future__ import annotations

from itertools import permutations
from types import SimpleNamespace

import pytest

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
