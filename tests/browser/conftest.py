"""One headless Chromium for all tests of the page, and what opens a report in it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from explorer.render.html import page
from explorer.report import Report, Session
from tests.browser.chromium import Page, browser

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
Show = Callable[..., Page]


@pytest.fixture(scope="session")
def tab() -> Iterator[Page]:
    if PROGRAM is None and "CI" not in os.environ:
        pytest.skip("chromium is not installed")
    assert PROGRAM is not None, "continuous integration must have chromium"
    with browser(PROGRAM) as opened:
        yield opened()


@pytest.fixture
def show(tab: Page, tmp_path: Path) -> Iterator[Show]:
    """Writes a report's page and opens it; holds at the end that it neither failed nor fetched anything."""

    def opened(
        report: Report | Session,
        anchor: str = "",
        size: tuple[int, int] = (1280, 800),
        *,
        full: bool = False,
        focus: str | None = None,
        **preferences: str,
    ) -> Page:
        file = tmp_path / "page.html"
        file.write_text(page(report, full=full, focus=focus), encoding="utf-8")
        tab.size(*size)
        tab.prefer(**preferences)
        tab.open(file.as_uri() + anchor)
        return tab

    yield opened
    assert tab.complaints() == []
    assert all(address.startswith("file:") for address in tab.requests())
