"""Real backwards that look like a finding and are none, or only a part of it: nothing untrue is said."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

import explorer
from explorer.report import Finding

Case = Callable[[], None]


def said(case: Case, code: str) -> list[Finding]:
    """The findings under `code`, after one real backward."""
    with explorer.watch() as watch:
        case()
    assert watch.report.problems == ()
    return [finding for finding in watch.report.findings if finding.code == code]


def used_twice(scale: float, sign: float) -> None:
    x = torch.ones(3, requires_grad=True)
    h = x * 2
    if scale != 1:
        h.register_hook(lambda gradient: gradient * scale)
    (h.sin() + sign * h.sin() * (1 + 1e-6)).sum().backward()


def test_a_gradient_that_a_hook_made_small_did_not_cancel() -> None:
    assert said(lambda: used_twice(1, -1), "fan-in-cancellation")
    assert not said(lambda: used_twice(1e-5, 1), "fan-in-cancellation")


@pytest.mark.parametrize("size", [2, 100])
def test_a_hook_that_looks_on_did_not_change_a_nan(size: int) -> None:
    def case(hook: Callable[[torch.Tensor], torch.Tensor | None]) -> Case:
        def run() -> None:
            h = torch.zeros(size, requires_grad=True) * 2
            h.register_hook(hook)
            (h.sqrt() * torch.zeros(size)).sum().backward()

        return run

    assert not said(case(lambda gradient: None), "hook-changed-gradient")
    assert not said(case(lambda gradient: gradient.clone()), "hook-changed-gradient")
    assert said(case(lambda gradient: gradient.nan_to_num(1.0)), "hook-changed-gradient")


@pytest.mark.parametrize("size", [2, 100])
def test_elements_inside_the_limits_are_not_called_outside(size: int) -> None:
    def picked() -> None:
        x = torch.full((size,), 0.5)
        x[0] = 2.0
        x.requires_grad_().clamp(0, 1)[0].backward()

    (finding,) = said(picked, "gradient-killed")
    assert finding.message == (
        "Every element of `clamp` that a gradient reaches lies outside the limits: "
        "`x` above it gets exactly 0."
    )
