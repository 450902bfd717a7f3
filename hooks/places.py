"""Where in the user's program something happened: code objects and instruction offsets, text later.

A place is taken while the user's forward runs, so it costs a walk over a few frames and nothing
else; line numbers, function names and operation names are worked out when somebody asks.
"""

from __future__ import annotations

import ast
import linecache
import os
import re
import site
import sysconfig
from functools import lru_cache
from itertools import islice
from types import CodeType
from typing import Any, NamedTuple

import torch

USER, LIBRARY, TORCH, OURS = range(4)
_HERE = os.path.dirname(os.path.abspath(__file__))
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.MatMult: "matmul",
    ast.Div: "div",
    ast.FloorDiv: "floor_divide",
    ast.Mod: "remainder",
    ast.Pow: "pow",
    ast.USub: "neg",
}


def _folders(*paths: str | None) -> tuple[str, ...]:
    """Each path absolute, and with links resolved, ending in a separator."""
    spelled = [path for path in paths if path]
    return tuple({form(path) + os.sep for path in spelled for form in (os.path.abspath, os.path.realpath)})


_OUR_FOLDERS = _folders(_HERE, os.path.join(os.path.dirname(_HERE), "explorer"))
_TORCH_FOLDERS = _folders(os.path.dirname(torch.__file__))
_PACKAGE_FOLDERS = _folders(
    *(sysconfig.get_path(name) for name in ("purelib", "platlib")),
    *site.getsitepackages(),
    site.getusersitepackages(),
)
_STANDARD_FOLDERS = _folders(os.path.dirname(os.__file__))

kinds: dict[str, int] = {}
"""File string of a code object to USER, LIBRARY, TORCH (which includes the standard library) or OURS."""


def kind_of(file: str) -> int:
    """Whose code `file` (a code object's ``co_filename``) is; remembered in `kinds`.

    Strings that are no files (``<stdin>``, a notebook cell, ``<string>``) are the user's; those that
    torch and the interpreter make up are not.
    """
    if file.startswith(_OUR_FOLDERS):
        kind = OURS
    elif file.startswith((*_TORCH_FOLDERS, "<frozen ", "<eval_with_key>")):
        kind = TORCH
    elif file.startswith(_PACKAGE_FOLDERS):
        kind = LIBRARY
    else:
        kind = TORCH if file.startswith(_STANDARD_FOLDERS) else USER
    kinds[file] = kind
    return kind


class Place(NamedTuple):
    """One instruction: a code object and the byte offset in it."""

    code: CodeType
    lasti: int

    @property
    def line(self) -> int:
        """1-based line number, 0 where the compiler kept none."""
        return _line(self.code, self.lasti)

    def __str__(self) -> str:
        return f'  File "{self.code.co_filename}", line {self.line}, in {self.code.co_name}\n'


@lru_cache(maxsize=4096)
def _line(code: CodeType, lasti: int) -> int:
    for start, end, line in code.co_lines():
        if start <= lasti < end:
            return line or 0
    return code.co_firstlineno


@lru_cache(maxsize=4096)
def operation_at(place: Place) -> str:
    """The operation that the instruction at `place` performs, as the source spells it: "linear", "mul".

    Empty where the source is not at hand, the instruction is no operation, or Python is older than
    3.11 and keeps no columns.
    """
    positions: Any = getattr(place.code, "co_positions", None)
    if positions is None:
        return ""
    first, last, begin, end = next(islice(positions(), place.lasti // 2, None), (None,) * 4)
    if first is None or last is None or begin is None or end is None:
        return ""
    lines = [linecache.getline(place.code.co_filename, n).encode() for n in range(first, last + 1)]
    lines[-1] = lines[-1][:end]
    lines[0] = lines[0][begin:]
    try:
        statement = ast.parse(b"".join(lines).strip()).body[0]
    except (SyntaxError, ValueError, IndexError):
        return ""
    return _spell(statement.value if isinstance(statement, ast.Expr) else statement)


def _spell(tree: ast.AST) -> str:
    if isinstance(tree, ast.Call):
        called: Any = tree.func
        return str(getattr(called, "attr", getattr(called, "id", "")))
    if isinstance(tree, ast.BinOp | ast.AugAssign | ast.UnaryOp):
        return _OPERATORS.get(type(tree.op), "")
    return "getitem" if isinstance(tree, ast.Subscript) else ""


def operation_of(name: str) -> str:
    """The operation a node's name stands for: "AddmmBackward0" -> "addmm", "FlipFnBackward" -> "FlipFn"."""
    name = name.rpartition("::")[2]
    if name == "AccumulateGrad":
        return ""
    stem, numbered = re.subn(r"Backward\d+$", "", name)
    if not numbered:
        return name.removesuffix("Backward")
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", stem).lower()
