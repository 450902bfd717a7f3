"""The table of diagnoses: a code, and the function registered under it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from explorer.errors import ExplorerError
from explorer.evidence import Evidence
from explorer.report import Finding, Report

Diagnosis: TypeAlias = Callable[[Report, Evidence], Iterable[Finding]]
DIAGNOSES: dict[str, Diagnosis] = {}
SEVERITIES = {"error": 0, "warning": 1, "info": 2}


def diagnosis(code: str) -> Callable[[Diagnosis], Diagnosis]:
    """Register the function below as the diagnosis `code`; a code taken twice raises."""

    def register(function: Diagnosis) -> Diagnosis:
        if code in DIAGNOSES:
            raise ExplorerError(f"the diagnosis {code!r} is registered twice")
        DIAGNOSES[code] = function
        return function

    return register


def diagnose(report: Report, evidence: Evidence) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """Run every diagnosis over `report`.

    Returns:
        The findings, errors first and otherwise in the order of the table, and what could not be looked
        at: one sentence per diagnosis that raised.
    """
    findings: list[Finding] = []
    problems: list[str] = []
    for code, function in DIAGNOSES.items():
        try:
            findings += function(report, evidence)
        except Exception as error:  # noqa: BLE001 - one diagnosis must not take the others with it
            problems.append(f"the diagnosis {code} failed: {type(error).__name__}: {error}")
    findings.sort(key=lambda finding: SEVERITIES[finding.severity])
    return tuple(findings), tuple(problems)
