"""Context of each backward node: module path, the user's line, operation, small forward values.

`observe_forward` attaches once per process, however many observations are open: the first attaches,
the last to leave detaches, in whatever order they leave.

What it costs a plain transformer step, and how that is measured: tests/benchmarks/context.py. What it
leaves: in the metadata of nodes that are still alive, a shared record (see `hooks.creation`) and
small values (see `hooks.values`). While one thread runs a backward, nodes that other threads make
have no line: the flag that tells of them is one for all threads and is off then.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from hooks.backward import uncounted
from hooks.creation import AnomalyRecords, CreationHookRecords, Record, anomaly_reaches_us, record_here
from hooks.handles import Handles
from hooks.intervals import FunctionRecords, Intervals, next_number
from hooks.modules import ModuleCalls, ModuleRuns, named
from hooks.places import operation_at, operation_of
from hooks.unseen import unseen
from hooks.values import Number, YoungValues, value_of

Way = Literal["best", "anomaly", "creation hook", "function"]
_LEAF_NUMBER = 2**64 - 1
_in_task: Callable[[], int] = getattr(torch._C, "_current_graph_task_id", lambda: -1)
# Names of torch's own plumbing: the instruction that made the node only passed it on.
_PLUMBING = frozenset(
    {
        "",
        "apply",
        "_call_impl",
        "_wrapped_call_impl",
        "forward_call",
        "forward",
        "inner",
        "_engine_run_backward",
    }
)


@dataclass(frozen=True, slots=True)
class NodeContext:
    """Where a backward node came from.

    `module` is the dotted path in the outermost module's own tree ("" in it or outside every module),
    `module_call` counts that module's calls from 0 within one graph, `root` numbers the outermost module
    (None outside), `root_class` is its class. `file` and `line` (1-based; "" and 0 where unknown) are the
    innermost line of the user's own code, in `function`; a file that is none (``<stdin>``, a notebook
    cell) is the string Python has for it. `operation` is the operation as spelled there ("linear",
    "mul"), else by the node's name. `library` is (file, line) of another package below the user's line.
    For a leaf: the line that first used it.
    """

    module: str
    module_call: int
    file: str
    line: int
    function: str
    operation: str
    root: int | None = None
    root_class: str = ""
    library: tuple[str, int] | None = None


class Observation:
    """What `observe_forward` gives; it can still be asked after it has ended."""

    def __init__(self, shared: _Shared) -> None:
        self._shared = shared
        self._earlier = shared.modules.runs()

    @property
    def way(self) -> str:
        """How nodes are learnt of: "anomaly", "creation hook" or "function"."""
        return self._shared.way

    @property
    def ran(self) -> Mapping[str, ModuleRuns]:
        """Module path to its calls since this observation began; modules that never ran are absent.

        Paths are those of the first outermost module (or the modules given); paths below any other
        begin with its class: "<Discriminator>.0".
        """
        runs = {path: now.since(self._earlier.get(path, ModuleRuns())) for path, now in self._runs().items()}
        return {path: run for path, run in runs.items() if run.calls}

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed in the hooks, one sentence a part; empty while all is well."""
        return self._shared.modules.faults.problems

    def runs_of(self, module: nn.Module) -> ModuleRuns:
        """All observed calls of exactly this module object, whatever its path."""
        return self._shared.modules.runs_of(module)

    def root_module(self, root: int) -> nn.Module | None:
        """The outermost module with number `root`, None once it is gone."""
        return self._shared.modules.roots[root][0]()

    def root_modules(self) -> list[nn.Module]:
        """The outermost modules that ran or were given, and still live."""
        found = [ref() for ref, _ in list(self._shared.modules.roots)]
        return [module for module in found if module is not None]

    def unlisted_modules(self) -> list[tuple[str, nn.Module, nn.Module]]:
        """(path, module, root) of living modules that ran inside a root that does not list them."""
        return self._shared.modules.unlisted()

    def record_of(self, node: Any) -> Record | None:
        """What was noted when the live node `node` was made; `told` puts it in words at any time after."""
        return self._shared.record_of(node)

    def context_of(self, node: Any) -> NodeContext | None:
        """Where the live node `node` was made; None for one made while nobody observed."""
        record = self._shared.record_of(node)
        return None if record is None else self.told(record, node.name(), hasattr(node, "_forward_cls"))

    def told(self, record: Record, name: str, custom: bool) -> NodeContext:
        """The context of a node called `name` that was made at `record`.

        Args:
            custom: whether it is a Python Function, whose name tells more than the line it was applied on.
        """
        place, call = record.place, record.call
        operation = operation_of(name)
        if operation and record.inner is not None and not custom:
            spelled = operation_at(record.inner)
            operation = operation if spelled in _PLUMBING else spelled
        return NodeContext(
            module=call.path,
            module_call=call.number,
            file="" if place is None else place.code.co_filename,
            line=0 if place is None else place.line,
            function="" if place is None else place.code.co_name,
            operation=operation,
            root=call.root,
            root_class="" if call.root is None else self._shared.modules.roots[call.root][1],
            library=None
            if record.library is None
            else (record.library.code.co_filename, record.library.line),
        )

    def value_of(self, node: Any, slot: int = 0) -> tuple[Number, ...] | None:
        """Flat forward values of output `slot`, as made; None where not kept (see `hooks.values`)."""
        return value_of(node, slot)

    def _runs(self) -> dict[str, ModuleRuns]:
        return self._shared.modules.runs()


