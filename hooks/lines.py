"""The user's line around a running frame."""

from __future__ import annotations

from types import FrameType

from hooks.places import USER, Place, kind_of


def user_place(frame: FrameType | None) -> Place | None:
    """The innermost instruction of the user's own code at or around `frame`, None without any."""
    while frame is not None:
        if kind_of(frame.f_code.co_filename) == USER:
            return Place(frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return None
