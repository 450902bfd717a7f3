"""Which points of a grid read a pixel, against all of them looked at; and planted mistakes in large grids."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - torch's own custom

from explorer.convert import leaf_of
from explorer.engine import registry
from explorer.engine.registry import Site
from explorer.engine.rounding import ROUNDINGS
from explorer.engine.rules.grids import REFLECTION, _Readings
from explorer.engine.run import Run
from tests.engine.op_check import check_outputs

GOOD = {"match", "loose"}


def _grid(dims: int, dtype: torch.dtype, padding: int) -> torch.Tensor:
    """Points inside, on pixels, at the borders and beyond them, far out where they are not reflected."""
    far = 20.0 if padding == REFLECTION else -1e9
    generator = torch.Generator().manual_seed(dims)
    grid = torch.rand(1, *[6] * dims, dims, generator=generator, dtype=torch.float64) * 2.6 - 1.3
    flat = grid.reshape(-1)
    flat[::7] = torch.tensor([-1.0, 1.0, 0.0, 0.25, -3.5, 7.0, far]).repeat(flat[::7].numel())[
        : flat[::7].numel()
    ]
    return grid.to(dtype)


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize(("dims", "mode"), [(2, 0), (2, 1), (2, 2), (3, 0), (3, 1)])
def test_the_points_that_read_a_pixel(dims: int, mode: int, padding: int, align: bool) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        grid = _grid(dims, dtype, padding)
        sizes = (5, 4, 3)[:dims]
        saved = {"grid": leaf_of(grid), "interpolation_mode": mode, "padding_mode": padding}
        saved["align_corners"] = align
        readings = _Readings(Site("GridSampler2DBackward0", saved, [], []), sizes)
        run = Run(ROUNDINGS["float32"])
        expected: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for place in product(*map(range, grid.shape[1:-1])):
            for taps in product(*[weights for weights, _ in readings.at(0, place, run)]):
                expected.setdefault(tuple(tap[0] for tap in taps), []).append(place)
        for pixel in product(*map(range, sizes)):
            found = [place for place, _, _ in readings.readers(0, pixel, run)]
            assert sorted(found) == sorted(expected.get(pixel, [])), pixel


@pytest.mark.parametrize("name", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_large_grids_agree(name: str, padding: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 2, 40, 50, requires_grad=True)
    grid = (torch.rand(3, 90, 80, 2) * 2.4 - 1.2).requires_grad_()
    found = F.grid_sample(x, grid, mode=name, padding_mode=padding, align_corners=False)
    verdicts = dict(check_outputs([found]))
    assert {one.status for one in verdicts.values()} <= GOOD, verdicts


@pytest.mark.parametrize("name", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_coordinates_far_out(name: str, padding: str) -> None:
    """As masks put them: nothing or the border is read there; where a reflection falls nobody knows."""
    torch.manual_seed(0)
    x = torch.randn(1, 2, 8, 9, requires_grad=True)
    grid = torch.rand(1, 6, 6, 2) * 2 - 1
    grid[0, ::2, ::3] = torch.tensor([1e9, -3e30])
    grid.requires_grad_()
    verdicts = dict(
        check_outputs([F.grid_sample(x, grid, mode=name, padding_mode=padding, align_corners=False)])
    )
    if padding == "reflection":
        assert {one.status for one in verdicts.values()} == {"unchecked"}
        assert all("reflection is lost" in one.reason for one in verdicts.values()), verdicts
    else:
        assert {one.status for one in verdicts.values()} <= GOOD, verdicts


@pytest.mark.parametrize("slot", [0, 1])
def test_a_mistake_in_a_large_grid_is_seen(slot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = registry._RULES["GridSampler2DBackward0"]

    def wrong(n: Any, g: Any) -> list[Any]:
        found = list(rule.function(n, g))
        found[slot] = found[slot] * 1.001
        return found

    monkeypatch.setitem(registry._RULES, "GridSampler2DBackward0", registry.Rule(rule.names, wrong))
    torch.manual_seed(0)
    x = torch.randn(4, 2, 30, 30, requires_grad=True)
    grid = (torch.rand(4, 200, 200, 2) * 2 - 1).requires_grad_()
    statuses = {one.status for _, one in check_outputs([F.grid_sample(x, grid, align_corners=True)])}
    assert statuses == {"mismatch"}
