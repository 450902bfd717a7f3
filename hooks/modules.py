"""Which module is running: a stack per thread, paths as the outermost module names its own tree.

Two global hooks push and pop. Both begin by leaving when torch.compile traces them (anything else
would break its graph) and when a backward is running on this thread (a checkpoint that runs its
forward again is not another call of the module).
"""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

from hooks.faults import Faults
from hooks.handles import Handles
from hooks.places import OURS, Place, kind_of
from hooks.threads import current
from hooks.unseen import unseen

_KEPT_CALLS = 1024
"""Calls of one module per graph whose records are shared with later graphs; those beyond die with theirs."""
LARGE = 4096
"""Results of a module that is given a tensor of more elements than this are seldom small."""
_WRAPPERS = {
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "OptimizedModule": "_orig_mod",
    "CheckpointWrapper": "_checkpoint_wrapped_module",
}
"""Modules of torch's that stand for another one, and the name under which they keep it."""
_running_backward: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)


@dataclass(frozen=True, slots=True)
class ModuleRuns:
    """How often a module ran: `grad` calls with gradients enabled, `no_grad` calls without."""

    grad: int = 0
    no_grad: int = 0

    @property
    def calls(self) -> int:
        """All calls."""
        return self.grad + self.no_grad

    def since(self, earlier: ModuleRuns) -> ModuleRuns:
        """The calls made after `earlier` was taken."""
        return ModuleRuns(self.grad - earlier.grad, self.no_grad - earlier.no_grad)


class Call:
    """One call of one module. `records` holds what nodes made in it share, by place."""

    __slots__ = ("counts", "number", "path", "records", "root")

    def __init__(self, path: str, number: int, root: int | None, counts: list[int]) -> None:
        self.counts = counts
        self.path = path
        self.number = number
        self.root = root
        self.records: dict[tuple[int, ...], Any] = {}


class Running:
    """A call in flight: `frame` is torch's frame around its forward, `site` what was found outside that.

    `large`: it was given a tensor of more than `LARGE` elements.
    """

    __slots__ = ("call", "frame", "large", "module", "site")

    def __init__(self, module: nn.Module, call: Call, frame: FrameType, large: bool) -> None:
        self.module = module
        self.call = call
        self.frame = frame
        self.large = large
        self.site: Site | None = None


class Site(NamedTuple):
    """The user's line around a module's call, and another package's below it."""

    user: Place | None
    library: Place | None


class _Stack(threading.local):
    def __init__(self) -> None:
        self.items: list[Running] = []
        self.thread = current()


class _Known:
    """What is remembered of one module, weakly."""

    __slots__ = ("calls", "count", "epoch", "given", "grad", "no_grad", "paths", "ref", "root")

    def __init__(self, ref: weakref.ref[nn.Module]) -> None:
        self.ref = ref
        self.paths: dict[int, str] = {}
        self.calls: dict[tuple[int, int], Call] = {}
        self.root: int | None = None
        self.given: int | None = None
        self.epoch = self.count = self.grad = self.no_grad = 0

    def close(self) -> None:
        """Let go of the calls' records: a record knows its call, and without the way back both go at once."""
        for call in self.calls.values():
            call.records = {}


