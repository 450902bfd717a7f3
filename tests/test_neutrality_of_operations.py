"""Every differentiable operation of torch's own table under a whole watch: not one bit of it changes.

The short form takes the first sample of every eighth operation; ``-m long`` takes 25 samples of each.
"""

from __future__ import annotations

import copy
import sys
import warnings
from itertools import islice
from typing import Any

import pytest
import torch

from explorer.watching import Watch
from tests.test_neutrality import assert_same, differences, shared, undisturbed
from tests.test_op_db import DIFFERENTIABLE, flat

SAMPLES = 25
EVERY = 8


def samples(op: Any, count: int) -> list[Any]:
    """The first `count` samples, the same every time."""
    torch.manual_seed(0)
    found = islice(op.sample_inputs("cpu", torch.float64, requires_grad=True), count)
    return [sample for sample in found if not unsteady(op, sample)]


def unsteady(op: Any, sample: Any) -> bool:
    """Whether torch itself gives now these bits and now others.

    ``linalg.lstsq`` by gelsy (the default) hands LAPACK a list of pivots that it never filled: 200 plain
    calls on one matrix gave five results.
    """
    return op.name.startswith("linalg.lstsq") and sample.kwargs.get("driver") in (None, "gelsy")


def observed(op: Any, sample: Any) -> Any:
    """Forward and backward of one sample, with hooks of the user's: all of it that can be seen."""
    given = flat([sample.input, *sample.args, *sample.kwargs.values()])
    leaves = [tensor for tensor in given if tensor.requires_grad and tensor.is_leaf]
    calls: list[Any] = []
    for place, leaf in enumerate(leaves):
        leaf.register_hook(lambda gradient, place=place: calls.append([place, gradient]))
        leaf.register_post_accumulate_grad_hook(
            lambda leaf, place=place: calls.append([place, "accumulated"])
        )
    torch.manual_seed(1)
    outputs: list[torch.Tensor] = []
    failure = ""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        try:
            result = op(sample.input, *sample.args, **sample.kwargs)
            if sample.output_process_fn_grad is not None:
                result = sample.output_process_fn_grad(result)
            outputs = [tensor for tensor in flat([result]) if tensor.requires_grad]
            for place, output in enumerate(outputs):
                if output.grad_fn is not None:
                    output.grad_fn.register_prehook(lambda _, place=place: calls.append(["before", place]))
                    output.grad_fn.register_hook(lambda *_, place=place: calls.append(["after", place]))
            if outputs:
                torch.autograd.backward(outputs, [torch.ones_like(output) for output in outputs])
        except (RuntimeError, NotImplementedError) as error:
            failure = f"{type(error).__name__}: {error}"
    gradients = [leaf.grad for leaf in leaves]
    held = [gradient for gradient in gradients if gradient is not None]
    return [
        outputs,
        gradients,
        calls,
        failure,
        [str(one.message) for one in told],
        [sys.getrefcount(gradient) for gradient in held],
        shared(held),
        [(tensor._version, tensor.is_leaf) for tensor in given],
        torch.get_rng_state(),
    ]


def check(op: Any, count: int) -> None:
    """All samples of `op`, plain and then under one watch."""
    for sample in samples(op, count):
        observed(op, sample)  # what torch says once per process
    plain = [observed(op, sample) for sample in samples(op, count)]
    with Watch(keep=500) as watch:
        watched = [observed(op, sample) for sample in samples(op, count)]
    assert_same(plain, watched)
    undisturbed(watch)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", DIFFERENTIABLE[::EVERY], ids=lambda op: op.formatted_name)
def test_an_operation(op: Any) -> None:
    check(op, 1)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("op", DIFFERENTIABLE, ids=lambda op: op.formatted_name)
def test_many_samples_of_an_operation(op: Any) -> None:
    check(op, SAMPLES)


def test_a_disturbed_operation_is_noticed() -> None:
    """The comparison itself: a gradient in other memory, a hook more, a number drawn."""
    (op,) = [op for op in DIFFERENTIABLE if op.formatted_name == "mul"][:1]
    seen = observed(op, samples(op, 1)[0])
    for place in (0, 1, 2, 5, 6, 8):
        other = copy.copy(seen)
        other[place] = seen[place][:-1] if place != 8 else seen[place] + 1
        assert list(differences(seen, other)), place
