"""Holds the garbage collector back while a large report is drawn.

Nothing made meanwhile is garbage before the end, and each collection would look through the whole report
again. (`hooks.collection` does the same for live graphs; neither room may know the other.)
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def uncollected(function: Callable[P, R]) -> Callable[P, R]:
    """`function`, during which nothing is collected."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        if not gc.isenabled():
            return function(*args, **kwargs)
        gc.disable()
        try:
            return function(*args, **kwargs)
        finally:
            gc.enable()

    return run
