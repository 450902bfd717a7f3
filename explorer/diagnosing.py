"""All reports of a watch, with their findings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from explorer import diagnose
from explorer.evidence import Evidence, Looked
from explorer.exploring import Stages
from explorer.known import Row
from explorer.report import Report
from hooks.collection import no_collection


def diagnosed(pairs: Sequence[tuple[Report, Looked]], run: Evidence, missing: Sequence[str]) -> list[Report]:
    """The reports with forward values, findings, and the problems met in finding those.

    Args:
        pairs: each report with what was seen right before it.
        run: what the whole run showed.
        missing: what of that could not be gathered, and why.
    """
    found = []
    for index, (report, seen) in enumerate(pairs):
        evidence = replace(run, last=index == len(pairs) - 1, looked=seen)
        forward: Mapping[int, Row] = {}
        filling = Stages()
        with filling.guard("reading forward values"):
            forward = dict(report.forward)
        report = replace(report, forward=forward)
        with no_collection():
            findings, problems = diagnose.diagnose(report, evidence)
        told = (*report.problems, *report.graph.problems, *filling.problems, *missing, *problems)
        found.append(replace(report, findings=findings, problems=told, looked_for=diagnose.CODES))
    return found
