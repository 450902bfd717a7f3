"""Which reports of a long run are kept in full.

A report of a small network takes some 30 KB, and a run may have a million backward calls. Where there is a
bound, every second report goes when it is reached: those that stay are spread over the whole run, with the
first, the newest, and the first few in which something was wrong.
"""

from __future__ import annotations

from explorer.evidence import Looked
from explorer.report import BAD_STATUSES, Report

KEPT_NODES = 20_000
"""Nodes that the reports of a long run may have together: some 50 MB."""
FEWEST = 8
"""Reports that are kept however large they are."""
WRONG = 8
"""Reports in which something was wrong that are kept whatever else goes."""


class Kept:
    """The reports, and what was seen right before each; `explored` counts those that went, too.

    Args:
        limit: nodes that the graphs of all reports together may have; None for no bound.
    """

    def __init__(self, limit: int | None = None) -> None:
        # Pairs in one list: Ctrl-C may come between any two lines, and what belongs together must stay so.
        self._kept: list[tuple[Report, Looked]] = []
        self.explored = 0
        self._limit = limit

    @property
    def pairs(self) -> tuple[tuple[Report, Looked], ...]:
        """The reports that are kept, in order, each with what was seen right before it."""
        return tuple(self._kept)

    def add(self, report: Report, looked: Looked) -> None:
        """Keep `report`, and let others go if it is one too many."""
        self._kept.append((report, looked))
        self.explored += 1
        if self._limit is not None and len(self._kept) > FEWEST and self._nodes() > self._limit:
            self._thin()

    def forget(self, report: Report) -> None:
        """Let one report go."""
        self._kept = [pair for pair in self._kept if pair[0] is not report]

    def _nodes(self) -> int:
        return sum(len(report.gradients) for report, _ in self._kept)

    def _thin(self) -> None:
        last = len(self._kept) - 1
        wrong = [place for place, (report, _) in enumerate(self._kept) if _wrong(report)][:WRONG]
        self._kept = [self._kept[place] for place in sorted({*range(0, last, 2), last, *wrong})]


def _wrong(report: Report) -> bool:
    """Whether a gradient of `report` mismatches or is not finite, or its backward failed."""
    if report.error or any(report.check.statuses.get(status) for status in BAD_STATUSES):
        return True
    ran = (record for node in report.gradients if node is not None for record in node.received)
    return any(record is not None and not record.finite for record in ran)