class ModuleCalls:
    """The modules in flight in each thread, their paths, and how often each ran."""

    def __init__(self) -> None:
        self.outside = Call("", 0, None, [0, 0])
        self.roots: list[tuple[weakref.ref[nn.Module], str]] = []
        self.local = _Stack()
        self._known: dict[int, _Known] = {}
        self._by_path: dict[str, list[int]] = {}
        self._epoch = 0
        self._lock = threading.RLock()
        self._gone = False
        self.faults = Faults()

    def attach(self, handles: Handles) -> None:
        """Register both hooks for every module of the process, owned by `handles`."""
        handles.callback(self._retire)
        handles.add(register_module_forward_pre_hook(self._before))
        handles.add(register_module_forward_hook(self._after, always_call=True))
        _hide_from_warning(handles)

    def give(self, modules: Mapping[str, nn.Module]) -> None:
        """Name the trees of `modules` by their own paths, below the key's name if it has one."""
        for name, module in modules.items():
            self._index(self._root(module), module, name, given=True)

    def current(self) -> Call:
        """The innermost call in flight in this thread; `outside` where there is none."""
        items = self.local.items
        return items[-1].call if items else self.outside

    def in_large(self) -> bool:
        """Whether the innermost call in flight in this thread was given a large tensor."""
        items = self.local.items
        return bool(items) and items[-1].large

    def next_graph(self) -> None:
        """Begin to count calls from 0 again: the graph they belonged to is spent."""
        self._epoch += 1

    def runs(self) -> dict[str, ModuleRuns]:
        """Calls by path; paths below a second, third, ... root begin with its class in angle brackets."""
        return {path: ModuleRuns(*counts) for path, counts in list(self._by_path.items())}

    def runs_of(self, module: nn.Module) -> ModuleRuns:
        """Calls of exactly this module object."""
        known = self._known.get(id(module))
        if known is None or known.ref() is not module:
            return ModuleRuns()
        return ModuleRuns(known.grad, known.no_grad)

    def unlisted(self) -> list[tuple[str, nn.Module, nn.Module]]:
        """(path, module, root) of living modules that ran inside a root which does not list them."""
        found: list[tuple[str, nn.Module, nn.Module]] = []
        for known in list(self._known.values()):
            for root, path in list(known.paths.items()):
                module, owner = known.ref(), self.roots[root][0]()
                if "<" in path and module is not None and owner is not None:
                    found.append((path, module, owner))
        return found

    def _retire(self) -> None:
        self._gone = True
        for known in list(self._known.values()):
            known.close()
        self.outside.records = {}

    def _before(self, module: nn.Module, inputs: object) -> None:
        if torch.compiler.is_compiling():
            return
        if self._gone or _running_backward() != -1:
            return
        try:
            with unseen():
                self._begin(module, sys._getframe(1), inputs)
        except Exception as error:  # noqa: BLE001 - the user's forward must not notice
            self.faults.note("following the modules' calls", error)

    def _begin(self, module: nn.Module, frame: FrameType, inputs: Any) -> None:
        """Push the call of `module` with `inputs` that torch's `frame` is making."""
        items = self.local.items
        known = self._known.get(id(module))
        if known is None or known.ref() is not module:
            known = self._learn(module)
        for item in items:
            if item.module is module:
                _drop_abandoned(items)
                break
        root = known.given
        if root is None:
            root = items[0].call.root if items else known.root
        if root is None:
            root = self._root(module)
            self._index(root, module, "", given=False)
        if known.epoch != self._epoch:
            known.epoch, known.count = self._epoch, 0
        call = known.calls.get((root, known.count))
        if call is None or call.path != known.paths.get(root):
            call = self._new_call(module, known, root, items)
        if torch.is_grad_enabled():
            known.count += 1
            known.grad += 1
            call.counts[0] += 1
        else:
            known.no_grad += 1
            call.counts[1] += 1
        items.append(Running(module, call, frame, _large(inputs, items)))

    def _after(self, module: nn.Module, inputs: object, output: object) -> None:
        if torch.compiler.is_compiling():
            return
        items = self.local.items
        if not items or _running_backward() != -1:
            return
        if items[-1].module is module:
            items.pop()
            return
        for depth in range(len(items) - 1, -1, -1):
            if items[depth].module is module:
                del items[depth:]
                return

    def _new_call(self, module: nn.Module, known: _Known, root: int, items: list[Running]) -> Call:
        path = known.paths.get(root)
        if path is None:
            path = self._unlisted(module, known, root, items)
        counts = self._by_path.setdefault(self._key(path, root), [0, 0])
        call = Call(path, known.count, root, counts)
        if known.count < _KEPT_CALLS:
            known.calls[root, known.count] = call
        return call

    def _unlisted(self, module: nn.Module, known: _Known, root: int, items: list[Running]) -> str:
        """The path of a module its root did not list when last asked: ask again, else name the class."""
        owner = self.roots[root][0]()
        if owner is not None:
            self._index(root, owner, self._prefix(owner, root), given=False)
        if root not in known.paths:
            above = items[-1].call.path if items else ""
            known.paths[root] = f"{above}.<{type(module).__name__}>".lstrip(".")
        return known.paths[root]

    def _key(self, path: str, root: int) -> str:
        return path if root == 0 else f"<{self.roots[root][1]}>.{path}".rstrip(".")

    def _prefix(self, owner: nn.Module, root: int) -> str:
        known = self._known.get(id(owner))
        return "" if known is None else known.paths.get(root, "")

    def _learn(self, module: nn.Module) -> _Known:
        key = id(module)  # safe as a key: the entry goes when the module does, and `ref` is compared
        known = self._known.get(key)
        if known is not None and known.ref() is module:
            return known
        owner = weakref.ref(self)

        def forget(gone: weakref.ref[nn.Module]) -> None:
            mine = owner()
            known = mine._known.get(key) if mine is not None else None
            if mine is not None and known is not None and known.ref is gone:
                del mine._known[key]
                known.close()

        with self._lock:
            known = self._known.get(key)
            if known is None or known.ref() is not module:
                known = self._known[key] = _Known(weakref.ref(module, forget))
        return known

    def _root(self, module: nn.Module) -> int:
        known = self._learn(module)
        with self._lock:
            if known.root is None:
                known.root = len(self.roots)
                self.roots.append((weakref.ref(module), type(module).__name__))
        return known.root

    def _index(self, root: int, module: nn.Module, prefix: str, given: bool) -> None:
        try:
            named = listed(module)
        except Exception:  # noqa: BLE001 - a user's own named_modules or __getattr__ must not break the forward
            named = [("", module)]
        for path, part in named:
            known = self._learn(part)
            known.paths[root] = f"{prefix}.{path}".strip(".")
            if given:
                known.given = root


