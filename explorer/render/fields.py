"""Single fields of a JSON document that may be hostile: read as what each must be, or refused in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

Object = dict[str, Any]
Thing = TypeVar("Thing")
LARGEST = 2**62
"""Whole numbers are smaller: whatever counts elements or bytes fits."""
DIMENSIONS = 64
"""The most a tensor of torch has."""


class FieldError(ValueError):
    """A field that is not what it must be; the message names it."""


def real(item: Any) -> float:
    """A real number; "nan", "inf" and "-inf" stand for what JSON lacks."""
    if isinstance(item, bool) or not (isinstance(item, (int, float)) or item in ("nan", "inf", "-inf")):
        raise FieldError(f"{item!r:.40} is no number")
    if isinstance(item, int) and abs(item) > 2**1000:
        raise FieldError("a number is too large")
    return float(item)


def optional(item: Any, read: Callable[[Any], Thing]) -> Thing | None:
    """None for null, else what `read` makes of it."""
    return None if item is None else read(item)


def whole(item: Any, name: str = "a count") -> int:
    """A whole number of usual size."""
    if isinstance(item, bool) or not isinstance(item, int):
        raise FieldError(f'"{name}" is no whole number')
    if not -LARGEST < item < LARGEST:
        raise FieldError(f'"{name}" is too large')
    return item


def place(item: Any, nodes: int) -> int:
    """The id of one of `nodes` nodes."""
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < nodes:
        raise FieldError(f"there is no node {item!r:.40}; there are {nodes}")
    return item


def sizes(item: Any) -> tuple[int, ...]:
    """The sizes of a tensor."""
    usual = isinstance(item, list) and len(item) <= DIMENSIONS
    if not usual or not all(type(size) is int and 0 <= size < LARGEST for size in item):
        raise FieldError(f"{item!r:.40} is no shape")
    return tuple(item)


def text(item: Mapping[str, Any], key: str) -> str:
    """A text."""
    if not isinstance(item[key], str):
        raise FieldError(f'"{key}" is no text')
    return str(item[key])


def texts(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    """A list of texts."""
    return tuple(text({key: one}, key) for one in listed(item, key))


def integer(item: Mapping[str, Any], key: str) -> int:
    """A whole number."""
    return whole(item[key], key)


def amount(item: Mapping[str, Any], key: str) -> int:
    """A whole number that counts something."""
    if (found := whole(item[key], key)) < 0:
        raise FieldError(f'"{key}" is negative')
    return found


def listed(item: Mapping[str, Any], key: str) -> list[Any]:
    """A list."""
    if not isinstance(item[key], list):
        raise FieldError(f'"{key}" is no list')
    return list(item[key])


def mapping(item: Mapping[str, Any], key: str) -> Object:
    """An object."""
    if not isinstance(item[key], dict):
        raise FieldError(f'"{key}" is no object')
    return dict(item[key])


def one_of(item: Mapping[str, Any], key: str, known: Sequence[Thing]) -> Thing:
    """One of the values there are."""
    for one in known:
        if item[key] == one and type(item[key]) is type(one):
            return one
    raise FieldError(f'"{key}" is {item[key]!r:.40}, not one of {", ".join(map(str, known))}')
