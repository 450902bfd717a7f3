"""Which line lost the graph of a loss that requires no gradient, when backward refuses it.

The graph cannot tell, for there is none. So the lines that compute the loss are read, from the call of
backward upward, beside the live variables they name. Nothing of the user's runs. A line is told only where
what it takes provably requires a gradient, and where it is the only such line: what depends on an ``if`` or
a loop, or on a function of the user's, is left alone.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from linecache import getlines
from types import FrameType, ModuleType
from typing import Any, TypeAlias

import torch
from torch import nn

from hooks.blocks import scope_of
from hooks.cuts import upstream
from hooks.places import TORCH, USER, kind_of

REFUSED = "does not require grad"
"""What torch says of a root without a graph."""
LONGEST = 20_000
"""Lines of a program that is read."""
_NO_DERIVATIVE = frozenset(
    {
        "argmax",
        "argmin",
        "argsort",
        "nonzero",
        "count_nonzero",
        "bincount",
        "searchsorted",
        "bucketize",
        "eq",
        "ne",
        "gt",
        "ge",
        "lt",
        "le",
        "isclose",
        "int",
        "long",
        "bool",
        "byte",
        "short",
        "char",
    }
)
_LEAVES = frozenset({"detach", "item", "tolist", "numpy", "tensor", "as_tensor", "asarray", "float"})
_PAIRS = frozenset({"max", "min", "sort", "topk", "mode", "median", "kthvalue"})
_ABOUT = frozenset(
    {"shape", "device", "dtype", "ndim", "is_leaf", "requires_grad", "grad", "size", "dim", "numel"}
)
_NUMBERS = frozenset({"len", "range", "float", "int", "bool", "sum", "max", "min", "abs", "round"})
Assignment: TypeAlias = "ast.Assign | ast.AnnAssign | ast.AugAssign"
Place: TypeAlias = "tuple[str, int, str]"
"""A file, a line of it from 1, and what happens there: "argmax", "no_grad", ..."""
Counts: TypeAlias = Callable[[Sequence[torch.Tensor]], bool]
CutOf: TypeAlias = Callable[[torch.Tensor], "Sequence[Place]"]


class _UnsureError(Exception):
    """The lines do not say for certain what a name holds."""


def lost(frame: FrameType, counts: Counts, cut_of: CutOf) -> Place | None:
    """The one place that lost the graph of what `frame` calls backward on; None where that is not certain.

    Args:
        frame: the user's frame, still at its call of backward.
        counts: whether it matters that one of these leaves is not reached.
        cut_of: where a tensor without a graph was seen to be cut off from leaves that count.
    """
    lines = getlines(frame.f_code.co_filename, frame.f_globals)
    if not lines or len(lines) > LONGEST or not torch.is_grad_enabled():
        return None
    try:
        body = _body(ast.parse("".join(lines)), frame)
        if body is None:
            return None
        found = _Reading(body, frame, counts, cut_of).losses()
    except (SyntaxError, ValueError, RecursionError, _UnsureError):
        return None
    return found[0] if len({(file, line) for file, line, _ in found}) == 1 else None


def optimized_around(frame: FrameType | None) -> set[int]:
    """The ids of what optimizers hold that the variables around `frame`, or its ``self``, name."""
    found: set[int] = set()
    while frame is not None:
        code = frame.f_code
        if kind_of(code.co_filename) == USER:
            scope = scope_of(frame, {*code.co_varnames, *code.co_cellvars, *code.co_freevars})
            around = [*scope.values(), *frame.f_globals.values()]
            around += getattr(scope.get("self"), "__dict__", {}).values()
            optimizers = [one for one in around if issubclass(type(one), torch.optim.Optimizer)]
            found |= {id(p) for one in optimizers for group in one.param_groups for p in group["params"]}
        frame = frame.f_back
    return found


def _body(tree: ast.Module, frame: FrameType) -> Sequence[ast.stmt] | None:
    """The statements of the function that `frame` runs, or of the module."""
    name, line = frame.f_code.co_name, frame.f_code.co_firstlineno
    if name == "<module>":
        return tree.body
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name != name:
            continue
        if line in (node.lineno, *(one.lineno for one in node.decorator_list)):
            return node.body
    return None


@dataclass
class _Reading:
    """The statements of one function, and what its variables hold now."""

    body: Sequence[ast.stmt]
    frame: FrameType
    counts: Counts
    cut_of: CutOf
    found: list[Place] = field(default_factory=list)
    around: dict[ast.stmt, tuple[Sequence[ast.stmt], int, ast.stmt | None]] = field(default_factory=dict)

    def losses(self) -> list[Place]:
        """Every place on the way to the value differentiated now that provably loses a gradient."""
        read = {node.id for one in self.body for node in ast.walk(one) if isinstance(node, ast.Name)}
        self.scope: Mapping[str, Any] = scope_of(self.frame, read)
        waiting: list[tuple[Sequence[ast.stmt], ast.stmt | None]] = [(self.body, None)]
        while waiting:
            block, parent = waiting.pop()
            for place, one in enumerate(block):
                self.around[one] = (block, place, parent)
                if not isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                    waiting += [(getattr(one, part, ()), one) for part in ("body", "orelse", "finalbody")]
        line = self.frame.f_lineno
        here = [one for one in self.around if one.lineno <= line <= (one.end_lineno or one.lineno)]
        self.at = max(here, key=lambda one: (one.lineno, -(one.end_lineno or 0)), default=self.body[0])
        calls = [node.func for node in ast.walk(self.at) if isinstance(node, ast.Call)]
        begun = [one for one in calls if isinstance(one, ast.Attribute) and one.attr == "backward"]
        if len(begun) != 1 or self._is(begun[0].value, self.at):  # it has a graph: not what was refused
            return []
        return self.found

    def _made(self, name: str, here: ast.stmt) -> Assignment | None:
        """The assignment that gave `name` the value read at `here`; None for one given from outside."""
        inside: ast.stmt | None = here
        while inside is not None:
            block, place, parent = self.around[inside]
            for one in reversed(block[:place]):
                if found := _last(name, one):
                    return found
            if isinstance(parent, ast.For | ast.AsyncFor | ast.While):
                if isinstance(parent, ast.For | ast.AsyncFor) and _binds(name, parent.target):
                    return None
                if any(_binds(name, one) for one in block[place:]):
                    raise _UnsureError
            inside = parent
        return None

    def _is(self, value: ast.expr | None, here: ast.stmt) -> bool:
        """Whether `value`, read at `here`, has a graph with leaves that count; notes where it loses it."""
        if value is None or isinstance(value, ast.Constant):
            return False
        if isinstance(value, ast.Name):
            return self._name(value.id, here)
        if isinstance(value, ast.Call):
            return self._call(value, here)
        if isinstance(value, ast.Attribute):
            return self._attribute(value, here)
        if isinstance(value, ast.Compare):
            return self._loses(value, "comparison", [value.left, *value.comparators], here)
        if isinstance(value, ast.Subscript):
            if (
                isinstance(value.slice, ast.Constant)
                and value.slice.value == 1
                and _called(value.value) in _PAIRS
            ):
                return self._loses(value, _called(value.value), [value.value], here)
            return self._is(value.value, here)
        if isinstance(value, ast.BinOp):
            parts = [value.left, value.right]
        elif isinstance(value, ast.UnaryOp):
            parts = [value.operand]
        elif isinstance(value, ast.Tuple | ast.List):
            parts = value.elts
        else:
            raise _UnsureError
        return self._any(parts, here)

    def _any(self, parts: Sequence[ast.expr], here: ast.stmt) -> bool:
        return True in [self._is(one, here) for one in parts]  # each is read: it may lose a graph, too

    def _loses(self, value: ast.expr, how: str, parts: Sequence[ast.expr], here: ast.stmt) -> bool:
        if self._any(parts, here):
            self.found.append((self.frame.f_code.co_filename, value.end_lineno or value.lineno, how))
        return False

    def _name(self, name: str, here: ast.stmt) -> bool:
        made = self._made(name, here)
        if made is not self._made(name, self.at):
            return self._assigned(name, made)
        held = self.scope.get(name)
        if isinstance(held, torch.Tensor) and not held.requires_grad:
            cuts = self.cut_of(held)
            self.found += cuts
            if cuts or made is None:
                return False
            whole = not (held.is_floating_point() or held.is_complex())
            if whole and isinstance(made.value, ast.Call) and self._unknown(made.value):  # labels
                return False
            if self._assigned(name, made):  # and yet it has none: lost where nobody looked
                raise _UnsureError
            return False
        return _has_graph(held, self.counts) or (
            made is not None and _plain(held) and self._assigned(name, made)
        )

    def _assigned(self, name: str, made: Assignment | None) -> bool:
        if made is None:
            return False
        if isinstance(made, ast.AugAssign):
            return self._any([ast.Name(name, ast.Load()), made.value], made)
        target = made.targets[0] if isinstance(made, ast.Assign) else made.target
        second = isinstance(target, ast.Tuple) and len(target.elts) == 2 and _binds(name, target.elts[1])
        if second and made.value is not None and _called(made.value) in _PAIRS:
            return self._loses(made.value, _called(made.value), [made.value], made)
        return self._is(made.value, made)

    def _attribute(self, value: ast.Attribute, here: ast.stmt) -> bool:
        if value.attr in _ABOUT:
            return False
        if value.attr in ("data", "indices"):
            return self._loses(value, value.attr, [value.value], here)
        held = self._held(value)
        if held is not None:
            return _has_graph(held, self.counts)
        return self._is(value.value, here)

    def _call(self, value: ast.Call, here: ast.stmt) -> bool:
        name, called = _called(value), self._held(value.func)
        parts = [*value.args, *(one.value for one in value.keywords)]
        if isinstance(called, nn.Module):
            own = [one for one in called.parameters() if one.requires_grad]
            has = self.counts(own) or self._any(parts, here)
        elif isinstance(value.func, ast.Attribute) and not isinstance(
            self._held(value.func.value), ModuleType
        ):
            if name in _ABOUT:
                return False
            if called is not None:  # a method of an object of the user's
                raise _UnsureError
            if name in _NO_DERIVATIVE | _LEAVES - {"float"}:
                return self._loses(value, name, [value.func.value], here)
            has = self._any([value.func.value, *parts], here)
        elif isinstance(value.func, ast.Name) and called is None and name in _NUMBERS:
            if name in ("float", "int", "bool", "round"):
                return self._loses(value, name, parts, here)
            return name not in ("len", "range") and self._any(parts, here)
        elif not _of_torch(called):
            raise _UnsureError
        elif name in _NO_DERIVATIVE | _LEAVES:
            return self._loses(value, name, parts, here)
        else:
            has = self._any(parts, here)
        if has and self._without_gradients(here):
            self.found.append((self.frame.f_code.co_filename, value.lineno, "no_grad"))
            return False
        return has

    def _unknown(self, value: ast.Call) -> bool:
        """Whether a function is neither torch's nor a method of a tensor."""
        called = self._held(value.func)
        method = isinstance(value.func, ast.Attribute) and called is None
        return not method and not isinstance(called, nn.Module) and not _of_torch(called)

    def _held(self, value: ast.expr) -> Any:
        """What a dotted name holds, past any property; None for methods of tensors and other expressions."""
        if isinstance(value, ast.Name):
            return self.scope.get(value.id)
        if not isinstance(value, ast.Attribute):
            return None
        owner = self._held(value.value)
        if isinstance(owner, ModuleType):
            return vars(owner).get(value.attr)
        if owner is None or isinstance(owner, torch.Tensor):
            return None
        for table in (getattr(owner, "__dict__", {}), *map(vars, type(owner).__mro__)):
            for part in (table, table.get("_parameters"), table.get("_modules")):
                if isinstance(part, Mapping) and value.attr in part:
                    return part[value.attr]
        return None

    def _without_gradients(self, here: ast.stmt) -> bool:
        """Whether `here` stands in a block under ``no_grad`` or ``inference_mode``."""
        inside: ast.stmt | None = here
        while inside is not None:
            if isinstance(inside, ast.With):
                modes = {_called(one.context_expr) for one in inside.items}
                if modes & {"enable_grad", "set_grad_enabled"}:
                    raise _UnsureError
                if modes & {"no_grad", "inference_mode"}:
                    return True
            inside = self.around[inside][2]
        return False


