"""Failures of our own inside the user's forward or backward: told, never raised there."""

from __future__ import annotations


class Faults:
    """What failed in the hooks of one attachment: one sentence a part, from its first failure."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}

    def note(self, part: str, error: Exception) -> None:
        """`part` failed; only its first failure is kept."""
        if part not in self._told:
            self._told[part] = f"{part} failed: {type(error).__name__}: {error}"

    @property
    def problems(self) -> tuple[str, ...]:
        """One sentence for each part that failed, in the order of their first failures."""
        return tuple(self._told.values())
