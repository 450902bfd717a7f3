"""The fused LSTM layer, against torch's decomposed LSTM in float64, whatever its shape; CTC's corners."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom

from explorer.check import Checker
from explorer.engine import registry
from explorer.engine.rules import sequences
from explorer.report import Verdict
from explorer.trace import trace
from hooks.nodes import capture

LAYER = "MkldnnRnnLayerBackward0"
SHAPES: dict[str, tuple[tuple[int, int, int, int], dict[str, Any]]] = {
    "one of all": ((1, 1, 1, 1), {}),
    "plain": ((7, 3, 5, 6), {}),
    "no bias": ((5, 2, 3, 4), {"bias": False}),
    "both ways": ((6, 2, 4, 5), {"bidirectional": True}),
    "two layers, batch first": ((6, 2, 4, 5), {"num_layers": 2, "batch_first": True}),
    "long": ((60, 1, 2, 4), {}),
}


def checked(roots: list[Tensor]) -> dict[str, list[Verdict]]:
    found = trace(roots)
    checker = Checker(found, "full")
    generator = torch.Generator().manual_seed(5)
    upstream = [torch.randn(one.shape, generator=generator).to(one.dtype) for one in roots]
    with capture(found.live, checker.observe) as watching:
        torch.autograd.backward(roots, upstream)
    assert watching.problem == ""
    verdicts: dict[str, list[Verdict]] = {}
    for one in checker.finish()[0]:
        verdicts.setdefault(found.graph.nodes[one.node].name, []).append(one)
    return verdicts


def network(name: str, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], list[Tensor]]:
    """The outputs of an LSTM, and everything that wants a gradient."""
    (time, batch, inputs, hidden), options = SHAPES[name]
    torch.manual_seed(1)
    model = nn.LSTM(inputs, hidden, **options)
    count = options.get("num_layers", 1) * (2 if options.get("bidirectional") else 1)
    shape = (batch, time, inputs) if options.get("batch_first") else (time, batch, inputs)
    x, h, c = (torch.randn(one) for one in (shape, (count, batch, hidden), (count, batch, hidden)))
    leaves = [one.to(dtype).requires_grad_() for one in (x, h, c)]
    model.to(dtype)
    out, (last_h, last_c) = model(leaves[0], (leaves[1], leaves[2]))
    return [out, last_h, last_c], [*leaves, *model.parameters()]


@pytest.mark.parametrize("name", SHAPES)
def test_the_fused_layer_is_checked(name: str) -> None:
    verdicts = checked(network(name)[0])
    assert LAYER in verdicts, "this torch decomposes its LSTM"
    assert {one.status for row in verdicts.values() for one in row} == {"match"}


@pytest.mark.parametrize("name", SHAPES)
def test_torch_in_float64_agrees_with_what_was_checked(name: str) -> None:
    """The oracle beside the rule: the same layer in float64, which torch builds of elementary operations."""
    gradients = []
    for dtype in (torch.float32, torch.float64):
        outputs, leaves = network(name, dtype)
        checked(outputs)
        gradients.append([one.grad for one in leaves])
    for single, double in zip(*gradients, strict=True):
        torch.testing.assert_close(single, double.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("slot", range(7))
def test_a_planted_wrong_rule_is_caught(slot: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = registry._RULES[LAYER]

    def wrong(n: Any, *g: Any) -> list[Any]:
        return [
            one * 1.001 if k == slot and one is not None else one
            for k, one in enumerate(rule.function(n, *g))
        ]

    monkeypatch.setitem(registry._RULES, LAYER, registry.Rule(rule.names, wrong))
    assert {one.status for one in checked(network("plain")[0])[LAYER]} == {"mismatch"}


def test_a_layer_too_large_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sequences, "LARGEST", 100)
    (verdict,) = checked(network("plain")[0])[LAYER]
    assert verdict.status == "unchecked"
    assert "too large" in verdict.reason


# -------------------------------------------------------------------- connectionist temporal classification


def ctc(
    dtype: torch.dtype, lengths: tuple[int, ...], labels: tuple[int, ...], **options: Any
) -> list[Verdict]:
    torch.manual_seed(2)
    x = (3 * torch.randn(9, len(lengths), 6)).to(dtype).requires_grad_()
    targets = torch.randint(1, 6, (len(lengths), 4))
    loss = F.ctc_loss(x.log_softmax(-1), targets, lengths, labels, **options)
    return checked([loss])["CtcLossBackward0"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("zero", [True, False])
def test_ctc(dtype: torch.dtype, zero: bool) -> None:
    """Full and short sequences, no labels at all; and one too short for its labels, whose loss is inf."""
    for lengths, labels in (((9, 7, 5), (4, 2, 1)), ((9, 9, 3), (0, 4, 1))):
        (verdict,) = ctc(dtype, lengths, labels, zero_infinity=zero)
        assert verdict.status == "match", verdict
    (verdict,) = ctc(dtype, (9, 2), (3, 4), zero_infinity=zero, reduction="sum")
    assert verdict.status in (("match",) if zero else ("match", "overflow", "unchecked")), verdict


def test_a_planted_wrong_ctc_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    true = sequences.alignment_gradient

    def wrong(p: list[list[float]], target: Any, blank: int) -> tuple[float, list[list[float]], float]:
        loss, found, size = true(p, target, blank)
        found[-1][blank] *= 1.001
        return loss, found, size

    monkeypatch.setattr(sequences, "alignment_gradient", wrong)
    assert ctc(torch.float32, (9, 7, 9), (4, 2, 1))[0].status == "mismatch"
