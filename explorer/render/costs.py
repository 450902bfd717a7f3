"""Saved memory, backward time and gradient by module, as a table for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from explorer.costs import ModuleCost
from explorer.render import words

ROWS = 25
"""Modules listed; the rest are counted."""
_UNITS = ("B", "KB", "MB", "GB", "TB")


def table(costs: Sequence[ModuleCost], width: int = 80) -> str:
    """One line a module, in the order given; bytes in powers of 1,000, times in milliseconds."""
    name = max(width - 46, 12)
    lines = [f"  {'module':<{name}}{'nodes':>6}{'saved':>10}{'params':>10}{'backward':>11}{'|g|':>7}"]
    for cost in costs[:ROWS]:
        module = words.clean(cost.module or "(no module)", name - 1)
        lines.append(
            f"  {module:<{name}}{cost.nodes:>6,}{size(cost.saved):>10}{size(cost.parameters):>10}"
            f"{cost.seconds * 1e3:>8.2f} ms{cost.gradient:>7.0e}"
        )
    if len(costs) > ROWS:
        lines.append(f"  and {len(costs) - ROWS:,} more modules")
    return "\n".join(lines) + "\n"


def size(count: int) -> str:
    """Bytes with a unit that leaves at most three digits before the point.

    >>> size(0), size(999), size(1_500_000)
    ('0 B', '999 B', '1.5 MB')
    """
    amount, unit = float(count), 0
    while amount >= 1000 and unit < len(_UNITS) - 1:
        amount /= 1000
        unit += 1
    return f"{count} B" if unit == 0 else f"{amount:.1f} {_UNITS[unit]}"
