"""The exceptions of the project.

    ExplorerError                 anything the explorer itself refuses
    ├── UsageError                a bad argument: file, suffix, option           (exit 2)
    ├── NothingDifferentiableError  no tensor with a grad_fn to explore            (exit 4)
    ├── LayoutError               no layout engine, or it failed or timed out
    └── EngineError               the pure-Python engine was asked for something it cannot do
        ├── RuleError             a rule is registered twice, or returned the wrong shape
        └── ShapeError            shapes that do not fit together

A wrong gradient is a result (a `Verdict`), never an exception.
"""

from __future__ import annotations

__all__ = [
    "EngineError",
    "ExplorerError",
    "LayoutError",
    "NothingDifferentiableError",
    "RuleError",
    "ShapeError",
    "UsageError",
]


class ExplorerError(Exception):
    """Base of everything the explorer raises on purpose; the message says what to do."""


class UsageError(ExplorerError, ValueError):
    """An argument that cannot be used: what it was, where, and what would do."""


class NothingDifferentiableError(ExplorerError):
    """There is no tensor with a ``grad_fn`` to explore."""


class LayoutError(ExplorerError):
    """The graph could not be laid out: no engine, a crash, or a timeout."""


class EngineError(ExplorerError):
    """The pure-Python engine cannot do what was asked."""


class RuleError(EngineError):
    """A rule registered twice, or one that returned what its node cannot use."""


class ShapeError(EngineError, ValueError):
    """Shapes that do not fit together; the message names both."""