def _large(inputs: Any, outer: list[Running]) -> bool:
    """Whether the first tensor of `inputs` is large; without one, what holds for the call around it."""
    for value in inputs:
        if type(value) is torch.Tensor:
            return value.numel() > LARGE
    return bool(outer) and outer[-1].large


def wrapped_as(module: nn.Module) -> str:
    """The name under which a wrapper of torch's (DDP, a compiled module) keeps its module; "" for others."""
    return next((_WRAPPERS[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in _WRAPPERS), "")


def listed(root: nn.Module) -> list[tuple[str, nn.Module]]:
    """``named_modules``, the names that wrappers of torch's add left out: "fc", not "module.fc"."""
    found: list[tuple[str, nn.Module]] = []
    shown: dict[str, str] = {"": ""}
    inner: dict[str, str] = {}
    for path, module in root.named_modules():
        above, _, name = path.rpartition(".")
        begins = shown.get(above, above)
        if path:
            own = name if inner.get(above) != name else ""
            shown[path] = f"{begins}.{own}".strip(".")
        inner[path] = wrapped_as(module)
        found.append((shown[path], module))
    return found


def named(modules: Iterable[nn.Module] | Mapping[str, nn.Module] | nn.Module) -> dict[str, nn.Module]:
    """What a caller gave, as a mapping: one module stands for itself, several have their place as name."""
    if isinstance(modules, nn.Module):
        return {"": modules}
    if isinstance(modules, Mapping):
        return dict(modules)
    listed = list(modules)
    if len(listed) == 1:
        return {"": listed[0]}
    return {str(place): module for place, module in enumerate(listed)}


def _hide_from_warning(handles: Handles) -> None:
    """Keep a compiled module from warning of global hooks where there are none but ours.

    ``OptimizedModule.__call__`` warns whenever ``_has_any_global_hook`` says so.
    """
    owner: Any = torch.nn.modules.module
    original: Callable[[], Any] | None = getattr(owner, "_has_any_global_hook", None)
    if original is None:  # a torch that does not warn
        return
    registries: list[Mapping[int, Any]] = [
        getattr(owner, f"_global_{name}")
        for name in ("backward_pre_hooks", "backward_hooks", "forward_pre_hooks", "forward_hooks")
    ]

    def has_any_global_hook() -> bool:
        return bool(original()) and any(
            not _is_ours(hook) for hooks in registries for hook in list(hooks.values())
        )

    handles.patch(owner, "_has_any_global_hook", has_any_global_hook)


def _is_ours(hook: Any) -> bool:
    code = getattr(getattr(hook, "__func__", hook), "__code__", None)
    return code is not None and kind_of(code.co_filename) == OURS


def _drop_abandoned(items: list[Running]) -> None:
    """Drop calls that ended without their hook: torch skips it for KeyboardInterrupt and SystemExit."""
    alive: list[FrameType] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        alive.append(frame)
        frame = frame.f_back
    for depth, item in enumerate(items):
        if not any(item.frame is frame for frame in alive):
            del items[depth:]
            return
