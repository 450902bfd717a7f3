"""Runs the check on samples of torch's own table of operations.

``python -m tests.engine.op_check [SAMPLES] [DTYPE] [OPERATION...]`` prints every verdict that is neither
``match`` nor ``loose``.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from explorer.check import Checker
from explorer.report import Verdict
from explorer.trace import trace
from hooks.nodes import capture
from tests.engine.coverage import samples_of
from tests.test_op_db import DIFFERENTIABLE

GOOD = {"match", "loose", "unchecked"}


@dataclass(frozen=True)
class Checked:
    """The verdict on one node of one sample."""

    operation: str
    sample: int
    node: str
    verdict: Verdict

    def __str__(self) -> str:
        return f"{self.operation}[{self.sample}] {self.node}: {self.verdict.status}: {self.verdict.reason}"


def check_outputs(outputs: list[torch.Tensor], seed: int = 2) -> Iterator[tuple[str, Verdict]]:
    """Backward from random gradients under the check: node name and verdict, leaves left out."""
    found = trace(outputs)
    checker = Checker(found, "sample")
    generator = torch.Generator().manual_seed(seed)
    upstream = [
        torch.randn(one.shape, dtype=one.dtype, generator=generator).to(one.dtype)
        if one.layout is torch.strided
        else torch.ones_like(one)
        for one in outputs
    ]
    watching = capture(found.live, checker.observe)
    with watching, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch says of its own deprecated operations
        torch.autograd.backward(outputs, upstream)
    assert watching.problem == "", watching.problem
    verdicts, _ = checker.finish()
    nodes = found.graph.nodes
    return ((nodes[one.node].name, one) for one in verdicts if nodes[one.node].kind != "leaf")


def check_operation(op: Any, limit: int, dtype: torch.dtype) -> Iterator[Checked]:
    """The verdict on every node of the first `limit` samples; what torch cannot differentiate is left out."""
    for number, (outputs, _) in enumerate(samples_of(op, limit, dtype)):
        try:
            pairs = list(check_outputs(outputs))
        except RuntimeError:
            continue  # torch itself refuses this sample: "not implemented" or a singular matrix
        for name, verdict in pairs:
            yield Checked(op.formatted_name, number, name, verdict)


def main(limit: int, dtype: torch.dtype, wanted: list[str]) -> None:
    """Print what is not good, and the share of nodes that were checked."""
    counts: Counter[str] = Counter()
    for op in DIFFERENTIABLE:
        if dtype not in op.supported_dtypes("cpu") or (wanted and op.name not in wanted):
            continue
        try:
            for one in check_operation(op, limit, dtype):
                counts[one.verdict.status] += 1
                if one.verdict.status not in ("match", "loose"):
                    print(one)
        except (RuntimeError, NotImplementedError) as problem:
            print(f"{op.formatted_name}: torch's samples raise {problem}")
    print(dict(counts))


if __name__ == "__main__":
    arguments = sys.argv[1:] or ["1"]
    name = arguments[1] if len(arguments) > 1 else "float64"
    main(int(arguments[0]), getattr(torch, name), arguments[2:])
