"""Every differentiable operation of torch's own table: walked, captured, bitwise unchanged."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from explorer.record import Recorder
from explorer.trace import trace
from hooks.nodes import capture
from tests.exploration import same_bits

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # torch's own test helpers import deprecated parts of torch
    from torch.testing._internal.common_methods_invocations import op_db

DIFFERENTIABLE = [op for op in op_db if op.supports_autograd and torch.float64 in op.supported_dtypes("cpu")]


def outputs_of(op: Any) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Run the first sample, seeded; return its differentiable outputs and the leaves that went in."""
    torch.manual_seed(0)
    sample = next(iter(op.sample_inputs("cpu", torch.float64, requires_grad=True)))
    torch.manual_seed(1)
    given: list[Any] = [sample.input, *sample.args, *sample.kwargs.values()]
    leaves = [item for item in flat(given) if item.requires_grad and item.is_leaf]
    result = op(sample.input, *sample.args, **sample.kwargs)
    if sample.output_process_fn_grad is not None:
        result = sample.output_process_fn_grad(result)
    return [item for item in flat([result]) if item.requires_grad], leaves


def flat(values: Any) -> list[torch.Tensor]:
    """All tensors in nested lists, tuples and named tuples."""
    found: list[torch.Tensor] = []
    for value in values:
        if isinstance(value, torch.Tensor):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found.extend(flat(value))
    return found


def gradients(outputs: list[torch.Tensor], leaves: list[torch.Tensor]) -> list[torch.Tensor | None] | str:
    """Backward from ones; the text of the exception if the operation cannot."""
    try:
        torch.manual_seed(2)
        torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
    except RuntimeError as problem:
        return str(problem)
    return [leaf.grad for leaf in leaves]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.formatted_name)
def test_operation_walks_and_is_captured_unchanged(op: Any) -> None:
    plain = gradients(*outputs_of(op))
    outputs, leaves = outputs_of(op)
    if not outputs:
        pytest.skip("the first sample has no differentiable output")
    found = trace(outputs)
    recorder = Recorder(found)
    events: list[int] = []

    def observe(event: Any) -> None:
        events.append(event.index)
        recorder.observe(event)

    with capture(found.live, observe) as watching:
        watched = gradients(outputs, leaves)
    assert watching.problem == ""
    recorder.finish()
    if isinstance(plain, str) or isinstance(watched, str):
        assert plain == watched
        return
    assert len(events) == len(set(events)) == len(found.live)
    assert all(map(same_bits, plain, watched))


def test_the_table_is_the_whole_one() -> None:
    assert len(DIFFERENTIABLE) > 500
