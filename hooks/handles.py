"""One owner for everything attached to live PyTorch.

A hook handle, a patched function, an entered mode: whatever is attached is given to a `Handles`
on the next line, and undone last-in first-out when its ``with`` block ends, whatever ended it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from types import FunctionType, MethodType, TracebackType
from typing import Any, Protocol, TypeVar
from weakref import WeakKeyDictionary

T = TypeVar("T")
_PATCHES = (FunctionType, MethodType)
_retired: WeakKeyDictionary[Any, dict[tuple[int, str], Any]] = WeakKeyDictionary()
"""Patches that were undone while another lay over them: what to put back in their stead."""


class Removable(Protocol):
    """What torch returns from every ``register_*hook``."""

    def remove(self) -> None:
        """Detach the hook."""


def remove_all(handles: list[Removable]) -> None:
    """Remove every one, the last first.

    Raises:
        Exception: the first failure, after all of them were tried.
    """
    first: Exception | None = None
    while handles:
        try:
            handles.pop().remove()
        except Exception as problem:  # noqa: BLE001 - the remaining handles must still be removed
            first = first or problem
    if first is not None:
        raise first


class Handles:
    """A context manager that undoes what it was given, last first.

    Undoing goes on past a failure; the first failure is raised at the end, unless an exception is
    already on its way out (that one is the user's, and matters more).
    """

    def __init__(self) -> None:
        self._undo: list[Callable[[], object]] = []

    def __len__(self) -> int:
        return len(self._undo)

    def add(self, handle: Removable) -> None:
        """Own one hook handle."""
        self._undo.append(handle.remove)

    def extend(self, handles: Iterable[Removable]) -> None:
        """Own several hook handles."""
        self._undo.extend(handle.remove for handle in handles)

    def callback(self, undo: Callable[[], object]) -> None:
        """Call `undo` on the way out."""
        self._undo.append(undo)

    def enter(self, manager: AbstractContextManager[T]) -> T:
        """Enter `manager` now and leave it on the way out."""
        value = manager.__enter__()
        self._undo.append(lambda: manager.__exit__(None, None, None))
        return value

    def patch(self, owner: Any, name: str, value: object) -> None:
        """Set ``owner.name = value`` now and restore it on the way out.

        If somebody else has patched over `value` meanwhile, theirs stays: they hold a reference to
        `value` and will put it back, so `value` must turn into a pass-through once it is retired. Where
        they are another `Handles`, that puts back what was there before `value`, whichever ends first.
        """
        original = getattr(owner, name)
        setattr(owner, name, value)
        place = (id(owner), name)  # owners are modules and classes: they outlive every patch

        def restore() -> None:
            if getattr(owner, name) is not value:
                if type(value) in _PATCHES:
                    _retired.setdefault(value, {})[place] = original
                return
            below: Any = original
            # What was there before the first patch may be of a kind that has no weak references.
            while type(below) in _PATCHES and place in _retired.get(below, {}):
                below = _retired[below][place]
            setattr(owner, name, below)

        self._undo.append(restore)

    def close(self) -> None:
        """Undo everything now.

        Raises:
            Exception: the first failure among the undoings, after all of them were tried.
        """
        first: BaseException | None = None
        while self._undo:
            undo = self._undo.pop()
            try:
                undo()
            except Exception as problem:  # noqa: BLE001 - the remaining handles must still be undone
                first = first or problem
        if first is not None:
            raise first

    def __enter__(self) -> Handles:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Exception:
            if problem is None:
                raise
