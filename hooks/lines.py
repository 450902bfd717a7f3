"""The user's line around a running frame, and the user's part of a stack."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import FrameType

from hooks.places import OURS, USER, Place, kind_of

_FRAME = '  File "'
_RUNS_SCRIPTS = os.path.join(
    os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "explorer", "script.py"
)
"""What stands right below a script that the command runs: of what is below that the script knows nothing."""


def user_place(frame: FrameType | None) -> Place | None:
    """The innermost instruction of the user's own code at or around `frame`, None without any."""
    while frame is not None:
        if kind_of(frame.f_code.co_filename) == USER:
            return Place(frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return None


def users_part(stack: Sequence[str]) -> list[str]:
    """The entries of a formatted stack, outermost first, as they would be without us."""
    files = [entry.split('"', 2)[1] if entry.startswith(_FRAME) else "" for entry in stack]
    begins = max((place + 1 for place, file in enumerate(files) if file == _RUNS_SCRIPTS), default=0)
    return [stack[place] for place in range(begins, len(stack)) if kind_of(files[place]) != OURS]
