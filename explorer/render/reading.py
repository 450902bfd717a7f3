"""Reads a session back from the JSON that `explorer.render.json` wrote.

The text may be truncated or hostile: whatever is wrong with it ends in a `UsageError` that says what.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from explorer.errors import UsageError
from explorer.graph import Edge, Graph, Node, Saved, Source, TensorSpec
from explorer.render import fields
from explorer.render.fields import FieldError, Object
from explorer.report import (
    STATUSES,
    CheckSummary,
    Consistency,
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
        raise UsageError(f"not a JSON document of the explorer: {str(error)[:200]}") from error
    if not isinstance(document, dict) or "reports" not in document:
        raise UsageError('not a report of the explorer: there is no "reports" in it')
    if document.get("version") != VERSION:
        raise UsageError(
            f"version {document.get('version')!r:.40} of the report format; this reads version {VERSION}"
        )
    try:
        reports = tuple(_read_report(item) for item in fields.listed(document, "reports"))
        return Session(
            reports,
            fields.text(document, "script"),
            fields.text(document, "torch"),
            fields.integer(document, "calls"),
            rank=fields.optional(document.get("rank"), fields.whole),
            ranks=fields.whole(document.get("ranks", 1)),
        )
    except FieldError as error:
        raise UsageError(f"not a report of the explorer: {error}") from error
    except KeyError as error:
        raise UsageError(f"not a report of the explorer: {str(error)[:60]} is missing") from error
    except (TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        raise UsageError("not a report of the explorer: a value is of the wrong kind") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _read_report(item: Object) -> Report:
    nodes = tuple(_read_node(node, place) for place, node in enumerate(fields.listed(item, "nodes")))
    edges = tuple(_read_edge(edge, len(nodes)) for edge in fields.listed(item, "edges"))
    roots = tuple(
        (fields.place(node, len(nodes)), fields.whole(slot)) for node, slot in fields.listed(item, "roots")
    )
    recorded = fields.mapping(item, "recorded")
    graph = Graph(nodes, edges, roots, tuple(map(fields.whole, fields.listed(item, "arity"))))
    _check_graph(graph)
    return Report(
        graph=graph,
        gradients=tuple(map(_read_ran, item["nodes"])) if recorded["gradients"] else (),
        edge_gradients=tuple(fields.optional(edge["gradient"], _read_gradient) for edge in item["edges"])
        if recorded["edges"]
        else (),
        forward={
            place: tuple(fields.optional(values, _read_numbers) for values in node["forward"])
            for place, node in enumerate(item["nodes"])
            if node["forward"] is not None
        },
        verdicts=tuple(map(_read_verdict, item["nodes"])) if recorded["verdicts"] else (),
        check=_read_check(item["check"]),
        findings=tuple(_read_finding(finding, len(nodes)) for finding in fields.listed(item, "findings")),
        call=fields.integer(item, "call"),
        where=fields.optional(item["where"], _read_source),
        root_name=fields.text(item, "root"),
        seconds=fields.optional(item["seconds"], fields.real),
        error=fields.text(item, "error"),
        failed=fields.optional(item["failed"], lambda node: fields.place(node, len(nodes))),
        problems=fields.texts(item, "problems"),
        looked_for=fields.texts(item, "looked_for"),
        script=fields.text(item, "script"),
        torch=fields.text(item, "torch"),
        averaged={
            fields.place(int(node), len(nodes)): fields.real(norm)
            for node, norm in item.get("averaged", {}).items()
        },
        elements={
            place: _read_element(edge["element"])
            for place, edge in enumerate(item["edges"])
            if edge.get("element") is not None
        },
        shares=fields.optional(item.get("shares"), _read_shares),
        quotients=fields.optional(item.get("quotients"), _read_quotients),
    )


def _check_graph(graph: Graph) -> None:
    """Refuse what no graph of torch is: one that goes in circles, or names leaves that are not there."""
    if len(graph.order) != len(graph.nodes):
        raise FieldError("the edges go in a circle")
    for node in graph.nodes:
        for saved in node.saved:
            for leaf in (saved.leaf, saved.owner):
                fields.optional(leaf, lambda number: fields.place(number, len(graph.nodes)))


def _read_shares(item: Object) -> Shares:
    listed = (
        Share(fields.sizes(one["edges"]), fields.real(one["norm"]), fields.real(one["share"]))
        for one in fields.listed(item, "listed")
    )
    norm, complete = fields.optional(item["norm"], fields.real), bool(item["complete"])
    return Shares(fields.integer(item, "target"), tuple(listed), norm, complete, fields.text(item, "problem"))


def _read_quotients(item: Object) -> Quotients:
    ways = ("by_hand", "pytorch", "engine", "numeric")
    rows = (
        Row(fields.text(one, "name"), *(fields.optional(one[way], fields.real) for way in ways))
        for one in fields.listed(item, "rows")
    )
    return Quotients(tuple(rows), fields.texts(item, "notes"), fields.text(item, "problem"))


def _read_element(item: Object) -> Element:
    return Element(
        fields.sizes(item["place"]),
        fields.text(item, "text"),
        fields.real(item["value"]),
        fields.text(item, "computed"),
    )


def _read_node(item: Object, place: int) -> Node:
    if item["id"] != place:
        raise FieldError(f"node {place} has the id {item['id']!r:.40}")
    return Node(
        id=place,
        name=fields.text(item, "name"),
        kind=fields.one_of(item, "kind", ("op", "leaf", "custom", "opaque")),
        label=fields.text(item, "label"),
        names=fields.texts(item, "names"),
        role=fields.one_of(item, "role", ("parameter", "input", "root", "")),
        module=fields.text(item, "module"),
        module_call=fields.amount(item, "module_call"),
        source=fields.optional(item["source"], _read_source),
        operation=fields.text(item, "operation"),
        outputs=tuple(fields.optional(spec, _read_spec) for spec in fields.listed(item, "outputs")),
        saved=tuple(map(_read_saved, fields.listed(item, "saved"))),
        formula={str(key): str(value) for key, value in fields.mapping(item, "formula").items()},
        sequence_nr=fields.optional(item["sequence_nr"], fields.whole),
        hooks=fields.texts(item, "hooks"),
        note=fields.text(item, "note"),
    )


def _read_edge(item: Object, nodes: int) -> Edge:
    source, target = fields.place(item["source"], nodes), fields.place(item["target"], nodes)
    return Edge(source, fields.amount(item, "source_slot"), target, fields.amount(item, "target_slot"))


def _read_ran(item: Object) -> NodeGradients | None:
    if item["gradients"] is None:
        return None
    received = tuple(fields.optional(record, _read_gradient) for record in fields.listed(item, "gradients"))
    unread = fields.whole(item.get("unread", 0))
    return NodeGradients(received, fields.real(item["seconds"]), fields.integer(item, "index"), unread)


def _read_gradient(item: Object) -> GradientRecord:
    return GradientRecord(
        shape=fields.sizes(item["shape"]),
        dtype=fields.text(item, "dtype"),
        norm=fields.real(item["norm"]),
        finite=bool(item["finite"]),
        zero=bool(item["zero"]),
        nans=fields.amount(item, "nans"),
        infs=fields.amount(item, "infs"),
        numel=fields.amount(item, "numel"),
        values=fields.optional(item["values"], _read_numbers),
    )


def _read_verdict(item: Object) -> Verdict:
    said = fields.mapping(item, "verdict")
    return Verdict(
        node=fields.integer(item, "id"),
        status=fields.one_of(said, "status", STATUSES),
        reason=fields.text(said, "reason"),
        ratio=fields.optional(said["ratio"], fields.real),
        elements=fields.integer(said, "elements"),
        of=fields.integer(said, "of"),
    )


def _read_check(item: Object) -> CheckSummary:
    return CheckSummary(
        nodes=fields.integer(item, "nodes"),
        checked=fields.integer(item, "checked"),
        junctions=fields.integer(item, "junctions"),
        statuses={
            fields.one_of({"status": key}, "status", STATUSES): fields.whole(n)
            for key, n in item["statuses"].items()
        },
        end_to_end=fields.one_of(item, "end_to_end", ("full", "induction", "off")),
        elements=fields.integer(item, "elements"),
        of=fields.integer(item, "of"),
        wrong_share=fields.optional(item["wrong_share"], fields.real),
        seconds=fields.real(item["seconds"]),
        consistency=fields.optional(item.get("consistency"), _read_consistency),  # absent from older files
    )


def _read_consistency(item: Object) -> Consistency:
    return Consistency(fields.amount(item, "nodes"), fields.amount(item, "compared"))


def _read_finding(item: Object, nodes: int) -> Finding:
    return Finding(
        code=fields.text(item, "code"),
        severity=fields.one_of(item, "severity", ("error", "warning", "info")),
        message=fields.text(item, "message"),
        advice=fields.text(item, "advice"),
        node=fields.optional(item["node"], lambda node: fields.place(node, nodes)),
        where=fields.optional(item["where"], _read_source),
        nodes=tuple(fields.place(node, nodes) for node in fields.listed(item, "nodes")),
    )


def _read_saved(item: Object) -> Saved:
    spec = None if item["shape"] is None else _read_spec(item)
    return Saved(
        name=fields.text(item, "name"),
        spec=spec,
        bytes=fields.amount(item, "bytes"),
        text=fields.text(item, "text"),
        storage=fields.optional(item["storage"], fields.whole),
        leaf=fields.optional(item["leaf"], fields.whole),
        owner=fields.optional(item.get("owner"), fields.whole),
        problem=fields.text(item, "problem"),
        values=None if item.get("values") is None else _read_numbers(fields.listed(item, "values")),
    )


def _read_spec(item: Object) -> TensorSpec:
    return TensorSpec(
        fields.sizes(item["shape"]),
        fields.text(item, "dtype"),
        fields.text(item, "device"),
        fields.text(item, "layout"),
    )


def _read_source(item: Object) -> Source:
    return Source(
        fields.text(item, "file"),
        fields.integer(item, "line"),
        fields.text(item, "code"),
        fields.text(item, "function"),
    )


def _read_numbers(items: Sequence[Any]) -> tuple[Number, ...]:
    if not isinstance(items, list):
        raise FieldError("values are no list")
    return tuple(
        complex(*map(fields.real, item)) if isinstance(item, list) else fields.real(item) for item in items
    )
