"""Graphs that outlive their step: a loss that keeps growing, a variable that keeps old graphs.

A backward called from the same line several times is followed for its first few calls. The nodes of a
root are counted, and those of them that were made before the call before (older than that call's
youngest node). Roots are marked in their own ``metadata`` with plain numbers that go with the node.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from types import FrameType
from typing import Any

import torch

from hooks.backward import BackwardCall
from hooks.nodes import AutogradNode, is_leaf

FOLLOWED_CALLS = 6
"""Calls of one line whose graphs are counted."""
GROWING = 4
"""Calls in a row whose graph must have grown."""
KEPT = 3
"""Graphs of earlier calls that one variable must keep."""
COUNTED = 4000
"""Graphs of more nodes are not counted."""
ROOT_KEY = "explorer.root"


@dataclass(frozen=True, slots=True)
class GrowthSeen:
    """`counts`: nodes of the loss at each call; or `variable` keeps `kept` earlier graphs."""

    file: str
    line: int
    counts: tuple[int, ...]
    variable: str = ""
    kept: int = 0


class History:
    """Call `before` and `after` around every backward."""

    def __init__(self) -> None:
        self.growth: GrowthSeen | None = None
        self._lines: dict[tuple[Any, int], list[tuple[int, int, int]]] = {}
        self._calls: dict[tuple[Any, int], int] = {}

    def before(self, call: BackwardCall) -> None:
        """Count the graph of this call's first root."""
        frame = call.frame
        if self.growth is not None or frame is None or call.create_graph or not call.roots:
            return
        key = (frame.f_code, frame.f_lasti)
        seen = self._lines.setdefault(key, [])
        if len(seen) >= FOLLOWED_CALLS:
            return
        node = getattr(call.roots[0], "grad_fn", None)
        since = seen[-1][2] if seen else -1
        count, old = _count(node, since)
        seen.append((count, old, torch._C._autograd._get_sequence_nr()))
        last = seen[-GROWING:]
        growing = len(last) == GROWING and all(0 < a[0] < b[0] and a[1] <= b[1] for a, b in pairwise(last))
        if growing and last[-1][1] > last[1][1] > 0:
            counts = tuple(count for count, _, _ in last)
            self.growth = GrowthSeen(frame.f_code.co_filename, frame.f_lineno, counts)
        elif len(seen) == GROWING:
            self._look_for_keepers(frame)

    def after(self, call: BackwardCall) -> None:
        """Mark the roots of a call that is over."""
        frame = call.frame
        if frame is None or call.create_graph:
            return
        key = (frame.f_code, frame.f_lasti)
        number = self._calls[key] = self._calls.get(key, 0) + 1
        if number > FOLLOWED_CALLS:
            return
        for root in call.roots:
            node = getattr(root, "grad_fn", None)
            if node is not None:
                node.metadata.setdefault(ROOT_KEY, (frame.f_lineno, number))

    def _look_for_keepers(self, frame: FrameType) -> None:
        """Find a variable whose graph holds the roots of at least `KEPT` earlier calls of this line."""
        line = frame.f_lineno
        for name, tensor in _variables(frame):
            nodes = _nodes(tensor.grad_fn)
            marks = {mark for node in nodes if (mark := node.metadata.get(ROOT_KEY)) is not None}
            kept = len({number for at, number in marks if at == line})
            if kept >= KEPT:
                self.growth = GrowthSeen(frame.f_code.co_filename, line, (len(nodes),), name, kept)
                return


def _variables(frame: FrameType) -> Iterable[tuple[str, torch.Tensor]]:
    """The non-leaf tensors among the variables of `frame`, leaving nothing behind in it."""
    scope = frame.f_locals
    found = [
        (name, value)
        for name, value in scope.items()
        if type(value) is torch.Tensor and value.requires_grad and not value.is_leaf
    ]
    if scope is not frame.f_globals and type(scope) is dict:
        scope.clear()  # before 3.13 a snapshot that would keep the user's tensors alive
    return found


def _nodes(start: AutogradNode | None) -> list[AutogradNode]:
    """The nodes behind `start`, leaves left out; [] where there are more than `COUNTED`."""
    if start is None or is_leaf(start):
        return []
    seen = {start: None}
    waiting = [start]
    while waiting:
        for target, _ in waiting.pop().next_functions:
            if target is not None and target not in seen and not is_leaf(target):
                seen[target] = None
                waiting.append(target)
        if len(seen) > COUNTED:
            return []
    return list(seen)


def _count(start: AutogradNode | None, since: int) -> tuple[int, int]:
    """(nodes behind `start`, those of them numbered below `since`)."""
    nodes = _nodes(start)
    # Numbers begin at 0: before the second call of a line no node can be from the one before.
    return len(nodes), sum(1 for node in nodes if node._sequence_nr() < since) if since > 0 else 0