class _Shared:
    """The one attachment all open observations share."""

    def __init__(self, way: Way, values: bool) -> None:
        self.modules = ModuleCalls()
        self._values = YoungValues() if values else None
        self._handles = Handles()
        self._backward = Intervals()
        self._open = True
        self._engine: Callable[..., Any] = torch.autograd._engine_run_backward  # type: ignore[attr-defined] # private
        self.way = _choose(way)
        self._records: AnomalyRecords | CreationHookRecords | FunctionRecords
        if self.way == "anomaly":
            self._records = AnomalyRecords(self.modules, self._values)
        elif self.way == "creation hook":
            self._records = CreationHookRecords(self.modules, self._values)
        else:
            self._records = FunctionRecords(self.modules, self._values)

    def attach(self) -> None:
        try:
            self.modules.attach(self._handles)
            self._handles.patch(torch.autograd, "_engine_run_backward", self._run_backward)
            self._records.attach(self._handles)
        except BaseException:
            self.detach()
            raise

    def detach(self) -> None:
        self._open = False
        self._handles.close()

    def record_of(self, node: Any) -> Record | None:
        record = self._records.record_of(node)
        if record is None and (number := node._sequence_nr()) != _LEAF_NUMBER:
            record = self._backward.find(number)
        return record

    @uncounted
    def _run_backward(self, roots: Any, *args: Any, **kwargs: Any) -> Any:
        if not self._open or _in_task() != -1:
            return self._engine(roots, *args, **kwargs)
        try:
            with unseen():
                self._keep_roots(roots)
        except Exception as error:  # noqa: BLE001 - the user's backward must not notice
            self.modules.faults.note("reading small forward values", error)
        begin = next_number()
        self._records.pause()
        try:
            return self._engine(roots, *args, **kwargs)
        finally:
            self._records.resume()
            end = next_number()
            if end > begin:
                try:
                    self._backward.add(begin, end, record_here(sys._getframe(1), self.modules))
                except Exception as error:  # noqa: BLE001 - the user's backward must not notice
                    self.modules.faults.note("noting where nodes were made", error)
            keep_graph = args[1] if len(args) > 1 else False
            if not keep_graph:
                self.modules.next_graph()

    def _keep_roots(self, roots: Any) -> None:
        if self._values is None:
            return
        if self._values.looking:
            self._values.look()
        for root in roots:
            if type(root) is torch.Tensor:
                self._values.keep(root)


_lock = threading.Lock()
_observers: list[Observation] = []


@contextmanager
def observe_forward(
    modules: Iterable[nn.Module] | Mapping[str, nn.Module] | nn.Module = (),
    *,
    values: bool = True,
    way: Way = "best",
) -> Iterator[Observation]:
    """Record the context of every backward node made inside the ``with`` block, in all threads.

    Args:
        modules: modules whose own paths are to be used wherever they run (one: its paths; several: below
            their place or the mapping's key). Others are named by the outermost module that is called.
        values: also copy forward results of at most 64 elements while the script has such results.
        way: how to learn of new nodes; "best" takes the first that this torch offers. Where an observation
            is already open, its way and its choice of values hold.
    """
    observation = _open(named(modules), values, way)
    try:
        yield observation
    finally:
        _leave(observation)


def _open(modules: Mapping[str, nn.Module], values: bool, way: Way) -> Observation:
    with _lock:
        if _observers:
            shared = _observers[-1]._shared
        else:
            shared = _Shared(way, values)
            shared.attach()
        observation = Observation(shared)
        _observers.append(observation)
        shared.modules.give(modules)
    return observation


def _leave(observation: Observation) -> None:
    with _lock:
        _observers.remove(observation)
        if not any(other._shared is observation._shared for other in _observers):
            observation._shared.detach()


def _choose(way: Way) -> str:
    if way != "best":
        return way
    if anomaly_reaches_us():
        return "anomaly"
    return "creation hook" if hasattr(torch.autograd.graph, "node_creation_hook") else "function"
