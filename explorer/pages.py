"""The memory of a large tensor on a device, brought over where somebody reads it.

A sample reads some thousand numbers of a gradient, and copying all of it takes a second for every five
gigabytes. A single fetch waits for the device, though: some 20 us. So a tensor that is read often is copied
as a whole in the end, when all fetches together have cost as much as that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

BYTES_PER_FETCH = 100_000
"""So many bytes are copied in the time of one fetch."""
PAGE = 4096
"""A number that is asked for alone comes with this many around it."""

View = Callable[[torch.Tensor], memoryview]


class Pages:
    """Reads like a memoryview: an item, a slice (with its ``tolist``), and `many` items at once.

    Args:
        flat: all items, one after the other, still on the device.
        view: a CPU tensor's memory as items.
    """

    def __init__(self, flat: torch.Tensor, view: View) -> None:
        self.itemsize = flat.element_size()
        self._flat = flat
        self._view = view
        self._size = flat.numel()
        self._fetches = self._size * self.itemsize // BYTES_PER_FETCH
        self._whole: memoryview | None = None
        self._pages: dict[int, memoryview] = {}

    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            near = self._near()
            return near[place] if near is not None else self._bring(self._flat[place])
        if self._whole is not None:
            return self._whole[place]
        number, within = divmod(place, PAGE)
        page = self._pages.get(number)
        if page is None:
            near = self._near()
            if near is not None:
                return near[place]
            first = number * PAGE
            page = self._pages[number] = self._bring(self._flat[first : first + PAGE])
        return page[within]

    def many(self, places: Sequence[int]) -> list[Any]:
        """The items at `places`, in one fetch."""
        near = self._near()
        if near is not None:
            return [near[place] for place in places]
        chosen = torch.tensor(places, device=self._flat.device)
        return self._bring(self._flat[chosen]).tolist()

    def _near(self) -> memoryview | None:
        """All items, where they have come over by now; every call is a fetch that is about to be made."""
        if self._whole is None:
            self._fetches -= 1
            if self._fetches < 0:
                self._whole = self._bring(self._flat)
                self._pages.clear()
        return self._whole

    def _bring(self, part: torch.Tensor) -> memoryview:
        return self._view(part.cpu().contiguous())
