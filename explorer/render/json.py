"""Reports as JSON, by the contract; `loads` reads them back.

Numbers that are not finite are the strings "nan", "inf" and "-inf", complex ones ``[re, im]``, so that
any JSON parser reads the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from math import hypot, isfinite
from typing import Any

from explorer.costs import ModuleCost, costs
from explorer.derivatives import Local, local_derivatives
from explorer.graph import Edge, Node, Saved, Source, TensorSpec
from explorer.render.collection import uncollected
from explorer.render.fields import Object
from explorer.render.reading import VERSION, loads
from explorer.report import (
    Element,
    Finding,
    GradientRecord,
    NodeGradients,
    Number,
    Quotients,
    Report,
    Session,
    Shares,
)

LARGE = 20_000
"""A graph of more nodes is written without local derivatives."""

__all__ = ["VERSION", "dumps", "loads"]


@uncollected
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
        "rank": session.rank,
        "ranks": session.ranks,
        "reports": [_report(report) for report in session.reports],
    }
    return json.dumps(document, ensure_ascii=True, allow_nan=False, separators=(",", ":")) + "\n"


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
        "averaged": {str(node): _number(norm) for node, norm in report.averaged.items()},
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
            "consistency": None
            if check.consistency is None
            else {"nodes": check.consistency.nodes, "compared": check.consistency.compared},
        },
        "findings": [_finding(finding) for finding in report.findings],
        "modules": [_cost(cost) for cost in costs(report)],
        "shares": _shares(report.shares),
        "quotients": _quotients(report.quotients),
    }


def _shares(shares: Shares | None) -> Object | None:
    """What each path to one node brings; null where that was not asked for."""
    if shares is None:
        return None
    listed = [
        {"edges": list(one.edges), "norm": _number(one.norm), "share": _number(one.share)}
        for one in shares.listed
    ]
    found = {"target": shares.target, "listed": listed, "norm": _number(shares.norm)}
    return {**found, "complete": shares.complete, "problem": shares.problem}


def _quotients(quotients: Quotients | None) -> Object | None:
    """The gradients four ways; null where that was not asked for."""
    if quotients is None:
        return None
    rows = [
        {
            "name": row.name,
            "by_hand": _number(row.by_hand),
            "pytorch": _number(row.pytorch),
            "engine": _number(row.engine),
            "numeric": _number(row.numeric),
        }
        for row in quotients.rows
    ]
    return {"rows": rows, "notes": list(quotients.notes), "problem": quotients.problem}


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
        "unread": 0 if ran is None else ran.unread,
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
        "element": _element(report.elements.get(index)),
    }


def _element(element: Element | None) -> Object | None:
    """One element of what the edge carried, worked out."""
    if element is None:
        return None
    found = {"place": list(element.place), "text": element.text, "value": _number(element.value)}
    return {**found, "computed": element.computed}


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
