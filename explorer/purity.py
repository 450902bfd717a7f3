"""Whether a Python function may be called once more without anybody noticing: a look at its bytecode.

The check runs the forward of a custom Function again. That is refused where the forward could have an
effect outside: it sets a global, a variable of an enclosing function or an attribute of anything but its
``ctx``; it uses an object of the program that can change (a list, an instance) or a module whose functions
cannot be seen; it prints, writes, communicates or starts a backward. Plain functions that it calls by name
are looked at in the same way. What only methods of its arguments do is not an effect: they are copies.
"""

from __future__ import annotations

import builtins
import dis
from collections.abc import Iterator, Mapping
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

_MODULES = frozenset(
    {"torch", "math", "cmath", "numpy", "functools", "itertools", "operator", "typing", "random", "einops"}
)
"""Packages whose functions change nothing but random states, which are restored (see `_NAMES`)."""

_NAMES = frozenset(
    {"print", "open", "input", "exec", "eval", "compile", "__import__", "setattr", "delattr", "globals"}
    | {
        "breakpoint",
        "write",
        "tofile",
        "save",
        "savez",
        "backward",
        "grad",
        "enable_grad",
        "set_default_dtype",
    }
    | {"distributed", "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "barrier", "send", "recv"}
)
"""Names of functions and attributes that print, write, communicate or call autograd."""

_CONSTANTS = (int, float, complex, str, bytes, bool, type(None), range, frozenset)
_DEPTH = 20
"""So many functions are followed before one is called too deep to see."""


def impurity(function: Any, context: bool = True) -> str:
    """What `function` does that could be noticed, "" when nothing.

    Args:
        function: a plain Python function.
        context: its first parameter is a ``ctx`` of its own, whose attributes it may set.
    """
    waiting = [(_undecorated(function), context)]
    seen: set[CodeType] = set()
    while waiting:
        one, own = waiting.pop()
        code = getattr(one, "__code__", None)
        if code is None:
            return f"calls {getattr(one, '__qualname__', one)!r}, which cannot be seen"
        if code in seen:
            continue
        seen.add(code)
        if len(seen) > _DEPTH:
            return "calls more functions than are looked at"
        free = _contents(one)
        for part in _codes(code):
            first = code.co_varnames[0] if own and code.co_argcount else ""
            reason = _stores(part, first, set(code.co_freevars))
            if reason:
                return reason
            for name in part.co_names:
                if name in _NAMES:
                    return f"uses {name!r}"
            for name, value in _used(part, one.__globals__, free):
                reason = _changeable(name, value, part)
                if reason:
                    return reason
                if isinstance(value, FunctionType) and not _trusted(value.__module__):
                    waiting.append((value, False))
    return ""


def _undecorated(function: Any) -> Any:
    """The function inside decorators of torch (``torch.amp.custom_fwd``)."""
    while hasattr(function, "__wrapped__") and _trusted(getattr(function, "__globals__", {}).get("__name__")):
        function = function.__wrapped__
    return function


def _codes(code: CodeType) -> Iterator[CodeType]:
    """A function's code and that of the functions inside it."""
    waiting = [code]
    while waiting:
        part = waiting.pop()
        yield part
        waiting += [constant for constant in part.co_consts if isinstance(constant, CodeType)]


def _contents(function: Any) -> dict[str, Any]:
    """What a function's free variables hold now; an empty cell is left out."""
    found: dict[str, Any] = {}
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            found[name] = cell.cell_contents
        except ValueError:
            continue
    return found


def _stores(code: CodeType, context: str, free: set[str]) -> str:
    """What `code` sets outside of its own variables."""
    before: Any = None
    for step in dis.get_instructions(code):
        if step.opname in ("STORE_GLOBAL", "DELETE_GLOBAL"):
            return f"sets the global {step.argval!r}"
        if step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in free:
            return f"sets {step.argval!r} of an enclosing function"
        if step.opname in ("STORE_ATTR", "DELETE_ATTR"):
            # Python 3.13 loads value and owner in one step, the owner last.
            owner = before.argval[-1] if isinstance(before.argval, tuple) else before.argval
            if not (before.opname.startswith("LOAD_FAST") and owner == context):
                return f"sets the attribute {step.argval!r}"
        if step.opname == "IMPORT_NAME" and not _trusted(step.argval):
            return f"imports {step.argval}"
        before = step
    return ""


def _used(code: CodeType, names: Mapping[str, Any], free: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """The globals, builtins and free variables that `code` reads, with their values."""
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_GLOBAL", "LOAD_NAME"):
            name = step.argval
            if name in names:
                yield name, names[name]
            elif not hasattr(builtins, name):
                yield name, object()  # not defined yet: whatever it will be cannot be seen
        elif step.argval in free and step.opname in ("LOAD_DEREF", "LOAD_CLASSDEREF"):
            yield step.argval, free[step.argval]


def _changeable(name: str, value: Any, code: CodeType) -> str:
    """Why using `value` could have an effect."""
    if isinstance(value, ModuleType):
        return "" if _trusted(value.__name__) else f"uses the module {value.__name__!r}, which cannot be seen"
    if isinstance(value, type):
        held = vars(value)
        kept = next((one for one in code.co_names if isinstance(held.get(one), (list, dict, set))), "")
        return f"uses {value.__name__}.{kept}, which can change" if kept else ""
    if isinstance(value, FunctionType):
        return ""
    if isinstance(value, BuiltinFunctionType):
        return "" if _trusted(value.__module__ or "torch") else f"calls {name!r}, which cannot be seen"
    if isinstance(value, tuple):
        return next((reason for one in value if (reason := _changeable(name, one, code))), "")
    if type(value).__name__ in ("Tensor", "Parameter"):
        inplace = next((one for one in code.co_names if one.endswith("_") and one[0] != "_"), "")
        return f"uses the tensor {name!r} and {inplace!r}, which may change it" if inplace else ""
    if isinstance(value, _CONSTANTS) or type(value).__module__ == "torch":
        return ""
    return f"uses the global {name!r} ({type(value).__name__}), which can change"


def _trusted(module: str | None) -> bool:
    top, _, rest = (module or "").partition(".")
    return top in _MODULES and not rest.startswith("distributed")
