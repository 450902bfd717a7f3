"""Remembers what the user's ``autograd.Function``s were applied to, while a ``with`` block is open.

A node of a Python Function names what it saved, not what it was given, so `observe_functions` watches every
``apply`` (on the base class that ``Function.apply`` itself calls, so that methods bound long before are seen
too) and notes the arguments beside the node that the call made: weakly, so that they go with it. Tensors are
noted as detached aliases of the same memory with their versions, and only where that costs nothing (the
tensor is a leaf's or saved anyway) or little (`SMALL` elements a call, `BUDGET` in all). Calls under
torch.compile, under functorch transforms, with gradients off, or under saved-tensor hooks (checkpointing,
offloading: keeping would undo them) are left alone.

`applied_to` also recovers the arguments of a call that nobody watched, where the graph itself proves them.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from threading import local
from typing import Any
from weakref import WeakKeyDictionary, finalize

import torch
from torch.autograd.function import _SingleLevelFunction

from hooks.handles import Handles
from hooks.nodes import AutogradNode, is_leaf
from hooks.unseen import unseen

SMALL = 65_536
"""Arguments of at most this many elements together are kept even where nothing else keeps them."""
BUDGET = 4_194_304
"""So many elements in all are kept in this way at any moment (16 MB of float32)."""
LARGEST = 1_048_576
"""Arguments beyond this many elements are never kept: nobody would run such a forward again."""

_PLAIN = (int, float, complex, bool, str, bytes, type(None), torch.dtype, torch.device, torch.Size)


@dataclass(frozen=True, slots=True)
class Applied:
    """The positional arguments of one call; `problem` says why they are not known, "" when they are.

    Tensors stand as detached aliases of what was passed; `versions` holds theirs at the call.
    """

    arguments: tuple[Any, ...] = ()
    versions: tuple[int, ...] = ()
    problem: str = ""

    @property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensor arguments, one per entry of the node's ``next_functions``."""
        return tuple(one for one in self.arguments if isinstance(one, torch.Tensor))

    @property
    def changed(self) -> bool:
        """Whether a tensor argument was modified in place since the call."""
        return tuple(one._version for one in self.tensors) != self.versions


_noted: WeakKeyDictionary[AutogradNode, Applied] = WeakKeyDictionary()
_extra = [0]
"""The elements that only we keep alive at this moment."""
_pause = local()
"""``_pause.on``: a call on this thread is ours and is not noted."""


@contextlib.contextmanager
def observe_functions() -> Iterator[None]:
    """Note the arguments of every ``Function.apply`` until the block ends."""
    owner: Any = _SingleLevelFunction
    open_ = True

    def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
        inner = super(owner, cls).apply
        if torch.compiler.is_compiling() or not open_ or not _wanted():
            return inner(*args, **kwargs)
        with unseen():
            versions = [one._version for one in args if type(one) in _TENSORS and not one.is_inference()]
        result = inner(*args, **kwargs)
        # Nothing about the noting may reach the user's forward.
        with contextlib.suppress(Exception), unseen():
            _note(cls, args, kwargs, tuple(versions), result)
        return result

    patched: Any = classmethod(apply)
    before = vars(owner).get("apply")  # ours, where one watch is inside another; else inherited
    with Handles() as handles:
        owner.apply = patched

        def restore() -> None:
            nonlocal open_
            open_ = False
            if vars(owner).get("apply") is not patched:
                return
            if before is None:
                del owner.apply
            else:
                owner.apply = before

        handles.callback(restore)
        yield


@contextlib.contextmanager
def unobserved() -> Iterator[None]:
    """Calls on this thread are not noted inside the block: they are the explorer's own."""
    before = getattr(_pause, "on", False)
    _pause.on = True
    try:
        yield
    finally:
        _pause.on = before


def applied_to(node: AutogradNode) -> Applied:
    """What the Function of `node` was applied to: as observed, else as far as the graph proves it."""
    found = _noted.get(node)
    if found is not None:
        return found
    try:
        return _recovered(node)
    except RuntimeError as problem:  # a saved tensor was freed, or modified in place since
        return Applied(problem=str(problem).partition("\n")[0])


_TENSORS = (torch.Tensor, torch.nn.Parameter)


def _wanted() -> bool:
    return (
        torch.is_grad_enabled()
        and not getattr(_pause, "on", False)
        and not torch._C._are_functorch_transforms_active()
    )


