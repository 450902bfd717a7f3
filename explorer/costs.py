"""Saved memory and backward time by module, from one report.

Saved bytes are counted once per storage, for the module that saved it first in node order; parameters
(a saved leaf) are counted apart, since they are there anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import hypot
from typing import Literal

from explorer.report import Report

Order = Literal["memory", "time", "gradient"]


@dataclass(frozen=True, slots=True)
class ModuleCost:
    """One module: `nodes` of its own (modules below it are listed by themselves), `saved` and `parameters`
    in bytes, `seconds` of its nodes' formulas, `gradient` the 2-norm over what its nodes received."""

    module: str
    nodes: int
    saved: int
    parameters: int
    seconds: float
    gradient: float


def costs(report: Report, order: Order = "memory") -> tuple[ModuleCost, ...]:
    """The modules of `report`, the most expensive first.

    Args:
        order: by saved bytes, by backward seconds, or by the size of the gradient.
    """
    nodes: dict[str, int] = {}
    saved: dict[str, int] = {}
    parameters: dict[str, int] = {}
    seconds: dict[str, float] = {}
    norms: dict[str, float] = {}
    seen: set[int] = set()
    for node in report.graph.nodes:
        if node.kind == "leaf":
            continue
        module = node.module
        nodes[module] = nodes.get(module, 0) + 1
        for value in node.saved:
            if value.storage is None or value.storage in seen:
                continue
            seen.add(value.storage)
            account = saved if value.owner is None else parameters
            account[module] = account.get(module, 0) + value.bytes
        ran = report.gradients[node.id] if node.id < len(report.gradients) else None
        if ran is not None:
            seconds[module] = seconds.get(module, 0.0) + ran.seconds
            for record in ran.received:
                if record is not None:
                    norms[module] = hypot(norms.get(module, 0.0), record.norm)
    found = [
        ModuleCost(
            module,
            count,
            saved.get(module, 0),
            parameters.get(module, 0),
            seconds.get(module, 0.0),
            norms.get(module, 0.0),
        )
        for module, count in nodes.items()
    ]
    keys = {
        "memory": lambda cost: cost.saved,
        "time": lambda cost: cost.seconds,
        "gradient": lambda cost: cost.gradient,
    }
    return tuple(sorted(found, key=keys[order], reverse=True))
