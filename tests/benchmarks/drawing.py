"""Seconds and memory of the default view of large graphs, folding and layout together; and of their pages.

Run with ``python -m tests.benchmarks.drawing``; the marks are 2 s for each drawing and 500 MB for it and
the layout engine together. Each graph is measured in a process of its own, whose memory before the drawing
(Python and the sample itself) is told apart from what the drawing adds.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable

from explorer.render import dot, fold
from explorer.render.html import page
from explorer.render.layout import layout
from explorer.report import Report
from tests.render import samples

GRAPHS: dict[str, Callable[[], Report]] = {
    "ResNet-50": samples.resnet,
    "GPT-2, 48 layers": samples.gpt,
    "LSTM 500x4": samples.lstm,
    "loop with lines": samples.loop,
    "loop without lines": lambda: samples.loop(lines=False),
    "no structure": samples.tangle,
}
SECONDS, MEGABYTES = 2.0, 500.0
"""The marks of one drawing."""


def measure(name: str) -> dict[str, float]:
    """Nodes, shapes; seconds to fold (also of the processor alone), to lay out, of the page; MB.

    The engine's memory is what its process had at most, our own at the fork included.
    """
    report = GRAPHS[name]()
    before = _peak(resource.RUSAGE_SELF)
    began, busy = time.perf_counter(), time.process_time()
    drawing = fold.draw(report)
    source = dot.of_drawing(report, drawing)
    written, busy = time.perf_counter(), time.process_time() - busy
    layout(source, "svg")
    done = time.perf_counter()
    own, engine = _peak(resource.RUSAGE_SELF), _peak(resource.RUSAGE_CHILDREN)
    whole = page(report)
    return {
        "nodes": len(report.graph.nodes),
        "shapes": len(drawing.shapes),
        "fold": written - began,
        "busy": busy,
        "layout": done - written,
        "before": before,
        "own": own,
        "engine": engine,
        "page": time.perf_counter() - done,
        "size": len(whole.encode("utf-8")) / 1e6,
    }


def _peak(whose: int) -> float:
    """The largest resident memory so far, in MB; Linux counts it in KiB, macOS in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(whose).ru_maxrss * unit / 1e6


def alone(name: str) -> dict[str, float]:
    """`measure` in a fresh process."""
    command = [sys.executable, "-m", "tests.benchmarks.drawing", name]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(sys.argv[1])))
        sys.exit()
    for name in GRAPHS:
        found = alone(name)
        kept = found["fold"] + found["layout"] < SECONDS and found["own"] + found["engine"] < MEGABYTES
        print(
            f"{name:19}{found['nodes']:7,.0f} nodes {found['shapes']:4.0f} shapes"
            f"  fold {found['fold']:5.2f} s (processor {found['busy']:5.2f})"
            f"  layout {found['layout']:5.2f} s  memory {found['before']:4.0f} before, {found['own']:4.0f} MB"
            f" + engine {found['engine']:3.0f}  page {found['page']:5.2f} s {found['size']:5.2f} MB"
            f"  {'ok' if kept else 'MISSED'}"
        )
