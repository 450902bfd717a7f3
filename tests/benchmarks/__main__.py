"""Every cost in one table: ``python -m tests.benchmarks [--short]``.

Each number is a ratio of two medians measured in turn in one run, after a warm-up; the spread is that of
the single ratios (10th to 90th percentile). ``--short`` measures small models twice, to see that the
benchmark itself works. What could not be measured (a neighbour that is not installed, a device that is not
there) has a line that says why.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from math import nan
from pathlib import Path
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from statistics import median
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

import explorer
from explorer.render import dot, fold
from explorer.render.layout import layout
from explorer.trace import trace
from explorer.watching import Watch
from hooks.forward import observe_forward
from hooks.nodes import capture
from tests.benchmarks import peers
from tests.benchmarks.marks import mark_of
from tests.benchmarks.models import large, on_device
from tests.benchmarks.peers import missing
from tests.benchmarks.stages import further, stages
from tests.benchmarks.watching import steps, timed, walking

Forward = Callable[[], Tensor]


@dataclass(frozen=True)
class Row:
    """One line: what was measured on what, the ratio to `base`, its spread, and the base in ms.

    It shows the milliseconds beyond the base too, and the mark where the line has one. `note` says what it
    gives, or why there is no number.
    """

    model: str
    what: str
    ratio: float
    low: float
    high: float
    base: str
    base_ms: float
    note: str = ""

    @property
    def skipped(self) -> bool:
        """Whether there is no number."""
        return self.note.startswith("skipped")

    def __str__(self) -> str:
        if self.skipped:
            return f"{self.model:23} {self.what:34} {self.note}"
        spread = f"{self.low:.2f}-{self.high:.2f}"
        base = f"{self.base} {self.base_ms:.1f} ms" if self.base_ms else self.base
        more = f"{(self.ratio - 1) * self.base_ms:+9.1f} ms" if self.base_ms else ""
        note = f"  ({self.note})" if self.note else ""
        columns = f"{spread:>12} {more:>12}  {self.mark:22}  {base}{note}"
        return f"{self.model:23} {self.what:34} x{self.ratio:6.2f}  {columns}"

    @property
    def mark(self) -> str:
        """What it has to stay below and whether it does; "" for a line without a mark."""
        mark = mark_of(self.model, self.what)
        if mark is None:
            return ""
        return f"mark {mark}: {'yes' if mark.reached(self.ratio, self.base_ms) else 'NO'}"


def compared(
    model: str,
    base: str,
    plain: Callable[[], Any],
    others: dict[str, Callable[[], Any]],
    rounds: int,
    notes: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[Row]:
    """Time `plain` and `others` in turn, `rounds` times; one that returns a number has timed itself."""
    plain()
    reasons = {name: missing(run) for name, run in others.items()}
    skipped = [name for name in others if reasons[name]]
    others = {name: run for name, run in others.items() if not reasons[name]}
    runs = {"": plain, **others}
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found: list[Any] = []
            took = timed(lambda run=run, found=found: found.append(run()))  # type: ignore[misc] # bound now
            times[name].append(found[0] if isinstance(found[0], float) else took)
    for name in others:
        ratios = sorted(mine / own for mine, own in zip(times[name], times[""], strict=True))
        cut = len(ratios) // 10
        ratio = median(times[name]) / median(times[""])
        note = notes.get(name, "")
        yield Row(model, name, ratio, ratios[cut], ratios[-1 - cut], base, median(times[""]) * 1e3, note)
    for name in skipped:
        yield unmeasured(model, name, reasons[name])


def unmeasured(model: str, what: str, why: str) -> Row:
    """A line without a number."""
    return Row(model, what, nan, nan, nan, "", 0.0, why)


def peer_costs(short: bool, rounds: int) -> Iterator[Row]:
    """The floors and the neighbours beside ours, on the same models."""
    for name, (model, inputs) in peers.models(short).items():
        runs = {
            what: partial(step, model, inputs)
            for what, step in {**peers.FLOORS, **peers.OURS, **peers.PEERS}.items()
        }
        step_alone = partial(peers.plain, model, inputs)

        def watched(step_alone: Callable[[], None] = step_alone) -> None:
            with explorer.watch(check="off"):
                step_alone()

        def light(step_alone: Callable[[], None] = step_alone) -> None:
            with Watch(call=0, told=lambda step: None):
                step_alone()

        everything = {"watch, statistics (beside peers)": watched, "watch, light record": light, **runs}
        yield from compared(name, "step", step_alone, everything, rounds, peers.GIVES)
    length = 500 if short else 20_000
    bare = partial(lambda: peers.nodes_of(peers.chain(length).grad_fn))
    chains = peers.long_chain(length)
    yield from compared(f"chain of {length:,}", "bare loop", bare, chains, min(rounds, 3), peers.GIVES)
    alone, checks = peers.checked()
    yield from compared("tiny MLP, float64", "step", alone, checks, min(rounds, 3))


def device_costs(short: bool, rounds: int) -> Iterator[Row]:
    """Watching on a CUDA device, where there is one."""
    for name, build in on_device(short).items():
        if not torch.cuda.is_available():
            yield unmeasured(f"{name}, CUDA", "watch, statistics", "skipped: no CUDA device")
            continue
        forward = build()

        def step_there(forward: Forward = forward) -> None:
            forward().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped
            torch.cuda.synchronize()

        def watched(step_there: Callable[[], None] = step_there) -> None:
            with explorer.watch(check="off"):
                step_there()

        yield from compared(f"{name}, CUDA", "step", step_there, {"watch, statistics": watched}, rounds)


def step_costs(model: str, forward: Forward, rounds: int) -> Iterator[Row]:
    """What a training step costs, to a plain forward + backward."""

    def plain() -> None:
        forward().backward()  # type: ignore[no-untyped-call] # torch leaves it untyped

    def bare_hooks() -> None:
        loss = forward()
        with capture(trace([loss], saved=False).live, lambda event: None):
            loss.backward()  # type: ignore[no-untyped-call] # torch leaves it untyped

    def inside(around: Callable[[], Any]) -> None:
        with around():
            plain()

    def left_open() -> float:
        """A step inside a watch that has seen one already, as in a training loop."""
        with explorer.watch(check="off"):
            plain()
            return timed(plain)

    others: dict[str, Callable[[], Any]] = {
        "floor: the same again": partial(inside, nullcontext),
        "a hook per node": bare_hooks,
        "context": partial(inside, observe_forward),
        "detect_anomaly": partial(inside, quiet_anomaly),
        "watch, statistics": partial(inside, partial(explorer.watch, check="off")),
        "watch, statistics, left open": left_open,
        "watch, sampled check": partial(inside, partial(explorer.watch, check="sample")),
    }
    yield from compared(model, "step", plain, others, rounds)
    yield from compared(model, "step", plain, stages(forward), min(rounds, 3))


def quiet_anomaly() -> Any:
    """torch's own mode, entered without the warning that ``detect_anomaly`` gives."""
    return torch.autograd.set_detect_anomaly(True)


