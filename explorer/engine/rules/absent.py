"""Backward nodes of torch that have no rule, and why: the table of what the check leaves out."""

from __future__ import annotations

ABSENT: dict[str, str] = {}
"""Node name to the reason, in words a report can show."""
