"""Diagnoses: one module per finding, each with its rule stated. Errors come first.

`diagnose(report, evidence)` runs them all; `CODES` lists what is looked for.
"""

from __future__ import annotations

from explorer.diagnose import backward_never_called, non_finite_gradient, unreached_parameter
from explorer.diagnose.registry import DIAGNOSES, diagnose

CODES = tuple(DIAGNOSES)

__all__ = ["CODES", "backward_never_called", "diagnose", "non_finite_gradient", "unreached_parameter"]