def backward_costs(model: str, forward: Forward, modes: tuple[Any, ...], rounds: int) -> Iterator[Row]:
    """What the check costs, to torch's own backward alone."""

    def plain() -> float:
        loss = forward()
        return timed(loss.backward)

    def checked(mode: Any) -> float:
        with explorer.watch(check=mode):
            loss = forward()
            return timed(loss.backward)

    others = {f"backward, check={mode}": partial(checked, mode) for mode in modes}
    yield from compared(model, "backward", plain, others, rounds)


def drawing_costs(model: str, forward: Forward, rounds: int) -> Iterator[Row]:
    """Folding and layout of the whole graph, to one backward."""
    report = explorer.explore(forward(), check="off")

    def draw() -> None:
        layout(dot.of_drawing(report, fold.draw(report)), "svg")

    def plain() -> float:
        loss = forward()
        return timed(loss.backward)

    others = {"fold + layout": draw, "JSON": report.to_json, "text": partial(str, report)}
    yield from compared(model, "backward", plain, others, rounds)


def start_up(rounds: int) -> Iterator[Row]:
    """The command, to ``python -c "import torch"``."""
    folder = Path(__file__).resolve().parents[2]
    command = str(Path(sys.executable).with_name("explore"))

    def call(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True, cwd=folder)

    others = {
        "explore --help": partial(call, command, "--help"),
        "explore examples/xyz.py": partial(call, command, "examples/xyz.py"),
    }
    torch_alone = partial(call, sys.executable, "-c", "import torch")
    yield from compared("command", "import torch", torch_alone, others, rounds)


