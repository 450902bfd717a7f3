"""Frame times of pages while the mouse pans and zooms them in headless Chromium, and what opening costs.

Run with ``python -m tests.benchmarks.frames``; the mark is 60 frames a second (16.7 ms) for a page of 1,500
nodes. Nothing is asserted: the numbers belong to the machine, and this browser draws without a GPU.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

from explorer.render.html import page
from explorer.report import Report
from tests.browser.chromium import Page, browser
from tests.render import samples
from tests.render.test_html import layers

PAGES: dict[str, Callable[[], Report]] = {
    "MLP, 1,498 nodes": lambda: layers(299),
    "ResNet-50": samples.resnet,
    "GPT-2, 12 layers": lambda: samples.gpt(12),
}
FRAMES = 150
RECORD = """(() => {
  const times = window.frameTimes = [];
  let last = 0;
  const next = (now) => {
    if (last) times.push(now - last);
    last = now;
    window.frameLoop = requestAnimationFrame(next);
  };
  window.frameLoop = requestAnimationFrame(next);
})()"""
WORK = """(async () => {
  const stage = document.querySelector('#ae-stage'), times = [];
  for (let n = 0; n < 60; n += 1) {
    const start = performance.now(), key = n % 2 ? 'ArrowUp' : 'ArrowDown';
    stage.dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    stage.getBoundingClientRect();
    times.push(performance.now() - start);
  }
  return times.sort((one, other) => one - other)[30];
})()"""


def dragged(tab: Page) -> list[float]:
    """Milliseconds between frames while the drawing is dragged."""
    tab.mouse("mouseMoved", 450, 350)
    tab.mouse("mousePressed", 450, 350, button="left", buttons=1, clickCount=1)
    tab.run(RECORD)
    for step in range(FRAMES):
        tab.mouse("mouseMoved", 450 + step % 60, 350 - step, button="left", buttons=1)
    tab.mouse("mouseReleased", 450, 350, button="left", clickCount=1)
    return finished(tab)


def zoomed(tab: Page) -> list[float]:
    """Milliseconds between frames while the wheel turns."""
    tab.run(RECORD)
    for step in range(FRAMES):
        tab.mouse("mouseWheel", 450, 350, deltaX=0, deltaY=-20 if step % 60 < 30 else 20)
    return finished(tab)


def finished(tab: Page) -> list[float]:
    """The times recorded, without the first few."""
    tab.run("cancelAnimationFrame(window.frameLoop)")
    times: list[float] = tab.run("window.frameTimes")
    return times[3:] or times


def told(times: list[float]) -> str:
    """Median, 95th percentile and worst."""
    ordered = sorted(times)
    high = ordered[min(len(ordered) - 1, round(0.95 * len(ordered)))]
    return f"{statistics.median(ordered):5.1f} ms ({high:5.1f}, worst {ordered[-1]:6.1f})"


def choose(tab: Page, amount: int) -> float:
    """Show the finest choice, or the coarsest with `amount` 0; milliseconds it took."""
    return float(
        tab.run(
            "(() => { const choice = document.querySelector('#ae-view'), start = performance.now();"
            f" choice.selectedIndex = {'choice.options.length - 1' if amount else '0'};"
            " choice.dispatchEvent(new Event('change')); choice.getBoundingClientRect();"
            " return performance.now() - start })()"
        )
    )


def measure(tab: Page, name: str, folder: Path) -> None:
    """Print what one page costs."""
    file = folder / "page.html"
    file.write_text(page(PAGES[name]()), encoding="utf-8")
    tab.open(file.as_uri())
    opened = tab.run("performance.getEntriesByType('navigation')[0].loadEventEnd")
    took = choose(tab, 1)
    boxes = tab.run("document.querySelectorAll('.drawing .n').length")
    size = file.stat().st_size / 1e6
    print(f"{name}: {size:.2f} MB, loaded in {opened:.0f} ms, {boxes:,} boxes in {took:.0f} ms")
    for label, before in (("fit", "#ae-fit"), ("legible", "")):
        if before:
            tab.click(before)
        else:
            tab.run("document.querySelector('#ae-stage').focus()")
            for _ in range(24):
                tab.press("+")
        drag, wheel = told(dragged(tab)), told(zoomed(tab))
        print(f"  {label:8} drag {drag}  wheel {wheel}  script {tab.run(WORK):.2f} ms a step")


if __name__ == "__main__":
    program = shutil.which("chromium") or shutil.which("google-chrome") or "chromium"
    with tempfile.TemporaryDirectory() as folder, browser(program) as opened:
        tab = opened()
        tab.size(1280, 800)
        for name in PAGES:
            measure(tab, name, Path(folder))
