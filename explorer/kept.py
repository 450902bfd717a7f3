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
        self.reports: list[Report] = []
        self.looked: list[Looked] = []
        self.explored = 0
        self._limit = limit
        self._nodes = 0

    def add(self, report: Report, looked: Looked) -> None:
        """Keep `report`, and let others go if it is one too many."""
        self.reports.append(report)
        self.looked.append(looked)
        self.explored += 1
        self._nodes += len(report.gradients)
        if self._limit is not None and self._nodes > self._limit and len(self.reports) > FEWEST:
            self._thin()

    def forget(self, report: Report) -> None:
        """Let one report go."""
        place = next(place for place, kept in enumerate(self.reports) if kept is report)
        del self.reports[place], self.looked[place]
        self._nodes -= len(report.gradients)

    def _thin(self) -> None:
        last = len(self.reports) - 1
        wrong = [place for place, report in enumerate(self.reports) if _wrong(report)][:WRONG]
        stay = sorted({*range(0, last, 2), last, *wrong})
        self.reports = [self.reports[place] for place in stay]
        self.looked = [self.looked[place] for place in stay]
        self._nodes = sum(len(report.gradients) for report in self.reports)


def _wrong(report: Report) -> bool:
    """Whether a gradient of `report` mismatches or is not finite, or its backward failed."""
    if report.error or any(report.check.statuses.get(status) for status in BAD_STATUSES):
        return True
    ran = (record for node in report.gradients if node is not None for record in node.received)
    return any(record is not None and not record.finite for record in ran)