def _note(
    kind: Any, args: Sequence[Any], kwargs: dict[str, Any], versions: tuple[int, ...], result: Any
) -> None:
    outputs = result if isinstance(result, tuple) else (result,)
    node = next((one.grad_fn for one in outputs if isinstance(one, torch.Tensor) and one.grad_fn), None)
    if node is None or getattr(node, "_forward_cls", None) is not kind:
        return
    _noted[node] = _arguments(node, args, kwargs, versions)


def _arguments(
    node: AutogradNode, args: Sequence[Any], kwargs: dict[str, Any], versions: tuple[int, ...]
) -> Applied:
    if kwargs:
        return Applied(problem="it was called with keyword arguments")
    if torch._C._autograd._top_saved_tensors_default_hooks(True) is not None:
        return Applied(problem="its inputs are not kept under saved-tensor hooks (checkpoint, offloading)")
    tensors = [one for one in args if isinstance(one, torch.Tensor)]
    if any(type(one) not in _TENSORS or one.is_inference() for one in tensors):
        return Applied(problem="an input is a tensor subclass or an inference tensor")
    foreign = next((one for one in args if not (isinstance(one, torch.Tensor) or is_plain(one))), None)
    if foreign is not None:
        return Applied(problem=f"an argument is a {type(foreign).__name__}")
    if tuple(one._version for one in tensors) != versions:
        return Applied(problem="its forward changes an input in place")
    total = sum(one.numel() for one in tensors)
    if total > LARGEST:
        return Applied(problem=f"its inputs have {total:,} elements")
    extra = sum(one.numel() for one in tensors if not (one.is_leaf and one.requires_grad))
    if extra:
        kept = _memory_of(node)
        extra = sum(one.numel() for one in tensors if one.data_ptr() not in kept)
        if extra > SMALL or extra + _extra[0] > BUDGET:
            return Applied(problem=f"its inputs ({extra:,} elements not saved) were not kept")
        _extra[0] += extra
        finalize(node, _released, extra).atexit = False
    with torch.no_grad():
        return Applied(
            tuple(one.detach() if isinstance(one, torch.Tensor) else one for one in args), versions
        )


def _released(extra: int) -> None:
    _extra[0] -= extra


def is_plain(value: Any) -> bool:
    """Whether an argument is a number, a name or the like, alone or in tuples and lists."""
    if isinstance(value, (tuple, list)):
        return all(map(is_plain, value))
    # What torch.library passes to the Function it generates: the dispatch keys and keyword arguments.
    return isinstance(value, _PLAIN) or type(value).__module__ == "torch._library.autograd"


def _memory_of(node: AutogradNode) -> set[int]:
    """Where the memory begins that lives as long as the node: what it saved, and its leaves."""
    saved = [one.data for one in node._raw_saved_tensors if one.data is not None]
    leaves = [target.variable for target, _ in node.next_functions if target is not None and is_leaf(target)]
    return {one.data_ptr() for one in (*saved, *leaves)}


def _recovered(node: AutogradNode) -> Applied:
    """The arguments of an unobserved call, where every argument is a tensor that the graph identifies.

    ``next_functions[i]`` of a leaf leads to the very tensor; another input is known where the Function
    saved it: a saved input comes back with the ``grad_fn`` and output number that the edge names.
    """
    unknown = Applied(problem="its forward was not observed and the graph does not tell its inputs")
    edges = node.next_functions
    if len(node.needs_input_grad) != len(edges):
        return unknown
    if any(getattr(one, "unpack_hook", None) is not None for one in node._raw_saved_tensors):
        return Applied(problem="its saved tensors are packed by hooks")
    saved = {(one.grad_fn, one.output_nr): one for one in node.saved_tensors if one is not None}
    found: list[torch.Tensor] = []
    for target, slot in edges:
        tensor = None if target is None else saved.get((target, slot))
        if target is not None and is_leaf(target):
            # The leaf itself may have been stepped since; a saved one has passed torch's version check.
            tensor = next((one for one in saved.values() if one is target.variable), None)
            if tensor is None and target.variable._version == 0:
                tensor = target.variable
        if tensor is None or type(tensor) not in _TENSORS:
            return unknown
        found.append(tensor.detach())
    if len(_parameters(node._forward_cls)) != len(found):
        return unknown
    return Applied(tuple(found), tuple(one._version for one in found))


def _parameters(kind: Any) -> list[str]:
    """The names of forward's positional parameters, without ctx."""
    names = list(inspect.signature(kind.forward).parameters)
    own = kind.setup_context is not torch.autograd.Function.setup_context
    return names if own else names[1:]
