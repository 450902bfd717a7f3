"""Names for leaves and intermediate tensors, from modules and from the caller's variables.

Only plain data is read: dictionaries of modules, of frames and of ``self``, and exact lists, tuples
and dicts. No property, ``__getattr__`` or ``__repr__`` of the user's runs.
"""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from inspect import CO_OPTIMIZED
from types import FrameType
from typing import Any

import torch
from torch import nn

from hooks.backward import is_foreign
from hooks.modules import wrapped_as
from hooks.unseen import unseen

CONTAINER_LIMIT = 10_000
"""Containers with more entries than this are not searched for tensors."""
_NO_TENSOR = frozenset({bool, int, float, str, type(None), dict, OrderedDict, set, tuple, list})
"""Types of most attributes of a module."""


@dataclass
class Names:
    """What the caller's program calls its tensors; every list has the best name first.

    `tensors` maps ``id(tensor)`` to its names (`held` keeps those ids valid); `results` maps
    (grad_fn, output number) to the names of variables holding that output, and `holders` to one such
    tensor. `parameters` holds the ids of tensors that a module or an optimizer owns. `modules` maps
    ``id(module)`` to its dotted path, as the names of its parameters begin.
    """

    tensors: dict[int, list[str]] = field(default_factory=dict)
    results: dict[tuple[Any, int], list[str]] = field(default_factory=dict)
    holders: dict[tuple[Any, int], torch.Tensor] = field(default_factory=dict)
    parameters: set[int] = field(default_factory=set)
    modules: dict[int, str] = field(default_factory=dict)
    held: list[Any] = field(default_factory=list)

    def of_leaf(self, tensor: torch.Tensor) -> tuple[str, ...]:
        """All names of a leaf."""
        return tuple(self.tensors.get(id(tensor), ()))

    def of_result(self, node: Any, slot: int) -> tuple[str, ...]:
        """All names of forward output `slot` of `node`."""
        return tuple(self.results.get((node, slot), ()))

    def is_parameter(self, tensor: torch.Tensor) -> bool:
        """Whether `tensor` is an ``nn.Parameter``, or owned by a module or an optimizer."""
        return issubclass(type(tensor), nn.Parameter) or id(tensor) in self.parameters

    def _add(self, tensor: torch.Tensor, name: str) -> None:
        self.held.append(tensor)
        names = self.tensors.setdefault(id(tensor), [])
        if name not in names:
            names.append(name)
        result = _result(tensor)
        if result is not None:
            self.holders.setdefault(result, tensor)
            names = self.results.setdefault(result, [])
            if name not in names:
                names.append(name)


def collect(
    frame: FrameType | None = None,
    modules: Iterable[nn.Module] = (),
    scopes: Iterable[Mapping[str, Any]] = (),
) -> Names:
    """Gather names from `modules`, from `scopes`, and from the variables around `frame`.

    Args:
        scopes: further namespaces, the innermost first.
        frame: where backward was called; its locals, those of the frames around it out to
            ``__main__``, and their globals are read.
        modules: modules given by the user, beside those the variables hold.

    Returns:
        The names, those of module parameters first, then variables from the innermost scope outward.
    """
    variables = [
        item for scope in (*scopes, *_scopes(frame)) for item in scope.items() if not item[0].startswith("_")
    ]
    names = Names()
    with unseen():
        _name_modules(names, modules, variables)
        nested: list[tuple[str, Any]] = []
        for name, value in variables:
            if issubclass(type(value), torch.Tensor):
                names._add(value, name)
            else:
                nested.extend(_entries(name, value))
        for name, value in nested:
            names._add(value, name)
    for _, value in variables:
        if issubclass(type(value), torch.optim.Optimizer):
            names.parameters.update(id(tensor) for tensor in _optimized(value))
    return names


def _name_modules(names: Names, given: Iterable[nn.Module], variables: list[tuple[str, Any]]) -> None:
    """Name parameters by their module path; prefix the variable when several root modules are in play."""
    found: dict[int, tuple[str, nn.Module]] = {}
    for name, value in variables:
        if issubclass(type(value), nn.Module):
            found.setdefault(id(value), (name, value))
        elif name == "self":
            for key, item in _attributes(value).items():
                if issubclass(type(item), nn.Module):
                    found.setdefault(id(item), (key, item))
    for module in given:
        found.setdefault(id(module), ("", module))
    trees = {key: list(_submodules(module)) for key, (_, module) in found.items()}
    inner = {id(sub) for tree in trees.values() for _, sub in tree[1:]}
    roots = [(name, module) for key, (name, module) in found.items() if key not in inner]
    # A loss module has no parameters to be told from the model's.
    several = sum(any(True for _, sub in trees[id(module)] for _ in _owned(sub)) for _, module in roots) > 1
    for name, module in roots:
        names.held.append(module)
        tree = trees[id(module)]
        whole = _unsharded(tree)
        prefix = f"{name}." if name and several else ""
        for path, sub in tree:
            names.modules.setdefault(id(sub), f"{prefix}{path}".rstrip("."))
            for key, tensor in (*_owned(sub), *whole.get(id(sub), ())):
                names.parameters.add(id(tensor))
                names._add(tensor, f"{prefix}{path}.{key}" if path else f"{prefix}{key}")


