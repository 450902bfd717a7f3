"""What the costs have to stay below: each mark beside the line of the table that it is named for."""

from __future__ import annotations

from dataclasses import dataclass

STEPS = ("mlp", "cnn", "transformer")
"""The models whose training step has marks."""


@dataclass(frozen=True)
class Mark:
    """At most `factor` times the base, plus `seconds`."""

    factor: float = 0.0
    seconds: float = 0.0

    def reached(self, ratio: float, base_ms: float) -> bool:
        """Whether `ratio` times a base of `base_ms` milliseconds is within the mark."""
        if not self.seconds:
            return ratio <= self.factor
        return ratio * base_ms <= self.factor * base_ms + self.seconds * 1e3

    def __str__(self) -> str:
        parts = [f"{self.factor:g}x"] if self.factor else []
        return " + ".join([*parts, f"{self.seconds:g} s"] if self.seconds else parts)


_WATCHED = Mark(1.25)
_STEP = {
    "watch, statistics": _WATCHED,
    "watch, statistics, left open": _WATCHED,
    "watch, statistics (beside peers)": _WATCHED,
    "peak memory, watch, statistics": Mark(1.1),
}
_ANY = {
    "traverse": Mark(1.5),
    "explore --help": Mark(seconds=0.3),
    "explore examples/xyz.py": Mark(1.3, 0.5),
    "explored and drawn, seconds of 60": Mark(1.0),
    "explored and drawn, GB of 6": Mark(1.0),
}


def mark_of(model: str, what: str) -> Mark | None:
    """The mark of one line, None where there is none.

    Args:
        model: the model's name, and its batch behind a comma.
        what: what was measured.
    """
    if model.partition(",")[0] in STEPS and what in _STEP:
        return _STEP[what]
    return _ANY.get(what)
