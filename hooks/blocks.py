"""What a ``with torch.no_grad():`` block leaves in the user's variables, and from which leaves.

The block itself cannot be seen to compute: no node is made, and functions leave no trace. So when it ends,
its own lines are read: which names it binds, and which parameters and modules stand in what they are bound
to, directly or through other names of the block. Only names of the frame are looked up; nothing of the
user's runs.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from linecache import getlines
from types import CodeType, FrameType
from typing import Any

import torch
from torch import nn

from hooks.handles import Handles
from hooks.places import USER, Place, kind_of
from hooks.unseen import unseen

Note = Callable[[Place, torch.Tensor, list[torch.Tensor]], None]
PER_PLACE = 8
"""Times one block is looked at."""
LONGEST = 20_000
"""Lines of a program that is read."""
_ABOUT = frozenset({"shape", "device", "dtype", "ndim", "size", "dim", "grad", "requires_grad"})
"""What is read of a tensor without using its value."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A name that a block binds, and the dotted names it is made of, with the first line that reads each."""

    name: str
    made_of: Mapping[str, int]


class Blocks:
    """Attach with `attach`; `note` is called with place, value and leaves of every name a block has bound."""

    def __init__(self, note: Note) -> None:
        self._note = note
        self._times: dict[tuple[CodeType, int], int] = {}
        self._open = True

    def attach(self, handles: Handles) -> None:
        """Patch the end of both contexts; `handles` puts it back."""
        for kind in (torch.no_grad, torch.inference_mode):
            handles.patch(kind, "__exit__", self._around(kind.__exit__))
        handles.callback(self._retire)

    def _retire(self) -> None:
        self._open = False

    def _around(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def leave(context: Any, kind: Any, error: Any, tb: Any) -> Any:
            result = original(context, kind, error, tb)
            if self._open and kind is None and not torch.compiler.is_compiling():
                try:
                    with unseen():
                        self._look(sys._getframe(1))
                except Exception:  # noqa: BLE001 - the user's block has ended well and must go on
                    self._open = False
            return result

        return leave

    def _look(self, frame: FrameType) -> None:
        code = frame.f_code
        if kind_of(code.co_filename) != USER or torch._C._current_graph_task_id() != -1:
            return
        key = (code, frame.f_lineno)
        times = self._times[key] = self._times.get(key, 0) + 1
        if times > PER_PLACE:
            return
        bound = _bound(code.co_filename, frame.f_lineno)
        if not bound:
            return
        scope = scope_of(frame, {_first(name) for one in bound for name in (one.name, *one.made_of)})
        for one in bound:
            value = scope.get(one.name)
            if type(value) is not torch.Tensor or value.requires_grad or not value.is_floating_point():
                continue
            read = {name: found for name in one.made_of if (found := list(_leaves(name, scope)))}
            if read:
                leaves = {id(leaf): leaf for found in read.values() for leaf in found}
                line = min(one.made_of[name] for name in read)
                self._note(_place(code, line), value, list(leaves.values()))


@lru_cache(maxsize=256)
def _bound(file: str, line: int) -> tuple[Bound, ...]:
    """The names bound by the ``with`` block that begins at `line` of `file`."""
    block = _blocks(file).get(line)
    if block is None:
        return ()
    parts: dict[str, dict[str, int]] = {}
    for node in (inner for statement in block.body for inner in ast.walk(statement)):
        if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign) and node.value is not None:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            for name in (n.id for target in targets for n in ast.walk(target) if isinstance(n, ast.Name)):
                known = parts.setdefault(name, {})
                for read in _dotted(node.value):
                    known.setdefault(read, node.lineno)
    for _ in parts:  # names of the block stand for what they are made of: at most so many steps deep
        for known in parts.values():
            for name in [name for name in known if name in parts]:
                for deep, at in parts[name].items():
                    known.setdefault(deep, at)
    return tuple(
        Bound(name, {read: at for read, at in known.items() if read not in parts})
        for name, known in parts.items()
    )


@lru_cache(maxsize=64)
def _blocks(file: str) -> dict[int, ast.With]:
    lines = getlines(file)
    if not lines or len(lines) > LONGEST:
        return {}
    try:
        tree = ast.parse("".join(lines))
    except (SyntaxError, ValueError):
        return {}
    return {node.lineno: node for node in ast.walk(tree) if isinstance(node, ast.With)}


def _dotted(tree: ast.AST) -> Iterator[str]:
    """The dotted names read in an expression, with their beginnings; those that are called end in "()"."""
    about: set[str] = set()
    found: set[str] = set()
    for node in ast.walk(tree):
        called = isinstance(node, ast.Call)
        chain = node.func if isinstance(node, ast.Call) else node
        if not (isinstance(chain, ast.Name | ast.Attribute) and isinstance(chain.ctx, ast.Load)):
            continue
        spelled = ast.unparse(chain)
        if all(part.isidentifier() for part in spelled.split(".")):
            found.add(spelled + "()" * called)
            if isinstance(chain, ast.Attribute) and chain.attr in _ABOUT:
                about.add(ast.unparse(chain.value))
    yield from found - about


def _first(name: str) -> str:
    return name.partition(".")[0].removesuffix("()")


def scope_of(frame: FrameType, wanted: set[str]) -> dict[str, Any]:
    """The frame's variables among `wanted`, leaving nothing behind in it (see `explorer.names`)."""
    snapshot = frame.f_locals
    found = {name: frame.f_globals[name] for name in wanted if name in frame.f_globals}
    found |= {name: snapshot[name] for name in wanted if name in snapshot}
    if snapshot is not frame.f_globals and type(snapshot) is dict and sys.getrefcount(snapshot) <= 3:
        snapshot.clear()
    return found


def _leaves(name: str, scope: Mapping[str, Any]) -> Iterator[torch.Tensor]:
    """The leaves that want a gradient behind a dotted name: itself, or the parameters of a module called."""
    first, *rest = name.removesuffix("()").split(".")
    value = scope.get(first)
    for part in rest:
        value = _attribute(value, part)
    if name.endswith("()") and isinstance(value, nn.Module):
        yield from (parameter for parameter in value.parameters() if parameter.requires_grad)
    elif isinstance(value, torch.Tensor) and value.requires_grad and value.is_leaf:
        yield value


def _attribute(value: Any, name: str) -> Any:
    """An attribute of an instance or module, past any property; None without it."""
    held = getattr(value, "__dict__", None)
    if type(held) is not dict:
        return None
    for table in (held, held.get("_parameters"), held.get("_modules")):
        if isinstance(table, dict) and name in table:
            return table[name]
    return None


def _place(code: CodeType, line: int) -> Place:
    return Place(code, next((start for start, _, at in code.co_lines() if at == line), 0))
