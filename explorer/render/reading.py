"""Reads a session back from the JSON that `explorer.render.json` wrote.

The text may be truncated or hostile: whatever is wrong with it ends in a `UsageError` that says what.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from explorer.errors import UsageError
from explorer.graph import Edge, Graph, Node, Saved, Source, TensorSpec
from explorer.report import (
    STATUSES,
    CheckSummary,
    Element,
    Finding,
    GradientRecord,
    NodeGradients,
    Number,
    Quotients,
    Report,
    Row,
    Session,
    Share,
    Shares,
    Verdict,
)

VERSION = 1
"""The version of the format, the only one there is."""
Object = dict[str, Any]
Thing = TypeVar("Thing")


def loads(text: str) -> Session:
    """The session that `dumps` wrote.

    Raises:
        UsageError: the text is no JSON, or not of this format; the message says where it stops.
    """
    try:
        document = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        raise UsageError(
            f"not a whole JSON document: {error.msg} at line {error.lineno}, column {error.colno}; "
            "was the file cut short?"
        ) from error
    except (RecursionError, ValueError) as error:
        raise UsageError(f"not a JSON document of the explorer: {error}") from error
    if not isinstance(document, dict) or "reports" not in document:
        raise UsageError('not a report of the explorer: there is no "reports" in it')
    if document.get("version") != VERSION:
        raise UsageError(
            f"version {document.get('version')!r} of the report format; this reads version {VERSION}"
        )
    try:
        reports = tuple(_read_report(item) for item in _list(document, "reports"))
        return Session(
            reports,
            _text(document, "script"),
            _text(document, "torch"),
            _integer(document, "calls"),
            rank=_optional(document.get("rank"), int),
            ranks=int(document.get("ranks", 1)),
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"not a report of the explorer: {said}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _read_report(item: Object) -> Report:
    nodes = tuple(_read_node(node, place) for place, node in enumerate(_list(item, "nodes")))
    edges = tuple(_read_edge(edge, len(nodes)) for edge in _list(item, "edges"))
    roots = tuple((_place(node, len(nodes)), int(slot)) for node, slot in _list(item, "roots"))
    recorded = item["recorded"]
    return Report(
        graph=Graph(nodes, edges, roots, tuple(map(int, _list(item, "arity")))),
        gradients=tuple(map(_read_ran, item["nodes"])) if recorded["gradients"] else (),
        edge_gradients=tuple(_optional(edge["gradient"], _read_gradient) for edge in item["edges"])
        if recorded["edges"]
        else (),
        forward={
            place: tuple(_optional(values, _read_numbers) for values in node["forward"])
            for place, node in enumerate(item["nodes"])
            if node["forward"] is not None
        },
        verdicts=tuple(map(_read_verdict, item["nodes"])) if recorded["verdicts"] else (),
        check=_read_check(item["check"]),
        findings=tuple(_read_finding(finding, len(nodes)) for finding in _list(item, "findings")),
        call=_integer(item, "call"),
        where=_optional(item["where"], _read_source),
        root_name=_text(item, "root"),
        seconds=_optional(item["seconds"], _read_real),
        error=_text(item, "error"),
        failed=_optional(item["failed"], lambda node: _place(node, len(nodes))),
        problems=_texts(item, "problems"),
        looked_for=_texts(item, "looked_for"),
        script=_text(item, "script"),
        torch=_text(item, "torch"),
        averaged={
            _place(int(node), len(nodes)): _read_real(norm) for node, norm in item.get("averaged", {}).items()
        },
        elements={
            place: _read_element(edge["element"])
            for place, edge in enumerate(item["edges"])
            if edge.get("element") is not None
        },
        shares=_optional(item.get("shares"), _read_shares),
        quotients=_optional(item.get("quotients"), _read_quotients),
    )


def _read_shares(item: Object) -> Shares:
    listed = (
        Share(_sizes(one["edges"]), _read_real(one["norm"]), _read_real(one["share"]))
        for one in _list(item, "listed")
    )
    norm, complete = _optional(item["norm"], _read_real), bool(item["complete"])
    return Shares(_integer(item, "target"), tuple(listed), norm, complete, _text(item, "problem"))


def _read_quotients(item: Object) -> Quotients:
    ways = ("by_hand", "pytorch", "engine", "numeric")
    rows = (
        Row(_text(one, "name"), *(_optional(one[way], _read_real) for way in ways))
        for one in _list(item, "rows")
    )
    return Quotients(tuple(rows), _texts(item, "notes"), _text(item, "problem"))


def _read_element(item: Object) -> Element:
    return Element(
        _sizes(item["place"]), _text(item, "text"), _read_real(item["value"]), _text(item, "computed")
    )


def _read_node(item: Object, place: int) -> Node:
    if item["id"] != place:
        raise ValueError(f"node {place} has the id {item['id']!r}")
    return Node(
        id=place,
        name=_text(item, "name"),
        kind=_one_of(item, "kind", ("op", "leaf", "custom", "opaque")),
        label=_text(item, "label"),
        names=_texts(item, "names"),
        role=_one_of(item, "role", ("parameter", "input", "root", "")),
        module=_text(item, "module"),
        module_call=_integer(item, "module_call"),
        source=_optional(item["source"], _read_source),
        operation=_text(item, "operation"),
        outputs=tuple(_optional(spec, _read_spec) for spec in _list(item, "outputs")),
        saved=tuple(map(_read_saved, _list(item, "saved"))),
        formula={str(key): str(value) for key, value in _object(item, "formula").items()},
        sequence_nr=_optional(item["sequence_nr"], int),
        hooks=_texts(item, "hooks"),
        note=_text(item, "note"),
    )


def _read_edge(item: Object, nodes: int) -> Edge:
    source, target = _place(item["source"], nodes), _place(item["target"], nodes)
    return Edge(source, _integer(item, "source_slot"), target, _integer(item, "target_slot"))


def _read_ran(item: Object) -> NodeGradients | None:
    if item["gradients"] is None:
        return None
    received = tuple(_optional(record, _read_gradient) for record in _list(item, "gradients"))
    return NodeGradients(received, _read_real(item["seconds"]), _integer(item, "index"))


def _read_gradient(item: Object) -> GradientRecord:
    return GradientRecord(
        shape=_sizes(item["shape"]),
        dtype=_text(item, "dtype"),
        norm=_read_real(item["norm"]),
        finite=bool(item["finite"]),
        zero=bool(item["zero"]),
        nans=_integer(item, "nans"),
        infs=_integer(item, "infs"),
        numel=_integer(item, "numel"),
        values=_optional(item["values"], _read_numbers),
    )


def _read_verdict(item: Object) -> Verdict:
    said = _object(item, "verdict")
    return Verdict(
        node=_integer(item, "id"),
        status=_one_of(said, "status", STATUSES),
        reason=_text(said, "reason"),
        ratio=_optional(said["ratio"], _read_real),
        elements=_integer(said, "elements"),
        of=_integer(said, "of"),
    )


def _read_check(item: Object) -> CheckSummary:
    return CheckSummary(
        nodes=_integer(item, "nodes"),
        checked=_integer(item, "checked"),
        junctions=_integer(item, "junctions"),
        statuses={
            _one_of({"status": key}, "status", STATUSES): int(n) for key, n in item["statuses"].items()
        },
        end_to_end=_one_of(item, "end_to_end", ("full", "induction", "off")),
        elements=_integer(item, "elements"),
        of=_integer(item, "of"),
        wrong_share=_optional(item["wrong_share"], _read_real),
        seconds=_read_real(item["seconds"]),
    )


def _read_finding(item: Object, nodes: int) -> Finding:
    return Finding(
        code=_text(item, "code"),
        severity=_one_of(item, "severity", ("error", "warning", "info")),
        message=_text(item, "message"),
        advice=_text(item, "advice"),
        node=_optional(item["node"], lambda node: _place(node, nodes)),
        where=_optional(item["where"], _read_source),
        nodes=tuple(_place(node, nodes) for node in _list(item, "nodes")),
    )


def _read_saved(item: Object) -> Saved:
    spec = None if item["shape"] is None else _read_spec(item)
    return Saved(
        name=_text(item, "name"),
        spec=spec,
        bytes=_integer(item, "bytes"),
        text=_text(item, "text"),
        storage=_optional(item["storage"], int),
        leaf=_optional(item["leaf"], int),
        owner=_optional(item.get("owner"), int),
        problem=_text(item, "problem"),
        values=None if item.get("values") is None else _read_numbers(_list(item, "values")),
    )


def _read_spec(item: Object) -> TensorSpec:
    return TensorSpec(
        _sizes(item["shape"]), _text(item, "dtype"), _text(item, "device"), _text(item, "layout")
    )


def _read_source(item: Object) -> Source:
    return Source(_text(item, "file"), _integer(item, "line"), _text(item, "code"), _text(item, "function"))


def _read_numbers(items: Sequence[Any]) -> tuple[Number, ...]:
    if not isinstance(items, list):
        raise TypeError("values are no list")
    return tuple(
        complex(*map(_read_real, item)) if isinstance(item, list) else _read_real(item) for item in items
    )


def _read_real(item: Any) -> float:
    if isinstance(item, bool) or not (isinstance(item, (int, float)) or item in ("nan", "inf", "-inf")):
        raise ValueError(f"{item!r:.40} is no number")
    return float(item)


def _optional(item: Any, read: Callable[[Any], Thing]) -> Thing | None:
    return None if item is None else read(item)


def _place(item: Any, nodes: int) -> int:
    if isinstance(item, bool) or not isinstance(item, int) or not 0 <= item < nodes:
        raise ValueError(f"there is no node {item!r:.40}; there are {nodes}")
    return item


def _sizes(item: Any) -> tuple[int, ...]:
    if not isinstance(item, list) or not all(isinstance(size, int) and size >= 0 for size in item):
        raise ValueError(f"{item!r:.40} is no shape")
    return tuple(item)


def _text(item: Mapping[str, Any], key: str) -> str:
    if not isinstance(item[key], str):
        raise TypeError(f'"{key}" is no text')
    return str(item[key])


def _texts(item: Mapping[str, Any], key: str) -> tuple[str, ...]:
    return tuple(_text({key: one}, key) for one in _list(item, key))


def _integer(item: Mapping[str, Any], key: str) -> int:
    if isinstance(item[key], bool) or not isinstance(item[key], int):
        raise TypeError(f'"{key}" is no whole number')
    return int(item[key])


def _list(item: Mapping[str, Any], key: str) -> list[Any]:
    if not isinstance(item[key], list):
        raise TypeError(f'"{key}" is no list')
    return list(item[key])


def _object(item: Mapping[str, Any], key: str) -> Object:
    if not isinstance(item[key], dict):
        raise TypeError(f'"{key}" is no object')
    return dict(item[key])


def _one_of(item: Mapping[str, Any], key: str, known: Sequence[Thing]) -> Thing:
    for one in known:
        if item[key] == one:
            return one
    raise ValueError(f'"{key}" is {item[key]!r:.40}, not one of {", ".join(map(str, known))}')
