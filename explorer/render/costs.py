"""Saved memory, backward time and gradient by module, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from explorer.costs import ModuleCost
from explorer.render import words

ROWS = 25
"""Modules listed; the rest are counted."""


def table(costs: Sequence[ModuleCost], width: int = 80) -> str:
    """One line a module, in the order given; times in milliseconds."""
    name = max(width - 46, 12)
    lines = [f"  {'module':<{name}}{'nodes':>6}{'saved':>10}{'params':>10}{'backward':>11}{'|g|':>7}"]
    for cost in costs[:ROWS]:
        module = words.clean(cost.module or "(no module)", name - 1)
        lines.append(
            f"  {module:<{name}}{cost.nodes:>6,}"
            f"{words.memory(cost.saved):>10}{words.memory(cost.parameters):>10}"
            f"{cost.seconds * 1e3:>8.2f} ms{cost.gradient:>7.0e}"
        )
    if len(costs) > ROWS:
        lines.append(f"  and {len(costs) - ROWS:,} more {'module' if len(costs) == ROWS + 1 else 'modules'}")
    return "\n".join(lines) + "\n"
