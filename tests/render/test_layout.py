"""Layout engines: where they are found, and what happens when they are missing, crash or hang."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from explorer.errors import LayoutError
from explorer.render import fold, picture
from explorer.render import layout as module
from explorer.render.html import page
from explorer.render.layout import LayoutTimeoutError, dpi_for, embedded, find, layout, size
from explorer.render.page import views as views_module
from explorer.render.page.palette import Palette
from tests.render import samples

GRAPH = "digraph { a -> b }"
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the fake engines are shell scripts")


@pytest.fixture
def engine(tmp_path: Path) -> Callable[[str], str]:
    """Writes a fake engine that runs the given shell script."""

    def write(script: str) -> str:
        path = tmp_path / "engine"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_the_embedded_engine_is_found_and_works_without_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv(module.VARIABLE, raising=False)
    assert find() == embedded()
    assert layout(GRAPH, "svg").count(b'class="node"') == 2
    assert layout(GRAPH, "png").startswith(b"\x89PNG")


def test_an_explicit_engine_comes_before_the_variable_and_that_before_all(
    monkeypatch: pytest.MonkeyPatch, engine: Callable[[str], str], tmp_path: Path
) -> None:
    asked = engine("exit 0")
    monkeypatch.setenv(module.VARIABLE, asked)
    assert find() == asked
    monkeypatch.setenv(module.VARIABLE, str(tmp_path / "absent"))
    assert find(asked) == asked
    with pytest.raises(LayoutError, match="AUTOGRAD_EXPLORER_DOT"):
        find()


def test_a_missing_engine_is_told_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setattr(module, "embedded", lambda: None)
    monkeypatch.setattr(module, "system", lambda: None)
    with pytest.raises(LayoutError, match="pip install graphviz-pure"):
        layout(GRAPH, "svg")


def test_a_crash_is_told_with_its_last_words(engine: Callable[[str], str]) -> None:
    with pytest.raises(LayoutError, match="exited with 3: out of cheese"):
        layout(GRAPH, "svg", engine=engine("echo out of cheese >&2; exit 3"))
    with pytest.raises(LayoutError, match="signal 11"):
        layout(GRAPH, "svg", engine=engine("kill -11 $$"))
    with pytest.raises(LayoutError, match="exited with 0"):
        layout(GRAPH, "svg", engine=engine("exit 0"))


def test_a_hang_ends_at_the_timeout(engine: Callable[[str], str]) -> None:
    began = time.monotonic()
    with pytest.raises(LayoutTimeoutError, match=r"more than 0\.2 s"):
        layout(GRAPH, "svg", engine=engine("exec sleep 20"), timeout=0.2)
    assert time.monotonic() - began < 5


def test_after_a_timeout_the_drawing_is_coarser_and_says_so(engine: Callable[[str], str]) -> None:
    hanging = engine(
        f'input=$(cat); case "$input" in *"more coarsely"*) printf "%s" "$input" | {embedded()} -Tsvg;; '
        "*) exec sleep 20;; esac"
    )
    drawn = picture.picture(samples.block(), "svg", engine=hanging, timeout=1.0).decode()
    assert "drawn more coarsely than asked: the layout took more than 1 s" in drawn
    assert "reshapes left out" in drawn


def test_a_hang_at_every_level_is_an_error(engine: Callable[[str], str]) -> None:
    with pytest.raises(LayoutTimeoutError):
        picture.picture(samples.block(), "svg", engine=engine("exec sleep 20"), timeout=0.05)


def test_pdf_without_graphviz_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(module.VARIABLE, raising=False)
    monkeypatch.setattr(module, "system", lambda: None)
    monkeypatch.setattr(module, "find_spec", lambda _: None)
    with pytest.raises(LayoutError, match=r"autograd-explorer\[pdf\]"):
        layout(GRAPH, "pdf")


def test_large_pictures_are_capped_in_pixels() -> None:
    wide = b'<svg width="20000pt" height="30000pt"'
    dpi = dpi_for(wide)
    assert 20_000 * 30_000 * (dpi / 72) ** 2 <= module.PIXELS
    assert dpi_for(b'<svg width="100pt" height="100pt"') == module.DPI
    with pytest.raises(LayoutError, match="no SVG"):
        size(b"nonsense")


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(LayoutError, match="svg, png, pdf"):
        layout(GRAPH, "gif")


def test_a_page_whose_layout_hangs_is_coarser_and_says_so(
    monkeypatch: pytest.MonkeyPatch, engine: Callable[[str], str]
) -> None:
    boxes = len(fold.draw(samples.block()).shapes)
    hanging = engine(
        f'input=$(cat); case "$input" in *"t{boxes - 1} [label"*) exec sleep 20;; '
        f'*) printf "%s" "$input" | {embedded()} -Tsvg;; esac'
    )
    monkeypatch.setenv(module.VARIABLE, hanging)
    monkeypatch.setattr(views_module, "TIMEOUT", 1.5)
    first, *_ = views_module.views(samples.block(), Palette())
    assert first.note == "drawn more coarsely than asked: the layout took more than 1.5 s"
    assert len(first.drawing.shapes) < boxes


def test_a_page_without_an_engine_says_what_to_do(
    monkeypatch: pytest.MonkeyPatch, engine: Callable[[str], str]
) -> None:
    monkeypatch.setenv(module.VARIABLE, engine("echo out of cheese >&2; exit 3"))
    with pytest.raises(LayoutError, match="out of cheese"):
        page(samples.block())
    monkeypatch.setenv(module.VARIABLE, engine("cat > /dev/null; echo '<?xml ?><svg></svg>'"))
    with pytest.raises(LayoutError, match="drew 1 of"):
        page(samples.block())
