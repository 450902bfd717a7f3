"""The whole flow: run a script, see its backward, and make the session of reports from it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from explorer.errors import ExplorerError, NothingDifferentiableError, UsageError
from explorer.kept import KEPT_NODES
from explorer.light import Light, Told
from explorer.names import collect
from explorer.ranks import Rank
from explorer.report import CheckMode, Session
from explorer.script import Outcome, Program, run
from explorer.watching import Watch
from explorer.witness import FEW_NODES

LISTED = 12
"""How many candidates an error message names."""


@dataclass
class Exploration:
    """What came of a script: how it ended, what was explored, and what could not be.

    `explored` calls were explored, of which a long run keeps fewer reports; `rank` is that of a distributed
    job's process, `light` the light record of all calls where one was kept.
    """

    outcome: Outcome
    session: Session
    problems: list[str] = field(default_factory=list)
    error: ExplorerError | None = None
    explored: int = 0
    rank: Rank | None = None
    light: Light | None = None


def explore_script(
    program: Program,
    *,
    root: str | None = None,
    call: int | None = 1,
    stop: bool = False,
    check: CheckMode = "sample",
    work_out: int = FEW_NODES,
    every: int | None = None,
    log: str | None = None,
    told: Told | None = None,
    paths_to: str = "",
    numeric: bool = False,
) -> Exploration:
    """Run `program` to its end and explore one of its backward calls (or all, or a tensor of it).

    Args:
        program: a script that compiled.
        root: explore this global instead of a backward call.
        call: the backward call to explore, from 1; None for all.
        stop: end the script after that call.
        check: how much the engine verifies.
        work_out: graphs of at most so many nodes have an element of each gradient worked out.
        every: explore every such call instead, from the first on, with a light record of all calls.
        log: the journal to write the light records to.
        told: called with every light record.
        paths_to: measure what each path to the tensor of this name brings.
        numeric: take central differences of the forward too.
    """
    long = root is None and (every is not None or call is None)
    watch = Watch(
        check=check,
        call=0 if root is not None else call,
        stop=stop,
        script=program.name,
        work_out=work_out,
        every=every,
        log=log,
        told=told,
        keep=KEPT_NODES if long else None,
        paths_to=paths_to,
        numeric=numeric,
    )
    with watch:
        outcome = run(program)
    error: ExplorerError | None = None
    try:
        if root is not None:
            _explore_root(watch, root, outcome.namespace)
        elif watch.calls == 0:
            _explore_unasked(watch, outcome)
        elif outcome.error is not None and not watch.explored:
            # Backward refused its root: what else there is may show where the graph was lost.
            with suppress(NothingDifferentiableError):
                _explore_unasked(watch, outcome)
        elif call is not None and call > watch.calls and not outcome.stopped:
            error = UsageError(
                f"--call {call} does not exist: the script called backward() {_times(watch.calls)}. "
                f"Use --call 1{f' to {watch.calls}' if watch.calls > 1 else ''}, or --call all."
            )
    except ExplorerError as refusal:
        error = refusal
    session = watch.session(scripted=outcome.error is None)
    return Exploration(outcome, session, watch.problems, error, watch.explored, watch.rank, watch.light)


def _explore_root(watch: Watch, root: str, namespace: Mapping[str, Any]) -> None:
    """Explore the script's global `root`.

    Raises:
        UsageError: there is no such global, or it is nothing that can be differentiated.
    """
    found = namespace.get(root)
    if isinstance(found, torch.Tensor) and found.grad_fn is not None:
        watch.explore([found], collect(scopes=[namespace]))
        return
    candidates = [name for name, value in _differentiable(namespace) if not name.startswith("_")]
    listed = ", ".join(candidates[:LISTED]) + (", ..." if len(candidates) > LISTED else "")
    there_is = (
        f"The script's tensors with a grad_fn: {listed}."
        if candidates
        else "It left no tensor with a grad_fn."
    )
    if root not in namespace:
        raise UsageError(f"--root {root}: the script has no global of that name. {there_is}")
    kind = "a tensor without a grad_fn" if isinstance(found, torch.Tensor) else f"a {type(found).__name__}"
    raise UsageError(f"--root {root}: it is {kind}. {there_is}")


def _explore_unasked(watch: Watch, outcome: Outcome) -> None:
    """No backward was called: explore the tensors that nothing else consumes.

    Raises:
        NothingDifferentiableError: there is none.
    """
    namespace = dict(outcome.namespace)
    tb = outcome.error.__traceback__ if outcome.error is not None else None
    while tb is not None:
        namespace = {**tb.tb_frame.f_locals, **namespace}
        tb = tb.tb_next
    roots = _unconsumed([value for _, value in _differentiable(namespace)])
    if not roots:
        raise NothingDifferentiableError(
            "nothing differentiable: the script called no backward() and left no tensor with a grad_fn. "
            "Does a tensor require a gradient (requires_grad=True), outside torch.no_grad()?"
        )
    watch.explore(roots, collect(scopes=[namespace]))


def _differentiable(namespace: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The variables that hold a tensor with a ``grad_fn``, also inside plain lists, tuples and dicts."""
    for name, value in list(namespace.items()):
        if isinstance(value, torch.Tensor):
            inside = [value]
        elif type(value) in (list, tuple):
            inside = [item for item in value if isinstance(item, torch.Tensor)]
        elif type(value) is dict and name != "__builtins__":
            inside = [item for item in value.values() if isinstance(item, torch.Tensor)]
        else:
            continue
        yield from ((name, item) for item in inside if item.grad_fn is not None)


def _unconsumed(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Those of `tensors` whose node no other's graph contains; one per node."""
    starts = {tensor.grad_fn: tensor for tensor in tensors}
    waiting = [target for node in starts for target, _ in node.next_functions]  # type: ignore[union-attr] # has one
    seen: set[Any] = set()
    while waiting:
        node = waiting.pop()
        if node is not None and node not in seen:
            seen.add(node)
            waiting += [target for target, _ in node.next_functions]
    return [tensor for node, tensor in starts.items() if node not in seen]


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
