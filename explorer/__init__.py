"""See what happens behind ``loss.backward()``, and whether it is right.

    report = explorer.explore(loss)                # a tensor; .grad untouched, the graph still usable
    with explorer.watch(model) as watch: ...       # sees every backward; watch.report, watch.reports
    graph = explorer.walk(loss)                    # grad_fn / next_functions as plain data

torch is imported with the first of these names, not before, so that ``explore --help`` answers at once.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from explorer.asked import explore, paths
    from explorer.errors import (
        EngineError,
        ExplorerError,
        LayoutError,
        NothingDifferentiableError,
        UsageError,
    )
    from explorer.graph import Edge, Graph, Node, Saved, Source, TensorSpec
    from explorer.reasons import why
    from explorer.report import Finding, GradientRecord, Report, Session, Verdict
    from explorer.trace import walk
    from explorer.watching import Watch, watch

_HOMES = {
    "explore": "asked",
    "watch": "watching",
    "Watch": "watching",
    "walk": "trace",
    "why": "reasons",
    "paths": "asked",
    "Report": "report",
    "Session": "report",
    "GradientRecord": "report",
    "Verdict": "report",
    "Finding": "report",
    "Graph": "graph",
    "Node": "graph",
    "Edge": "graph",
    "Saved": "graph",
    "Source": "graph",
    "TensorSpec": "graph",
    "ExplorerError": "errors",
    "UsageError": "errors",
    "NothingDifferentiableError": "errors",
    "LayoutError": "errors",
    "EngineError": "errors",
}
"""Public name -> the module it lives in."""

__all__ = [
    "Edge",
    "EngineError",
    "ExplorerError",
    "Finding",
    "GradientRecord",
    "Graph",
    "LayoutError",
    "Node",
    "NothingDifferentiableError",
    "Report",
    "Saved",
    "Session",
    "Source",
    "TensorSpec",
    "UsageError",
    "Verdict",
    "Watch",
    "explore",
    "paths",
    "walk",
    "watch",
    "why",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first asked for (PEP 562)."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def load_ipython_extension(shell: Any) -> None:
    """What ``%load_ext explorer`` calls: the cell magic ``%%explore``."""
    from explorer.magic import register

    register(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
