"""The journal of a long run: one line of JSON for each backward call, in a file that survives a kill.

    {"journal":1,"script":"train.py","torch":"...","started":1760000000.0,"rank":null,"ranks":1,"every":100,
     "columns":["norm","max","zeros","nonfinite","elements"],"bytes":67108864,"thinned":0}
    {"call":1,"at":0.8,"seconds":0.02,"loss":2.31,"where":"train.py:24","explored":true,
     "layers":{"0":[1.5,0.2,0,0,864],"2":[0.9,0.1,12,0,80]}}

Every line is handed to the system in one write, so that whatever ends the process, even ``kill -9``, leaves
whole lines; a line torn all the same (the machine went down, the disk was full) is passed over by `read`. A
run appends to what is there and begins with a line of its own. The file stays below a bound: where that is
reached, every second line of earlier calls is dropped (the newest stay dense, the first with a non-finite
gradient stays), the rest is put in its place at once, and the run's first line counts how often it was done.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from explorer.errors import UsageError

SUFFIX = ".jsonl"
LIMIT = 64 * 2**20
"""Bytes that a journal may take."""
BEGIN = b'{"journal":1,'
"""How every run's first line begins."""
COLUMNS = ("norm", "max", "zeros", "nonfinite", "elements")


@dataclass(frozen=True, slots=True)
class LayerGradient:
    """What the parameters of one layer received in one backward call, before it was accumulated.

    `norm` is the 2-norm, `largest` the largest magnitude (nan if there is one), `zeros` and `nonfinite`
    count elements, of `elements`. Of a tensor of more than 65,536 elements in memory, the zeros are those
    that an even sample of it makes likely.
    """

    norm: float
    largest: float
    zeros: int
    nonfinite: int
    elements: int


@dataclass(frozen=True, slots=True)
class Step:
    """One backward call of the user's: when (`at`: seconds since the run began), where, and its gradients.

    `layers` goes by module path, or by name for a tensor no module owns. `averaged` holds, in a distributed
    job, the 2-norm of each layer's ``.grad`` after the call: what the ranks agreed on. `explored`: there is
    a full report of it. `error` is what ended the call.
    """

    call: int
    at: float
    seconds: float
    loss: float | None = None
    where: str = ""
    explored: bool = False
    layers: Mapping[str, LayerGradient] = field(default_factory=dict)
    averaged: Mapping[str, float] = field(default_factory=dict)
    error: str = ""

    @property
    def nonfinite(self) -> int:
        """Gradient elements that are nan or inf, over all layers."""
        return sum(layer.nonfinite for layer in self.layers.values())


@dataclass(frozen=True, slots=True)
class Run:
    """What one run wrote: its first line, and its calls in order; `torn` lines could not be read."""

    script: str
    torch: str
    started: float
    rank: int | None
    ranks: int
    every: int | None
    thinned: int
    steps: tuple[Step, ...]
    torn: int = 0