def _last(name: str, one: ast.stmt) -> Assignment | None:
    """The last assignment of `name` in a statement before; None if it does not bind the name."""
    if not _binds(name, one):
        return None
    if isinstance(one, ast.Assign | ast.AnnAssign | ast.AugAssign):
        return one
    if isinstance(one, ast.With) and not any(_binds(name, item) for item in one.items):
        return next((found for inner in reversed(one.body) if (found := _last(name, inner))), None)
    raise _UnsureError


def _binds(name: str, tree: ast.AST) -> bool:
    return any(
        (isinstance(node, ast.Name) and node.id == name and not isinstance(node.ctx, ast.Load))
        or (isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name)
        or (isinstance(node, ast.alias) and (node.asname or node.name) == name)
        for node in ast.walk(tree)
    )


def _called(value: ast.AST) -> str:
    """The last name of what a call calls; "" for anything else."""
    func = value.func if isinstance(value, ast.Call) else None
    return func.attr if isinstance(func, ast.Attribute) else func.id if isinstance(func, ast.Name) else ""


def _of_torch(called: Any) -> bool:
    """Whether a function is torch's own, written in Python or not."""
    code = getattr(called, "__code__", None)
    if code is not None:
        return kind_of(code.co_filename) == TORCH and str(called.__module__).startswith("torch")
    return type(called).__name__ == "builtin_function_or_method" and "torch" in str(
        getattr(called, "__module__", None) or type(getattr(called, "__self__", None)).__module__
    )


def _plain(held: Any) -> bool:
    return isinstance(held, int | float | list | tuple | dict)


def _has_graph(held: Any, counts: Counts) -> bool:
    """Whether a variable is, or lists, tensors with a graph that has leaves that count."""
    if type(held) in (list, tuple):
        return any(_has_graph(one, counts) for one in held if isinstance(one, torch.Tensor))
    if not isinstance(held, torch.Tensor) or not held.requires_grad:
        return False
    return counts(
        [held] if held.is_leaf else [one for ref in upstream(held.grad_fn) if (one := ref()) is not None]
    )
