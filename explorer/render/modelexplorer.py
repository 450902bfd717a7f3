"""The whole graph as Model Explorer opens it: a graph collection, and node data to colour it by.

The formats are those of Google's ``ai-edge-model-explorer`` 0.1.34 (``graph_builder.py`` and
``node_data_builder.py``). Edges run as the forward pass does, from the tensor's producer to its consumer.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from math import isfinite, log10
from typing import Any

from explorer.graph import Node, TensorSpec
from explorer.render import theme, words
from explorer.render.marks import findings_by_node, mark_of_nodes, node_rms, scale
from explorer.report import Finding, Report, Session

Object = dict[str, Any]
LONGEST = 1000
"""Characters of one attribute."""


def collection(session: Session) -> str:
    """A graph collection as JSON text: one graph a report, every node and edge, unfolded."""
    name = words.clean(session.script, 200) or "autograd"
    graphs = [_graph(report, place) for place, report in enumerate(session.reports)]
    return json.dumps({"label": name, "graphs": graphs}, ensure_ascii=False, allow_nan=False)


def node_data(session: Session) -> str:
    """The gradient of each node as JSON text, by graph: log10 of its RMS, in the colours of the drawings.

    A gradient that is exactly zero, not finite, or missing has no number.
    """
    found = {_name(report, place): _results(report) for place, report in enumerate(session.reports)}
    return json.dumps(found, ensure_ascii=False, allow_nan=False)


def _name(report: Report, place: int) -> str:
    return f"{place + 1} {words.roots(report)} call {report.call}"


def _graph(report: Report, place: int) -> Object:
    findings = findings_by_node(report)
    incoming: dict[int, list[Object]] = {}
    for edge in report.graph.edges:
        incoming.setdefault(edge.source, []).append(
            {
                "sourceNodeId": f"n{edge.target}",
                "sourceNodeOutputId": str(edge.target_slot),
                "targetNodeInputId": str(edge.source_slot),
            }
        )
    return {
        "id": _name(report, place),
        "nodes": [_node(report, node, incoming.get(node.id, []), findings) for node in report.graph.nodes],
        "groupNodeAttributes": {"": dict(_about(report))},
    }


def _about(report: Report) -> Iterable[tuple[str, str]]:
    yield "check", words.check_line(report.check)
    for number, finding in enumerate(report.findings, 1):
        message = f"{finding.severity}: {finding.message}"
        yield f"finding {number}: {words.clean(finding.code, 60)}", words.clean(message, LONGEST)


def _node(
    report: Report, node: Node, incoming: list[Object], findings: Mapping[int, tuple[Finding, ...]]
) -> Object:
    module = "/".join(words.clean(part, 60).replace("/", "∕") for part in node.module.split(".") if part)
    attributes = {key: said for key, said in _attributes(report, node, findings) if said}
    return {
        "id": f"n{node.id}",
        "label": words.label(node),
        "namespace": module,
        "attrs": [{"key": key, "value": words.clean(said, LONGEST)} for key, said in attributes.items()],
        "incomingEdges": incoming,
        "outputsMetadata": [
            {"id": str(slot), "attrs": _tensor(spec)}
            for slot, spec in enumerate(node.outputs)
            if spec is not None
        ],
    }


def _attributes(
    report: Report, node: Node, findings: Mapping[int, tuple[Finding, ...]]
) -> Iterable[tuple[str, str]]:
    verdict = report.verdict(node.id)
    yield "name", node.name
    yield "kind", node.kind
    yield "gradient RMS", mark_of_nodes(report, (node.id,), dict(findings)).words()
    yield "check", f"{verdict.status} {verdict.reason}".strip() if verdict is not None else ""
    yield from ((f"formula: {key}", said) for key, said in node.formula.items())
    if node.source is not None:
        yield "source", f"{node.source.file}:{node.source.line}  {node.source.code}"
    yield "hooks", ", ".join(node.hooks)
    yield "note", node.note
    yield from ((f"finding: {found.code}", found.message) for found in findings.get(node.id, ()))


def _tensor(spec: TensorSpec) -> list[Object]:
    said = {"shape": words.shape(spec.shape), "dtype": spec.dtype, "device": spec.device}
    return [{"key": key, "value": words.clean(text, 200)} for key, text in said.items()]


def _results(report: Report) -> Object:
    spread, results = scale(report), {}
    for node in report.graph.nodes:
        rms = node_rms(report, node.id)
        if rms is None or not isfinite(rms) or rms <= 0:
            continue
        level = spread.level(rms)
        results[f"n{node.id}"] = {
            "value": round(log10(rms), 4),
            "bgColor": theme.MAGNITUDE[level],
            "textColor": theme.MAGNITUDE_INK[level],
        }
    return {"name": "gradient RMS (log10)", "results": results}
