"""Numbers and names as people read them."""

from __future__ import annotations

import doctest

import pytest

from explorer.render import words


def test_the_examples_in_the_docstrings_hold() -> None:
    results = doctest.testmod(words)
    assert results.attempted >= 9
    assert results.failed == 0


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("\x1b[31mred", "\\x1b[31mred"),
        ("a\r\nb", "a\\r\\nb"),
        ("\u202egnp", "\\u202egnp"),
        ("\ud800", "\\ud800"),
        ("\x00", "\\x00"),
        ("emoji 😀 and עברית", "emoji 😀 and עברית"),
    ],
)
def test_strangers_text_is_spelled_out(given: str, shown: str) -> None:
    assert words.clean(given) == shown


def test_long_text_is_cut() -> None:
    assert len(words.clean("x" * 10_000)) == words.LONGEST
