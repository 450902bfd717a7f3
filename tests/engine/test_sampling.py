"""Where the check looks, and what it may claim from that."""

from __future__ import annotations

import math
import random

import pytest

from explorer.engine.sampling import (
    SEEDS,
    notable,
    plan,
    spread,
    structured,
    wrong_share,
    wrong_share_of_all,
)

SHAPES = [(), (1,), (7,), (300,), (3, 5), (64, 1, 40), (5, 6, 7, 8), (2, 3, 4, 5, 6)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("seed", [0, 5, 31])
def test_a_plan_begins_with_first_last_middle_and_repeats_nothing(shape: tuple[int, ...], seed: int) -> None:
    points = plan(shape, seed, 16)
    assert len(points) == len(set(points))
    assert all(0 <= i < size for point in points for i, size in zip(point, shape, strict=True))
    if math.prod(shape) <= 16:
        assert len(points) == math.prod(shape)
    else:
        assert points[:3] == [
            tuple(0 for _ in shape), tuple(n - 1 for n in shape), tuple(n // 2 for n in shape)
        ]  # fmt: skip


def test_hints_are_looked_at_whatever_the_count() -> None:
    hints = [(17, 23), (40, 2), (1, 2, 3)]
    points = plan((50, 60), 0, 8, hints)
    assert set(hints[:2]) <= set(points)
    assert hints[2] not in points


def test_layers_alike_are_looked_at_in_different_places_a_few_times() -> None:
    seen = {tuple(plan((64, 64), seed, 16)) for seed in range(200)}
    assert len(seen) == SEEDS


@pytest.mark.parametrize("size", [64, 100, 256])
def test_no_index_of_an_axis_escapes_a_hypercube_of_its_size(size: int) -> None:
    points = spread((4, size, 9), 3, size)
    assert {point[1] for point in points} == set(range(size))


def test_borders_are_among_the_structured_places() -> None:
    places = structured((8, 9, 10))
    assert {(0, 0, 0), (7, 8, 9), (7, 0, 9), (4, 0, 5), (4, 8, 5)} <= set(places)


def test_values_name_their_own_places() -> None:
    values = [0.5, -9.0, 0.0, 1e-8, 3.0]
    assert notable(values, range(0, 50, 10)) == [10, 20, 30]
    assert notable([], []) == []
    assert notable([0.0, 0.0], [4, 5]) == [4]


def test_one_gradient_alone_has_the_rule_of_three() -> None:
    assert wrong_share(0, 10) == 1.0
    assert wrong_share(300, 10**6) == pytest.approx(0.01)
    assert wrong_share(10, 10) == 0.0
    assert wrong_share_of_all([(300, 10**6)]) == pytest.approx(0.01)
    assert wrong_share_of_all([(10, 10), (5, 5)]) == 0.0
    assert wrong_share_of_all([]) == 0.0


def test_a_large_gradient_looked_at_little_is_not_hidden_by_small_ones() -> None:
    """Pooled, 3/k would claim 0.1 %; yet nearly a fifth of the large one may be wrong unseen."""
    small = [(30, 30)] * 100
    assert wrong_share_of_all([(16, 10**6), *small]) == pytest.approx(3 / 16, rel=0.01)


def test_the_claim_holds_against_an_adversary() -> None:
    """Whoever spreads wrong elements beyond the claimed share is met at least 19 times in 20."""
    dice = random.Random(0)
    for _ in range(200):
        rows = [(dice.randint(1, 60), dice.randint(1, 5_000)) for _ in range(dice.randint(1, 6))]
        rows = [(min(k, n), n) for k, n in rows]
        claimed, total = wrong_share_of_all(rows), sum(n for _, n in rows)
        shares = [dice.random() ** dice.randint(1, 6) if k < n else 0.0 for k, n in rows]
        wrong = sum(share * n for share, (_, n) in zip(shares, rows, strict=True)) / total
        if wrong > claimed:
            unseen = math.prod((1 - share) ** k for share, (k, _) in zip(shares, rows, strict=True))
            assert unseen < 0.05
