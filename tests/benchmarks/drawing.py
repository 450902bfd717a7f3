"""Seconds and memory of the default view of large graphs, folding and layout together.

Run with ``python -m tests.benchmarks.drawing``; the mark is 2 s each on two cores.
"""

from __future__ import annotations

import resource
import time
from collections.abc import Callable

from explorer.render import dot, fold
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


def measure() -> list[tuple[str, int, int, float, float]]:
    """Name, nodes, shapes drawn, seconds to fold and write DOT, seconds to lay out."""
    rows = []
    for name, make in GRAPHS.items():
        report = make()
        began = time.perf_counter()
        drawing = fold.draw(report)
        source = dot.of_drawing(report, drawing)
        written = time.perf_counter()
        layout(source, "svg")
        done = time.perf_counter()
        rows.append((name, len(report.graph.nodes), len(drawing.shapes), written - began, done - written))
    return rows


if __name__ == "__main__":
    for name, nodes, shapes, folding, laying in measure():
        print(f"{name:20} {nodes:7,} nodes {shapes:4} shapes  fold {folding:5.2f} s  layout {laying:5.2f} s")
    print(
        f"peak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MiB, samples included"
    )
