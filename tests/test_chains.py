"""Paths: counts, contributions and what is said where a number would not be honest."""

from __future__ import annotations

import random
from math import isclose

import pytest
import torch

from explorer.chains import Paths, paths
from explorer.errors import UsageError
from explorer.report import Report
from explorer.values import fill
from tests.small_reports import hand_made, report_of


def node_called(report: Report, name: str) -> int:
    return next(node.id for node in report.graph.nodes if node.label == name)


def paths_of(loss: torch.Tensor, name: str, limit: int = 10, **leaves: torch.Tensor) -> Paths:
    report, saved = report_of(loss, **leaves)
    return paths(report, node_called(report, name), limit, fill(report.graph, report.forward, saved))


def real(*values: float) -> list[torch.Tensor]:
    return [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in values]


def test_x_y_z() -> None:
    """f = (x + y)·z at (-2, 5, -4): df/dx = z = -4."""
    x, y, z = real(-2.0, 5.0, -4.0)
    found = paths_of((x + y) * z, "x", x=x, y=y, z=z)
    assert (found.count, found.total, found.gradient, found.note) == (1, -4.0, -4.0, "")
    assert found.listed[0].local == (-4.0, 1.0)
    assert found.text == "1 path from loss to x\n  1. loss → v1 → x\n     (-4) × 1 = -4\ngradient: -4\n"


def test_the_same_variable_twice_is_two_paths() -> None:
    (x,) = real(3.0)
    found = paths_of(x * x, "x", x=x)
    assert (found.count, found.total) == (2, 6.0)
    assert [path.contribution for path in found.listed] == [3.0, 3.0]
    assert found.listed[0].edges != found.listed[1].edges


def test_a_graph_of_three_variables_sums_to_the_gradient() -> None:
    """r = (a·b + c)·(a + b)·c at (2, 4, 1): the paths of each variable sum to its gradient."""
    a, b, c = real(2.0, 4.0, 1.0)
    for name, by_hand in (("a", 1 * (4 * 6 + 9)), ("b", 1 * (2 * 6 + 9)), ("c", 6 * (1 + 9))):
        found = paths_of((a * b + c) * (a + b) * c, name, a=a, b=b, c=c)
        assert found.count == 2
        assert found.total == found.gradient == by_hand
        assert sum(path.contribution or 0.0 for path in found.listed) == by_hand


def test_two_to_the_sixty_paths_are_counted_not_listed() -> None:
    (x,) = real(0.5)
    y = x
    for _ in range(60):
        y = y + y
    found = paths_of(y, "x", 3, x=x)
    assert found.count == 2**60
    assert found.total == 2.0**60
    assert len({path.edges for path in found.listed}) == 3
    assert "1,152,921,504,606,846,976 paths" in found.text


def test_the_largest_are_those_a_full_listing_has() -> None:
    random.seed(5)
    for _ in range(20):
        (x,) = real(random.uniform(0.5, 1.5))
        made = [x]
        for _ in range(7):
            one, other = random.choices(made, k=2)
            made.append(random.choice([one * other, one + other, torch.sin(one), one - other * 0.5]))
        loss = sum(made[-3:], torch.zeros((), dtype=torch.float64))
        if loss.grad_fn is None:
            continue
        everything = paths_of(loss, "x", 10**6, x=x)
        best = paths_of(loss, "x", 4, x=x)
        assert len(everything.listed) == everything.count
        sizes = sorted((abs(path.contribution or 0.0) for path in everything.listed), reverse=True)
        found = [abs(path.contribution or 0.0) for path in best.listed]
        assert found == pytest.approx(sizes[:4], rel=1e-9, abs=1e-15)
        assert everything.total is not None
        assert everything.gradient is not None
        total = sum(path.contribution or 0.0 for path in everything.listed)
        assert isclose(total, everything.gradient, rel_tol=1e-9, abs_tol=1e-9)
        assert everything.note == ""


def test_a_gradient_to_begin_with_is_part_of_every_contribution() -> None:
    (x,) = real(3.0)
    report, saved = report_of(x * x, torch.tensor(10.0, dtype=torch.float64), x=x)
    found = paths(report, node_called(report, "x"), 10, fill(report.graph, report.forward, saved))
    assert found.total == found.gradient == 60.0


def test_a_hook_that_changes_a_gradient_is_noticed() -> None:
    (x,) = real(3.0)
    y = x * 2
    y.register_hook(lambda grad: grad * 1.5)
    found = paths_of(torch.sin(y), "x", x=x)
    assert found.total != found.gradient
    assert "a hook changed a gradient" in found.note


def test_in_place_changes_are_ordinary_paths() -> None:
    (x,) = real(3.0)
    y = x * 2
    y.mul_(x)
    y.add_(1.0)
    found = paths_of(y, "x", x=x)
    assert found.count == 2
    assert found.total == 12.0


def test_tensors_are_grouped_by_their_last_edge() -> None:
    x = torch.tensor([1.0, 2.0], requires_grad=True)
    found = paths_of((x * x + torch.sin(x)).sum(), "x", x=x)
    assert (found.count, found.total) == (3, None)
    assert "not one number" in found.note
    assert [group.count for group in found.groups] == [1, 1, 1]
    sine = torch.cos(x.detach()).norm().item()
    assert any(isclose(group.norm or 0.0, sine, rel_tol=1e-5) for group in found.groups)
    assert all(path.contribution is None for path in found.listed)


def test_no_path_and_no_such_node() -> None:
    names = {0: "SinBackward0", 1: "AccumulateGrad", 2: "AccumulateGrad"}
    report = hand_made(names, ((0, 0, 1, 0),), {1: "x", 2: "y"}, {0: 1.0, 1: 0.5})
    nothing = paths(report, 2)
    assert (nothing.count, nothing.listed) == (0, ())
    assert "no path leads there" in nothing.text
    with pytest.raises(UsageError, match="nodes 0 to 2"):
        paths(report, 3)


def test_the_root_itself_is_reached_by_the_empty_path() -> None:
    report = hand_made({0: "SinBackward0", 1: "AccumulateGrad"}, ((0, 0, 1, 0),), {1: "x"}, {0: 1.0, 1: 0.5})
    found = paths(report, 0)
    assert (found.count, found.total, found.listed[0].nodes) == (1, 1.0, (0,))


def test_a_chain_of_twenty_thousand_nodes() -> None:
    length = 20_000
    names = dict.fromkeys(range(length), "SinBackward0") | {length: "AccumulateGrad"}
    edges = tuple((number, 0, number + 1, 0) for number in range(length))
    report = hand_made({0: "SinBackward0", 1: "AccumulateGrad"}, ((0, 0, 1, 0),), {1: "x"}, {})
    chain = type(report.graph)(
        tuple(type(report.graph.nodes[0])(number, name) for number, name in names.items()),
        tuple(type(report.graph.edges[0])(*edge) for edge in edges),
        ((0, 0),),
        (1,) * length + (0,),
    )
    found = paths(Report(chain), length, 2)
    assert (found.count, found.total, len(found.listed[0].nodes)) == (1, None, length + 1)
