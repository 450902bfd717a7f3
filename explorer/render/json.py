"""Reports as JSON, by the contract, and back.

Numbers that are not finite are the strings "nan", "inf" and "-inf", complex ones ``[re, im]``, so that
any JSON parser reads the file.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from math import hypot, isfinite
from typing import Any, TypeVar

from explorer.costs import ModuleCost, costs
from explorer.derivatives import Local, local_derivatives
from explorer.errors import UsageError
from explorer.graph import Edge, Graph, Node, Saved, Source, TensorSpec
from explorer.report import (
    STATUSES,
    CheckSummary,
    Finding,
    GradientRecord,
    NodeGradients,
    Number,
    Report,
    Session,
    Verdict,
)

VERSION = 1
LARGE = 20_000
"""A graph of more nodes is written without local derivatives."""
Object = dict[str, Any]
Thing = TypeVar("Thing")


def dumps(found: Session | Report) -> str:
    """A session, or one report, as JSON text that ends with a newline."""
    session = (
        found if isinstance(found, Session) else Session((found,), found.script, found.torch, found.call)
    )
    document = {
        "version": VERSION,
        "torch": session.torch,
        "script": session.script,
        "calls": session.calls,
        "reports": [_report(report) for report in session.reports],
    }
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


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
            reports, _text(document, "script"), _text(document, "torch"), _integer(document, "calls")
        )
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, OverflowError) as error:
        said = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise UsageError(f"not a report of the explorer: {said}") from error


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


# ---------------------------------------------------------------- writing


def _report(report: Report) -> Object:
    graph, check = report.graph, report.check
    local = local_derivatives(report) if len(graph.nodes) <= LARGE else {}
    return {
        "call": report.call,
        "where": _source(report.where),
        "root": report.root_name,
        "roots": [list(root) for root in graph.roots],
        "arity": list(graph.arity),
        "seconds": _number(report.seconds),
        "error": report.error,
        "failed": report.failed,
        "problems": list(report.problems),
        "looked_for": list(report.looked_for),
        "script": report.script,
        "torch": report.torch,
        "recorded": {
            "gradients": bool(report.gradients),
            "edges": bool(report.edge_gradients),
            "verdicts": bool(report.verdicts),
        },
        "nodes": [_node(report, node) for node in graph.nodes],
        "edges": [_edge(report, index, edge, local) for index, edge in enumerate(graph.edges)],
        "check": {
            "nodes": check.nodes,
            "checked": check.checked,
            "junctions": check.junctions,
            "statuses": dict(check.statuses),
            "end_to_end": check.end_to_end,
            "elements": check.elements,
            "of": check.of,
            "wrong_share": _number(check.wrong_share),
            "seconds": _number(check.seconds),
        },
        "findings": [_finding(finding) for finding in report.findings],
        "modules": [_cost(cost) for cost in costs(report)],
    }


def _cost(cost: ModuleCost) -> Object:
    return {
        "module": cost.module,
        "nodes": cost.nodes,
        "saved_bytes": cost.saved,
        "parameter_bytes": cost.parameters,
        "seconds": _number(cost.seconds),
        "gradient_norm": _number(cost.gradient),
    }


def _node(report: Report, node: Node) -> Object:
    ran = report.gradients[node.id] if node.id < len(report.gradients) else None
    verdict = report.verdict(node.id)
    forward = report.forward.get(node.id)
    return {
        "id": node.id,
        "name": node.name,
        "kind": node.kind,
        "label": node.label,
        "names": list(node.names),
        "role": node.role,
        "module": node.module,
        "module_call": node.module_call,
        "source": _source(node.source),
        "operation": node.operation,
        "outputs": [_spec(spec) for spec in node.outputs],
        "formula": dict(node.formula),
        "saved": [_saved(saved) for saved in node.saved],
        "sequence_nr": node.sequence_nr,
        "hooks": list(node.hooks),
        "note": node.note,
        "forward": None if forward is None else [_numbers(values) for values in forward],
        "gradient": _total(ran),
        "gradients": None if ran is None else [_gradient(record) for record in ran.received],
        "seconds": None if ran is None else _number(ran.seconds),
        "index": None if ran is None else ran.index,
        "verdict": None
        if verdict is None
        else {
            "status": verdict.status,
            "reason": verdict.reason,
            "ratio": _number(verdict.ratio),
            "elements": verdict.elements,
            "of": verdict.of,
        },
    }


def _edge(report: Report, index: int, edge: Edge, local: Mapping[tuple[int, int], Local]) -> Object:
    record = report.edge_gradients[index] if index < len(report.edge_gradients) else None
    return {
        "source": edge.source,
        "source_slot": edge.source_slot,
        "target": edge.target,
        "target_slot": edge.target_slot,
        "gradient": _gradient(record),
        "local": _local(local.get((index, 0))),
    }


def _local(local: Local | None) -> Object | None:
    """The local derivative behind an edge between single numbers; None between tensors or where unknown.

    It follows from the rest of the report, so that reading a report passes it over.
    """
    if local is None or local.value is None:
        return None
    found = {"value": _number(local.value), "formula": local.formula}
    return {**found, "basis": local.basis, "note": local.note}


def _total(ran: NodeGradients | None) -> Object | None:
    """The gradient over all outputs together; its values where there is a single output."""
    records = [record for record in ran.received if record is not None] if ran is not None else []
    if not records:
        return None
    if ran is not None and len(ran.received) == 1:
        return _gradient(records[0])
    return {
        "norm": _number(hypot(*(record.norm for record in records))),
        "finite": all(record.finite for record in records),
        "zero": all(record.zero for record in records),
        "values": None,
        "nans": sum(record.nans for record in records),
        "infs": sum(record.infs for record in records),
        "numel": sum(record.numel for record in records),
    }


def _gradient(record: GradientRecord | None) -> Object | None:
    if record is None:
        return None
    return {
        "norm": _number(record.norm),
        "finite": record.finite,
        "zero": record.zero,
        "values": _numbers(record.values),
        "shape": list(record.shape),
        "dtype": record.dtype,
        "nans": record.nans,
        "infs": record.infs,
        "numel": record.numel,
    }


def _spec(spec: TensorSpec | None) -> Object | None:
    if spec is None:
        return None
    return {"shape": list(spec.shape), "dtype": spec.dtype, "device": spec.device, "layout": spec.layout}


def _saved(saved: Saved) -> Object:
    return {
        "name": saved.name,
        "shape": None if saved.spec is None else list(saved.spec.shape),
        "dtype": None if saved.spec is None else saved.spec.dtype,
        "device": None if saved.spec is None else saved.spec.device,
        "layout": None if saved.spec is None else saved.spec.layout,
        "bytes": saved.bytes,
        "text": saved.text,
        "storage": saved.storage,
        "leaf": saved.leaf,
        "owner": saved.owner,
        "problem": saved.problem,
        "values": _numbers(saved.values),
    }


def _finding(finding: Finding) -> Object:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "message": finding.message,
        "advice": finding.advice,
        "node": finding.node,
        "nodes": list(finding.nodes),
        "where": _source(finding.where),
    }


def _source(source: Source | None) -> Object | None:
    if source is None:
        return None
    return {"file": source.file, "line": source.line, "code": source.code, "function": source.function}


def _numbers(values: Sequence[Number] | None) -> list[Any] | None:
    return None if values is None else [_number(value) for value in values]


def _number(value: Number | None) -> Any:
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, complex):
        return [_number(value.real), _number(value.imag)]
    if isfinite(value):
        return value
    return "nan" if value != value else "inf" if value > 0 else "-inf"


# ---------------------------------------------------------------- reading


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
