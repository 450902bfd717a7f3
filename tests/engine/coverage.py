"""Which backward nodes have a rule: names met in torch's table of operations and in the models.

``python -m tests.engine.coverage [SAMPLES]`` prints name, count, and the rule or the reason there is none.
"""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch

from explorer.engine.rules import rule_for
from explorer.engine.rules.absent import reason_for
from tests.problems import PROBLEMS
from tests.test_op_db import DIFFERENTIABLE, flat

LEAF = "AccumulateGrad"


def samples_of(
    op: Any, limit: int, dtype: torch.dtype = torch.float64
) -> Iterator[tuple[list[torch.Tensor], Any]]:
    """The differentiable outputs of the first `limit` samples of one operation, seeded."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated operations are in the table too
        torch.manual_seed(0)
        samples = iter(op.sample_inputs("cpu", dtype, requires_grad=True))
        for sample in islice(samples, limit):
            torch.manual_seed(1)
            result = op(sample.input, *sample.args, **sample.kwargs)
            if sample.output_process_fn_grad is not None:
                result = sample.output_process_fn_grad(result)
            outputs = [item for item in flat([result]) if item.requires_grad]
            if outputs:
                yield outputs, sample


def node_names(roots: list[torch.Tensor]) -> list[str]:
    """The names of all nodes behind `roots`, leaves left out."""
    found: list[str] = []
    todo = [root.grad_fn for root in roots if root.grad_fn is not None]
    seen = set(todo)
    while todo:
        node = todo.pop()
        name = node.name().rsplit("::", 1)[-1]
        if name != LEAF:
            found.append(name)
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                todo.append(following)
    return found


def op_db_names(limit: int) -> Counter[str]:
    """How often each node name occurs in `limit` samples of each differentiable operation."""
    found: Counter[str] = Counter()
    for op in DIFFERENTIABLE:
        for outputs, _ in samples_of(op, limit):
            found.update(node_names(outputs))
    return found


def model_names() -> Counter[str]:
    """How often each node name occurs in the models of ``tests.problems``."""
    found: Counter[str] = Counter()
    for build in PROBLEMS.values():
        found.update(node_names(list(build().roots)))
    return found


def reason_of(name: str) -> str:
    """The rule of `name`, or why there is none."""
    rule = rule_for(name)
    if rule is not None:
        return rule.function.__module__.rsplit(".", 1)[-1] + "." + rule.function.__name__
    return "NO RULE: " + (reason_for(name) or "not written yet")


def node_classes() -> list[str]:
    """The name of every class of backward nodes that the installed torch has generated or written."""
    found = [name for name in dir(torch._C._functions) if "Backward" in name]
    return sorted({*found, "CopySlices", "CopyBackwards"})


def table(counts: Counter[str]) -> str:
    """One row per name, names without a rule first, each part by frequency."""
    rows = sorted(counts.items(), key=lambda pair: (rule_for(pair[0]) is not None, -pair[1], pair[0]))
    lines = [f"{name:<56} {count:>7}  {reason_of(name)}" for name, count in rows]
    have = [count for name, count in counts.items() if rule_for(name)]
    lines.append(
        f"{len(have)} of {len(counts)} names ({len(have) / len(counts):.1%}), "
        f"{sum(have)} of {counts.total()} nodes ({sum(have) / counts.total():.1%}) have a rule"
    )
    return "\n".join(lines)


if __name__ == "__main__":
    limit = int(sys.argv[1]) if len(sys.argv) > 1 else 25
    print(f"op_db, {limit} samples of each operation\n{table(op_db_names(limit))}\n")
    print(f"models\n{table(model_names())}\n")
    print(f"every node class of torch {torch.__version__}\n{table(Counter(node_classes()))}")
