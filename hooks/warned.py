"""Hears torch's warning that the ``.grad`` of a tensor that is no leaf was read; it is shown as ever."""

from __future__ import annotations

import warnings
from typing import Any

from hooks.handles import Handles

NON_LEAF = "The .grad attribute of a Tensor that is not a leaf Tensor is being accessed"


class NonLeafReads:
    """(file, line) of each read, in order. Reads that the user's own filters silence are not heard."""

    def __init__(self) -> None:
        self.places: list[tuple[str, int]] = []

    def attach(self, handles: Handles) -> None:
        """Listen to warnings until `handles` closes."""
        shown = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: Any = None,
            line: str | None = None,
        ) -> None:
            if (
                category is UserWarning
                and str(message).startswith(NON_LEAF)
                and (filename, lineno) not in self.places
            ):
                self.places.append((filename, lineno))
            shown(message, category, filename, lineno, file, line)

        handles.patch(warnings, "showwarning", show)
