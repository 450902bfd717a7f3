"""Holds the arrows between the rooms, and the public names, by parsing the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import explorer

ROOT = Path(__file__).parents[1]
MODULES = sorted([*ROOT.glob("explorer/**/*.py"), *ROOT.glob("hooks/*.py")])
TORCH_FREE = (
    "explorer/engine/",
    "explorer/render/",
    "explorer/diagnose/",
    "explorer/graph.py",
    "explorer/report.py",
    "explorer/errors.py",
    "explorer/evidence.py",
    "explorer/formulas.py",
    "explorer/arithmetic/",
    "explorer/operations/",
    "explorer/worked.py",
    "explorer/chains.py",
    "explorer/routes.py",
    "explorer/comparison.py",
    "explorer/elements.py",
    "explorer/values.py",
    "explorer/derivatives.py",
    "explorer/script.py",
    "explorer/cli.py",
    "explorer/printing.py",
)
PUBLIC = [
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


def imported(path: Path) -> set[str]:
    """Every module that `path` imports at run time, in full: those for type checking alone do not count."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
    return found


def tops(path: Path) -> set[str]:
    return {name.partition(".")[0] for name in imported(path)}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith(TORCH_FREE)], ids=name_of)
def test_no_torch_where_there_should_be_none(path: Path) -> None:
    assert not tops(path) & {"torch", "hooks", "numpy"}


@pytest.mark.parametrize("path", [p for p in MODULES if name_of(p).startswith("hooks/")], ids=name_of)
def test_hooks_import_torch_and_the_standard_library_only(path: Path) -> None:
    import sys

    assert tops(path) - {"torch", "hooks"} <= sys.stdlib_module_names


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p).startswith("explorer/engine/")], ids=name_of
)
def test_the_engine_stands_alone(path: Path) -> None:
    ours = {name for name in imported(path) if name.startswith("explorer.")}
    plain = ("explorer.engine", "explorer.errors", "explorer.graph", "explorer.report")
    assert all(name.startswith(plain) for name in ours)


@pytest.mark.parametrize(
    "path", [p for p in MODULES if name_of(p).startswith("explorer/render/")], ids=name_of
)
def test_renderers_read_plain_data(path: Path) -> None:
    allowed = (
        "explorer.render",
        "explorer.across",  # plain data of several ranks
        "explorer.comparison",
        "explorer.graph",
        "explorer.report",
        "explorer.errors",
        "explorer.costs",
        "explorer.derivatives",
        "explorer.formulas",
        "explorer.mathematics",
        "explorer.narrative",
        "explorer.values",
    )
    ours = {name for name in imported(path) if name.startswith("explorer.")}
    assert all(name.startswith(allowed) for name in ours), ours


def test_the_public_names() -> None:
    assert sorted(explorer.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(explorer, name).__doc__, name
    assert set(PUBLIC) <= set(dir(explorer))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = explorer.nothing
