"""One line on a terminal that says how far a long run is; nothing where stderr is no terminal."""

from __future__ import annotations

from math import hypot, isfinite
from time import monotonic
from typing import TextIO

from explorer.journal import Step

PATIENCE = 1.0
"""Seconds before the line is first shown, and between two looks of it."""
WIDTH = 72
"""Columns it takes at most."""
_CLEAR = "\x1b[2K"


class ProgressLine:
    """Writes the line anew every second; the cursor stays at its beginning, where the script writes on.

    Args:
        stream: a terminal. One that fails ends the display.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream: TextIO | None = stream
        self._began = self._next = monotonic() + PATIENCE
        self._shown = False

    def told(self, step: Step) -> None:
        """A backward call is over."""
        now = monotonic()
        if now >= self._next:
            self._next = now + PATIENCE
            self._write(f"{_CLEAR}{line(step, now - self._began + PATIENCE)}\r")

    def close(self) -> None:
        """Take the line away."""
        if self._shown:
            self._write(_CLEAR)

    def _write(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
            self._shown = True
        except (OSError, ValueError):  # the terminal is gone
            self._stream = None


def line(step: Step, seconds: float) -> str:
    """What is said after `step`, `seconds` into the run; at most `WIDTH` columns of plain ASCII."""
    parts = [f"explore: backward call {step.call:,}"]
    if step.loss is not None:
        parts.append(f"loss {step.loss:.4g}")
    norm = hypot(*(layer.norm for layer in step.layers.values()))
    if step.nonfinite or not isfinite(norm):
        parts.append("gradient NOT FINITE")
    elif step.layers:
        parts.append(f"gradient {norm:.3g}")
    if seconds > 0:
        parts.append(f"{step.call / seconds:.3g}/s")
    return ", ".join(parts)[:WIDTH]