def _submodules(module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    """Every (path, module) from `module` itself down; a shared module comes under each path.

    What wrappers of torch's add to a path (``module.`` of DDP) is left out.
    """
    waiting: list[tuple[str, nn.Module, frozenset[int]]] = [("", module, frozenset())]
    while waiting:
        path, current, above = waiting.pop()
        yield path, current
        children = _attributes(current).get("_modules")
        if not children:
            continue
        wrapped = wrapped_as(current)
        for key, child in reversed(list(children.items())):
            if issubclass(type(child), nn.Module) and id(child) not in above:
                inner = path if key == wrapped else f"{path}.{key}".lstrip(".")
                waiting.append((inner, child, above | {id(current)}))


def _owned(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """The module's parameters, then plain leaf tensors it keeps as attributes."""
    attributes = _attributes(module)
    for key, value in list((attributes.get("_parameters") or {}).items()):
        if issubclass(type(value), torch.Tensor):
            yield key, value
    for key, value in list(attributes.items()):
        if type(value) in _NO_TENSOR or not issubclass(type(value), torch.Tensor):
            continue
        if value.requires_grad and value.is_leaf:
            yield key, value


def _unsharded(tree: Iterable[tuple[str, nn.Module]]) -> dict[int, list[tuple[str, torch.Tensor]]]:
    """By ``id(module)``, the whole parameters that FSDP2 puts in place of the modules' shards while they run.

    They are the leaves of the graph, and no module holds them when backward is called.
    """
    found: dict[int, list[tuple[str, torch.Tensor]]] = {}
    sharded = {kind for kind in {type(module) for _, module in tree} if _is_sharded(kind)}
    for _, module in tree if sharded else ():
        state = getattr(module, "_get_fsdp_state", None) if type(module) in sharded else None
        held = vars(state()) if state is not None else {}
        groups = held.get("_fsdp_param_groups") or [held.get("_fsdp_param_group")]
        for parameter in (one for group in groups if group is not None for one in group.fsdp_params):
            whole, info = vars(parameter).get("_unsharded_param"), parameter._module_info
            if issubclass(type(whole), torch.Tensor):
                found.setdefault(id(info.module), []).append((info.param_name, whole))
    return found


def _is_sharded(kind: type) -> bool:
    return any(base.__name__ == "FSDPModule" for base in kind.__mro__)


def _optimized(optimizer: Any) -> Iterator[torch.Tensor]:
    for group in _attributes(optimizer).get("param_groups", ()):
        yield from (item for item in group.get("params", ()) if issubclass(type(item), torch.Tensor))


def _entries(name: str, value: Any) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors one or two levels inside a plain container, or among the attributes of ``self``."""
    waiting = [(name, value, 0)]
    while waiting:
        path, current, depth = waiting.pop()
        if issubclass(type(current), torch.Tensor):
            yield path, current
            continue
        items: Iterable[tuple[str, Any]]
        if type(current) in (list, tuple):
            items = ((f"{path}[{index}]", item) for index, item in enumerate(current))
        elif type(current) is dict:
            items = ((f"{path}[{key!r}]", item) for key, item in current.items() if type(key) in (str, int))
        elif depth == 0 and name == "self" and not issubclass(type(current), nn.Module):
            items = ((f"self.{key}", item) for key, item in _attributes(current).items())
        else:
            continue
        if depth < 3 and (type(current) not in (list, tuple, dict) or len(current) <= CONTAINER_LIMIT):
            waiting.extend([(key, item, depth + 1) for key, item in items][::-1])


def _scopes(frame: FrameType | None) -> list[Mapping[str, Any]]:
    """Copies of the namespaces around `frame`: locals innermost first, then the globals they see."""
    scopes: list[Mapping[str, Any]] = []
    globals_: dict[int, dict[str, Any]] = {}
    while frame is not None:
        if not is_foreign(frame.f_code.co_filename):
            if frame.f_code.co_flags & CO_OPTIMIZED:
                scopes.append(_locals(frame))
            globals_.setdefault(id(frame.f_globals), frame.f_globals)
            if frame.f_globals.get("__name__") == "__main__" and not frame.f_code.co_flags & CO_OPTIMIZED:
                break
        frame = frame.f_back
    return [*scopes, *(dict(scope) for scope in globals_.values())]


def _locals(frame: FrameType) -> dict[str, Any]:
    """The frame's variables, leaving nothing behind.

    Before Python 3.13 ``f_locals`` is a snapshot that the frame keeps: it would hold the user's tensors
    (and through them the graph) until the function returns, so it is emptied again, unless the user
    holds it too (``variables = locals()``).
    """
    snapshot = frame.f_locals
    copied = dict(snapshot)
    if type(snapshot) is dict and sys.getrefcount(snapshot) <= 3:  # the frame, `snapshot`, the argument
        snapshot.clear()
    return copied


def _attributes(value: Any) -> dict[str, Any]:
    """The instance dictionary of `value`, past any ``__getattr__`` of its class; {} without one."""
    try:
        found = object.__getattribute__(value, "__dict__")
    except (AttributeError, TypeError):
        return {}
    return found if type(found) is dict else {}


def _result(tensor: torch.Tensor) -> tuple[Any, int] | None:
    """(grad_fn, output number) of a tensor that is the result of an operation."""
    try:
        node = tensor.grad_fn
    except RuntimeError:
        # A view that an in-place operation made unusable: torch refuses to rebuild its grad_fn.
        return None
    return None if node is None else (node, tensor.output_nr)