MEMORY = """
import sys, resource
import torch, explorer
from contextlib import nullcontext
from tests.benchmarks.{home} import {table}
forward = {table}({arguments})[{model!r}]
with explorer.watch(check="off") if {watched} else nullcontext():
    for _ in range(8):
        batch = torch.ones(4 << 20)  # 16 MiB in a variable of each step, as a loader gives them
        loss = forward()
        loss.backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
MILLION = """
import resource
from time import perf_counter
import explorer
from explorer.render import dot, fold
from explorer.render.layout import layout
from tests.benchmarks.watching import chain
loss = chain({length})
began = perf_counter()
report = explorer.explore(loss, check="off")
layout(dot.of_drawing(report, fold.draw(report)), "svg")
print(perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def printed(code: str) -> list[float]:
    """The numbers that `code` prints last, run in a fresh process."""
    shown = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    return [float(number) for number in shown.stdout.splitlines()[-1].split()]


def peak_memory(model: str, home: str, table: str, arguments: str) -> Row:
    """Peak memory of eight watched steps to that of eight plain ones; fresh processes, ours imported in both.

    Args:
        home: the module of the benchmark in which `table` gives the forward passes by `model`.
        arguments: what `table` is called with.
    """
    peaks = []
    for watched in (False, True):
        code = MEMORY.format(home=home, table=table, arguments=arguments, model=model, watched=watched)
        peaks.append(int(printed(code)[0]))
    ratio = peaks[1] / peaks[0]
    return Row(model, "peak memory, watch, statistics", ratio, ratio, ratio, f"{peaks[0] >> 10} MiB", 0.0)


def long_chain(length: int) -> Iterator[Row]:
    """A chain explored with statistics and drawn folded, once: what the marks for a million nodes are."""
    seconds, peak = printed(MILLION.format(length=length))
    for what, share in (("seconds of 60", seconds / 60), ("GB of 6", peak * 1024 / 6e9)):
        model = f"chain of {length:,} ops"
        yield Row(model, f"explored and drawn, {what}", share, share, share, "the mark", 0.0)


def rows(short: bool) -> Iterator[Row]:
    """All rows, as they are measured."""
    rounds = 2 if short else 9
    torch.manual_seed(0)
    models = large(True) if short else steps()
    for name, forward in {**models, **further(short)}.items():
        yield from step_costs(name, forward, rounds)
    for name, forward in large(short).items():
        yield from backward_costs(name, forward, ("sample",) if short else ("off", "sample"), min(rounds, 3))
        yield from drawing_costs(name, forward, min(rounds, 3))
        yield peak_memory(name, "models", "large", str(short))
    for name in {} if short else models:
        yield peak_memory(name, "watching", "sized", repr(name))
    yield from peer_costs(short, rounds)
    yield from device_costs(short, rounds)
    yield from start_up(min(rounds, 5))
    chain = walking(500 if short else 20_000, rounds)
    bare = chain["bare us"]
    walks = {"traverse": "traverse us", "trace": "trace us", "the whole walk": "full us"}
    for what, spent in ((what, chain[column]) for what, column in walks.items()):
        ratio = spent / bare
        yield Row("chain", what, ratio, ratio, ratio, "bare loop, per 1000 nodes,", bare)
    yield from long_chain(500 if short else 1_000_000)


def main() -> None:
    """Print the table, row by row."""
    short = sys.argv[1:] == ["--short"]
    if sys.argv[1:] and not short:
        sys.exit("usage: python -m tests.benchmarks [--short]")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, CUDA: {torch.cuda.is_available()}")
    for row in rows(short):
        print(row, flush=True)
    peak = max(getrusage(RUSAGE_SELF).ru_maxrss, getrusage(RUSAGE_CHILDREN).ru_maxrss)
    print(f"peak memory of all this {peak >> 10:,} MiB")


if __name__ == "__main__":
    main()
