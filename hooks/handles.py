"""One owner for everything attached to live PyTorch.

A hook handle, a patched function, an entered mode: whatever is attached is given to a `Handles`
on the next line, and undone last-in first-out when its ``with`` block ends, whatever ended it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, TypeVar

T = TypeVar("T")
_INHERITED = object()
"""What stands for an attribute that the patched owner did not have itself."""


@dataclass(eq=False, slots=True)
class _Patch:
    """A patch, what it lies over, and whether its owner has ended."""

    value: object
    below: object
    ended: bool = False


_patches: dict[tuple[int, str], list[_Patch]] = {}
"""All patches of a place, the last on top; owners are modules and classes, which outlive them."""


class Removable(Protocol):
    """What torch returns from every ``register_*hook``."""

    def remove(self) -> None:
        """Detach the hook."""


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
        inherited = isinstance(owner, type) and name not in vars(owner)
        patch = _Patch(value, _INHERITED if inherited else getattr(owner, name))
        setattr(owner, name, value)
        place = (id(owner), name)
        _patches.setdefault(place, []).append(patch)

        def restore() -> None:
            patches = _patches[place]
            patch.ended = True
            if vars(owner).get(name) is not patches[-1].value:  # somebody else's lies on top
                patches.remove(patch)
            elif patches[-1].ended:
                below = patches.pop().below
                while patches and patches[-1].ended and patches[-1].value is below:
                    below = patches.pop().below
                if below is _INHERITED:
                    delattr(owner, name)
                else:
                    setattr(owner, name, below)
            if all(one.ended for one in patches):
                del _patches[place]

        self._undo.append(restore)

    def close(self) -> None:
        """Undo everything now.

        Raises:
            BaseException: the first failure among the undoings, after all of them were tried.
        """
        first: BaseException | None = None
        while self._undo:
            undo = self._undo.pop()
            try:
                undo()
            except BaseException as problem:  # noqa: BLE001 - Ctrl-C or not, the rest must still be undone
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