class Journal:
    """Appends to the file `path`; the first failure ends the writing and is told in `problem`.

    Args:
        path: the file; it is opened with the first step.
        first: what the run's first line says beside the format.
        limit: bytes the file may take.
    """

    def __init__(self, path: str, first: Mapping[str, Any], limit: int = LIMIT) -> None:
        self.path = path
        self.problem = ""
        self.written = 0
        self._first = {"journal": 1, **first, "columns": list(COLUMNS), "bytes": limit, "thinned": 0}
        self._limit = limit
        self._file: int | None = None
        self._size = self._opened = 0
        self._begun = False
        self._lock = threading.Lock()

    def write(self, step: Step) -> None:
        """Append one line; nothing is raised."""
        with self._lock:
            if self.problem:
                return
            try:
                if self._file is None:
                    self._open()
                line = _line(_plain(step))
                if self._size + len(self._first_line()) + len(line) > self._limit:
                    self._thin()
                # In one piece: Ctrl-C may come between any two statements.
                self._append(self._first_line() + line)
                self._begun = True
                self.written += 1
            except (OSError, ValueError) as error:
                self.problem = f"the journal {self.path} ends early: {error}"
                self._close()

    def _first_line(self) -> bytes:
        """The run's first line, where it is still to be written; the file tells, whatever Ctrl-C cut."""
        if not self._begun and self._file is not None:
            self._begun = os.fstat(self._file).st_size > self._opened
        return b"" if self._begun else _line(self._first)

    def close(self) -> None:
        """Close the file; a later step opens it again."""
        with self._lock:
            self._close()
            self._begun = False

    def _open(self) -> None:
        file = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._size = self._opened = os.fstat(file).st_size
        self._file = file
        if not self._size:
            return
        with open(self.path, "rb") as there:
            if not there.read(len(BEGIN)).startswith(BEGIN):
                raise ValueError("what stands there is no journal")
            there.seek(-1, os.SEEK_END)
            if there.read(1) != b"\n":
                self._opened += 1
                self._append(b"\n")  # the run before this one was ended within a line

    def _close(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _append(self, line: bytes) -> None:
        if self._file is None:
            return
        done = os.write(self._file, line)
        self._size += done
        if done != len(line):  # the disk is full: the next write says so, or takes the rest
            self._append(line[done:])

    def _thin(self) -> None:
        """Drop every second line of calls, oldest first, until half of the bound is free.

        Raises:
            OSError: the file is gone, or there is no room beside it.
        """
        self._close()
        beside = f"{self.path}.{os.getpid()}.part"
        self._first["thinned"] += 1
        try:
            with open(self.path, "rb") as old:
                total = sum(1 for _ in old)
            with open(self.path, "rb") as old, open(beside, "wb") as new:
                bad = False
                for place, line in enumerate(old):
                    header = line.startswith(BEGIN)
                    first_bad = not bad and not header and b'"unhealthy":true' in line
                    bad = not header and (bad or first_bad)
                    if header and json.loads(line).get("started") == self._first.get("started"):
                        line = _line(self._first)
                    if header or first_bad or (total - place) % 2:
                        new.write(line)
            os.replace(beside, self.path)
        finally:
            Path(beside).unlink(missing_ok=True)
        self._open()
        if self._size > self._limit * 3 // 4:
            raise ValueError(f"{self._limit:,} bytes are too few for it")


def read(path: str | os.PathLike[str]) -> tuple[Run, ...]:
    """The runs in a journal, oldest first.

    Raises:
        UsageError: the file cannot be read, or is no journal.
    """
    runs: list[Run] = []
    steps: list[Step] = []
    torn = 0
    first: dict[str, Any] | None = None
    for item in _items(path):
        if item is not None and "journal" in item:
            if first is not None:
                runs.append(_run(first, steps, torn))
            first, steps, torn = item, [], 0
        elif first is None:
            raise UsageError(f"{os.fspath(path)!r} is no journal of the explorer")
        else:
            step = None if item is None else _step(item)
            torn += step is None
            steps += [] if step is None else [step]
    if first is None:
        raise UsageError(f"{os.fspath(path)!r} is no journal of the explorer: it is empty")
    return (*runs, _run(first, steps, torn))


def check(path: str) -> None:
    """Refuse to append to a file that is something else.

    Raises:
        UsageError: `path` holds something, and that is no journal.
    """
    if not os.path.isfile(path):  # nothing yet, or a device or pipe, which is written to as it is
        return
    try:
        with open(path, "rb") as file:
            begin = file.read(len(BEGIN))
    except OSError as error:
        raise UsageError(f"cannot read {path!r}: {error.strerror or error}") from None
    if begin and not begin.startswith(BEGIN):
        raise UsageError(
            f"{path!r} is no journal of the explorer, and would be appended to: give another name"
        )


def layer_of(name: str, owned: bool) -> str:
    """The layer of a leaf: the path of its module, or its own name where no module owns it."""
    path, dot, _ = name.rpartition(".")
    return path if dot and owned and not path.startswith("self") and "[" not in name else name


def _items(path: str | os.PathLike[str]) -> Iterator[dict[str, Any] | None]:
    """Every line as an object, None for one that is none."""
    try:
        with open(path, "rb") as file:
            for line in file:
                try:
                    item = json.loads(line)
                except (ValueError, RecursionError):
                    item = None
                yield item if isinstance(item, dict) else None
    except OSError as error:
        raise UsageError(f"cannot read {os.fspath(path)!r}: {error.strerror or error}") from error


def _run(first: Mapping[str, Any], steps: list[Step], torn: int) -> Run:
    rank, every = first.get("rank"), first.get("every")
    try:
        return Run(
            script=str(first.get("script", "")),
            torch=str(first.get("torch", "")),
            started=float(first.get("started", 0.0)),
            rank=None if rank is None else int(rank),
            ranks=int(first.get("ranks", 1)),
            every=None if every is None else int(every),
            thinned=int(first.get("thinned", 0)),
            steps=tuple(steps),
            torn=torn,
        )
    except (TypeError, ValueError) as error:
        raise UsageError(f"not a journal of the explorer: {error}") from error


def _step(item: Mapping[str, Any]) -> Step | None:
    """The call a line tells of, None where something of it is missing."""
    try:
        return Step(
            call=int(item["call"]),
            at=float(item["at"]),
            seconds=float(item["seconds"]),
            loss=None if item.get("loss") is None else float(item["loss"]),
            where=str(item.get("where", "")),
            explored=bool(item.get("explored", False)),
            layers={
                str(name): LayerGradient(float(norm), float(largest), int(zeros), int(bad), int(elements))
                for name, (norm, largest, zeros, bad, elements) in item["layers"].items()
            },
            averaged={str(name): float(norm) for name, norm in item.get("averaged", {}).items()},
            error=str(item.get("error", "")),
        )
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _plain(step: Step) -> dict[str, Any]:
    found: dict[str, Any] = {
        "call": step.call,
        "at": round(step.at, 3),
        "seconds": round(step.seconds, 6),
        "loss": _number(step.loss),
        "where": step.where,
        "explored": step.explored,
    }
    if step.nonfinite:
        found["unhealthy"] = True
    if step.error:
        found["error"] = step.error
    found["layers"] = {
        name: [_number(layer.norm), _number(layer.largest), layer.zeros, layer.nonfinite, layer.elements]
        for name, layer in step.layers.items()
    }
    if step.averaged:
        found["averaged"] = {name: _number(norm) for name, norm in step.averaged.items()}
    return found


def _line(item: Mapping[str, Any]) -> bytes:
    return (json.dumps(item, allow_nan=False, separators=(",", ":")) + "\n").encode("ascii")


def _number(value: float | None) -> float | str | None:
    """Seven digits are what float32 has; non-finite numbers are strings, so that any parser reads them."""
    if value is None:
        return None
    if value != value or value in (float("inf"), float("-inf")):
        return "nan" if value != value else "inf" if value > 0 else "-inf"
    return float(f"{value:.7g}")
