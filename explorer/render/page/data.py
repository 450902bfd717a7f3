"""The report as the page reads it: JSON with defaults left out and every repeated text said once.

The page shows numbers; it finds none. Keys are short because a page holds thousands of them; the page's
``data.js`` is the other side of this format.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from explorer.comparison import agrees
from explorer.graph import Node, Saved, Source, TensorSpec
from explorer.narrative import captions
from explorer.render import circuit, signs, theme, words
from explorer.render.drawing import Drawing, Shape
from explorer.render.fold import CIRCUIT
from explorer.render.marks import scale
from explorer.render.page.excerpts import excerpts
from explorer.render.page.numbers import finite, number, numbers
from explorer.render.page.views import LARGE, View
from explorer.render.simplify import kept
from explorer.report import Finding, GradientRecord, Quotients, Report, Row, Session, Verdict

Object = dict[str, Any]
NAME = 200
SAID = 2000
"""Characters of a name, and of a message, that the page holds."""


TOLD = 120_000
"""Characters of arithmetic, step by step, that the page holds."""


class Local(Protocol):
    """The derivative behind one edge, as `explorer.derivatives.Local` has it."""

    @property
    def value(self) -> float | None:
        """The number, None when it is not one real number."""

    @property
    def formula(self) -> str:
        """Its mathematics, "" when unknown."""

    @property
    def note(self) -> str:
        """What a reader must know about it."""


Locals = Mapping[tuple[int, int], Local]
"""(edge index, output slot) -> local derivative."""


@dataclass(slots=True)
class _Strings:
    """Texts said once, each by its number; number 0 is the empty one."""

    numbers: dict[str, int] = field(default_factory=lambda: {"": 0})

    def number(self, text: str, longest: int = NAME) -> int:
        """The number of `text`, made safe to show."""
        return self.numbers.setdefault(words.clean(text, longest), len(self.numbers))


def document(session: Session, drawn: Sequence[Sequence[View]], local: Sequence[Locals]) -> str:
    r"""The whole page's data as JSON that is safe inside a ``script`` element: ``<`` is ``\u003c``."""
    strings = _Strings()
    reports = [
        _report(report, views, found, strings, len(session.reports))
        for report, views, found in zip(session.reports, drawn, local, strict=True)
    ]
    sources = [source for report in session.reports for source in _sources(report)]
    occurring = {mark for views in drawn for view in views for mark in view.marks}
    lines = {words.clean(file, 300): text for file, text in excerpts(sources).items()}
    whole = {
        "script": words.clean(session.script, 300),
        "torch": words.clean(session.torch, 60),
        "calls": session.calls,
        "reports": reports,
        "lines": lines,
        "key": {mark: said for mark, said in theme.KEY.items() if mark in occurring},
        "strings": list(strings.numbers),
    }
    text = json.dumps(whole, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


def _sources(report: Report) -> Iterable[Source]:
    yield from (node.source for node in report.graph.nodes if node.source is not None)
    yield from (finding.where for finding in report.findings if finding.where is not None)
    if report.where is not None:
        yield report.where


def _report(report: Report, views: Sequence[View], local: Locals, strings: _Strings, reports: int) -> Object:
    graph, spread = report.graph, scale(report)
    told = _told(report, views)
    partly = (
        f"details of {len(told):,} nodes in this page; of the others all that arrived together, not what "
        "every use of it brought"
        if len(told) < len(graph.nodes)
        else ""
    )
    scalar = views[0].drawing.circuit and len(graph.nodes) <= CIRCUIT
    return {
        "call": report.call,
        "where": _source(report.where, strings),
        "root": words.roots(report),
        "title": words.clean(circuit.title(report), NAME) if scalar else "",
        "roots": [list(root) for root in graph.roots],
        "error": words.clean(report.error, SAID),
        "failed": report.failed,
        "problems": [words.clean(problem, SAID) for problem in report.problems],
        "looked": [words.clean(code, 80) for code in report.looked_for],
        "ran": bool(report.gradients),
        "check": words.check_line(report.check),
        "said": words.check_words(report),
        "wrongShare": finite(report.check.wrong_share),
        "seconds": finite(report.seconds),
        "centre": finite(spread.centre),
        "nodes": [
            _node(report, node, strings, scalar) if node.id in told else _brief(report, node, strings)
            for node in graph.nodes
        ],
        "edges": [[edge.source, edge.source_slot, edge.target, edge.target_slot] for edge in graph.edges],
        "sent": [_sent(report, index, edge.target in told) for index, edge in enumerate(graph.edges)],
        "local": {
            str(index): [number(one.value), strings.number(one.formula, 300), strings.number(one.note)]
            for (index, slot), one in local.items()
            if slot == 0 and (one.value is not None or one.formula)
        },
        "steps": _steps(report, strings, TOLD // reports),
        "findings": [_finding(finding, strings) for finding in report.findings],
        "ways": _ways(report.quotients, strings),
        "views": [_view(view, strings, partly) for view in views],
    }


def _ways(quotients: Quotients | None, strings: _Strings) -> Object | None:
    """Some gradients by hand, PyTorch, engine and difference quotient; None where that was not asked for."""
    if quotients is None:
        return None
    return {
        "rows": [_way(row, strings) for row in quotients.rows],
        "notes": [words.clean(note, SAID) for note in quotients.notes],
        "problem": words.clean(quotients.problem, SAID),
    }


def _way(row: Row, strings: _Strings) -> list[Any]:
    """Name, the four numbers, and 1 where those that are known agree, 0 where not, None for less than two."""
    ways = (row.by_hand, row.pytorch, row.engine, row.numeric)
    known = sum(way is not None for way in ways)
    verdict = None if known < 2 else int(agrees(row))
    return [strings.number(row.name), *map(number, ways), verdict]


def _steps(report: Report, strings: _Strings, room: int) -> dict[str, list[int]]:
    """What each node sent, a line of arithmetic for each input: of the first steps, while there is room."""
    if len(report.graph.nodes) > LARGE:
        return {}
    found = {}
    for node, lines in captions(report).items():
        sent = [words.clean(line, 300) for line in lines if line.startswith(("to ", "element "))]
        room -= sum(map(len, sent))
        if room < 0:
            break
        if sent:
            found[str(node)] = [strings.number(line, 300) for line in sent]
    return found


def _told(report: Report, views: Sequence[View]) -> Collection[int]:
    """The nodes whose details the page holds: all, but of a large graph those that stand for themselves."""
    graph = report.graph
    if len(graph.nodes) <= LARGE:
        return range(len(graph.nodes))
    found = {shape.members[0] for view in views for shape in view.drawing.shapes}
    found.update(sorted(kept(report))[:LARGE], [leaf.id for leaf in graph.leaves()][:LARGE])
    return found


def _brief(report: Report, node: Node, strings: _Strings) -> list[Any]:
    """A node whose details are left out: name, label, module, when it ran, and its first gradient."""
    ran = report.gradients[node.id] if node.id < len(report.gradients) else None
    record = next(iter(ran.received), None) if ran is not None else None
    found = [
        strings.number(node.name),
        strings.number(node.label or words.operation(node)),
        strings.number(node.module),
        0 if ran is None else ran.index + 1,
    ]
    if record is None:
        return found
    found += [number(record.norm), record.numel]
    return found if record.finite else [*found, record.nans, record.infs]


def _view(view: View, strings: _Strings, partly: str) -> Object:
    drawing = view.drawing
    found: Object = {
        "label": view.label,
        "note": words.clean(view.note, SAID),
        "folded": [*(words.clean(line, SAID) for line in drawing.folded), *([partly] if partly else [])],
        "circuit": drawing.circuit,
        "marks": list(view.marks),
        "shapes": [_shape(shape, strings) for shape in drawing.shapes],
        "wires": _wires(drawing),
    }
    if view.picture is not None:
        return {**found, "box": _places(view.picture.box)}
    again = [place for place, wire in enumerate(drawing.wires) if wire.again]
    return {**found, "again": again, "rooms": _rooms(view, strings), "opened": sorted(view.opened)}


def _rooms(view: View, strings: _Strings) -> list[Object]:
    """Every module: name, path, the one around it, its box, its things and doors with their places."""
    assert view.nest is not None
    found = []
    for module, room in zip(view.nest.modules, view.rooms, strict=True):
        doors = [
            [*_places(place), int(door.out), *door.things]
            for door, place in zip(module.doors, room.doors, strict=True)
        ]
        things = [[thing, *_places(room.things[thing])] for thing in module.things]
        path = strings.number(".".join(module.face.module))
        name = strings.number(module.name)
        box = _places(room.picture.box)
        found.append({"n": name, "p": path, "u": module.parent, "b": box, "t": things, "d": doors})
    return found


def _places(numbers: Iterable[float]) -> list[float]:
    return [
        int(short) if short == int(short) else short for short in (round(number, 1) for number in numbers)
    ]


def _shape(shape: Shape, strings: _Strings) -> Object | int:
    """A plain node is its number; anything else says what it stands for."""
    if shape.members == (int(shape.key[1:]) if shape.key[1:].isdigit() else -1,) and not (
        shape.inside or shape.hidden
    ):
        return shape.members[0]
    return _full(
        {
            "m": list(shape.members),
            "i": list(shape.inside),
            "h": list(shape.hidden),
            "k": shape.kind if shape.kind in ("module", "fold") else "",
            "l": strings.number(shape.label),
            "p": strings.number(".".join(shape.module)),
            "t": shape.times if shape.times > 1 else 0,
        }
    )


def _wires(drawing: Drawing) -> list[list[Any]]:
    return [[wire.source, wire.target, *wire.edges] for wire in drawing.wires]


def _node(report: Report, node: Node, strings: _Strings, signed: bool) -> Object:
    ran = report.gradients[node.id] if node.id < len(report.gradients) else None
    forward = report.forward.get(node.id)
    return _full(
        {
            "n": strings.number(node.name),
            "l": strings.number(node.label or words.operation(node)),
            "a": [strings.number(name) for name in node.names if name != node.label],
            "k": "" if node.kind == "op" else node.kind,
            "r": node.role,
            "m": strings.number(node.module),
            "c": node.module_call,
            "s": _source(node.source, strings),
            "o": [_spec(spec, strings) for spec in node.outputs],
            "f": {words.clean(key, 60): strings.number(text, SAID) for key, text in node.formula.items()},
            "w": strings.number(node.operation),
            "y": strings.number(signs.sign_of(report, node) if signed and node.kind == "op" else ""),
            "v": [_saved(saved, strings) for saved in node.saved],
            "q": node.sequence_nr,
            "h": [words.clean(hook, NAME) for hook in node.hooks],
            "e": words.clean(node.note, SAID),
            "g": None
            if ran is None
            else [
                _record(record, _at(node.outputs, slot), strings) for slot, record in enumerate(ran.received)
            ],
            "t": None if ran is None else finite(float(f"{ran.seconds:.3g}")),
            "i": None if ran is None else ran.index + 1,
            "u": 0 if ran is None else ran.unread,
            "x": None if forward is None else [numbers(values) for values in forward],
            "d": _verdict(report.verdict(node.id), strings),
        }
    )


def _full(item: Object) -> Object:
    """`item` without what says nothing; the page takes 0, "" or nothing for what is missing."""
    return {key: value for key, value in item.items() if value not in (None, "", [], {}, 0)}


def _sent(report: Report, index: int, told: bool) -> Object | int:
    """What an edge carried; 0 where that was not recorded, 1 where it is what its end received.

    Of an edge to a node that is not `told`, a gradient that differs from the total is left out.
    """
    record = report.edge_gradients[index] if index < len(report.edge_gradients) else None
    edge = report.graph.edges[index]
    total = report.gradient(edge.target, edge.target_slot)
    if record is None:
        alone = len(report.graph.incoming[edge.target]) == 1
        return 1 if total is not None and alone else 0
    return 1 if record == total else _plain_record(record) if told else 0


def _at(specs: Sequence[TensorSpec | None], slot: int) -> TensorSpec | None:
    return specs[slot] if slot < len(specs) else None


def _record(record: GradientRecord | None, spec: TensorSpec | None, strings: _Strings) -> Object | None:
    """A gradient; its shape and dtype only where they are not those of the output."""
    if record is None:
        return None
    found = _plain_record(record)
    if spec is None or (spec.shape, spec.dtype) != (record.shape, record.dtype):
        found |= {"s": list(record.shape), "d": strings.number(record.dtype)}
    return found


def _plain_record(record: GradientRecord) -> Object:
    """Norm, number of elements, and what is unusual about them."""
    found: Object = {"n": number(record.norm), "c": record.numel}
    if record.zero:
        found["z"] = 1
    if not record.finite:
        found["x"] = [record.nans, record.infs]
    if record.values is not None:
        found["v"] = numbers(record.values)
    return found


def _spec(spec: TensorSpec | None, strings: _Strings) -> list[Any] | None:
    if spec is None:
        return None
    return [list(spec.shape), strings.number(spec.dtype), strings.number(spec.device)]


def _saved(saved: Saved, strings: _Strings) -> Object:
    return _full(
        {
            "n": strings.number(saved.name),
            "s": _spec(saved.spec, strings),
            "b": saved.bytes or None,
            "t": words.clean(saved.text, NAME),
            "l": None if saved.leaf is None else saved.leaf + 1,
            "p": words.clean(saved.problem, NAME),
        }
    )


def _verdict(verdict: Verdict | None, strings: _Strings) -> list[Any] | None:
    if verdict is None:
        return None
    return [
        strings.number(verdict.status),
        strings.number(verdict.reason, SAID),
        number(verdict.ratio),
        verdict.elements,
        verdict.of,
    ]


def _finding(finding: Finding, strings: _Strings) -> Object:
    return {
        "code": words.clean(finding.code, 80),
        "severity": finding.severity,
        "message": words.clean(finding.message, SAID),
        "advice": words.clean(finding.advice, SAID),
        "node": finding.node,
        "nodes": list(finding.nodes[:500]),
        "where": _source(finding.where, strings),
    }


def _source(source: Source | None, strings: _Strings) -> list[int] | None:
    if source is None:
        return None
    return [strings.number(source.file, 300), source.line, strings.number(source.function)]
