"""The whole graph as GraphML, for yEd, Gephi and networkx; edges run as the gradient does."""

from __future__ import annotations

from html import escape

from explorer.render import words
from explorer.render.marks import node_rms
from explorer.report import Report

_KEYS = (
    ("node", "label", "string"),
    ("node", "name", "string"),
    ("node", "kind", "string"),
    ("node", "module", "string"),
    ("node", "shape", "string"),
    ("node", "gradient_rms", "double"),
    ("node", "verdict", "string"),
    ("edge", "source_slot", "int"),
    ("edge", "target_slot", "int"),
    ("edge", "edge_rms", "double"),
)


def source(report: Report) -> str:
    """GraphML with every node and edge, unfolded."""
    graph = report.graph
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">',
    ]
    for owner, name, kind in _KEYS:
        lines.append(f'  <key id="{name}" for="{owner}" attr.name="{name}" attr.type="{kind}"/>')
    lines.append('  <graph id="autograd" edgedefault="directed">')
    for node in graph.nodes:
        verdict, rms = report.verdict(node.id), node_rms(report, node.id)
        spec = node.outputs[0] if node.outputs else None
        lines.append(f'    <node id="n{node.id}">')
        lines += _data("label", node.label or words.operation(node))
        lines += _data("name", node.name) + _data("kind", node.kind) + _data("module", node.module)
        lines += _data("shape", "x".join(map(str, spec.shape)) if spec is not None else "")
        lines += _data("gradient_rms", _double(rms)) + _data("verdict", verdict.status if verdict else "")
        lines.append("    </node>")
    for index, edge in enumerate(graph.edges):
        record = report.edge_gradients[index] if index < len(report.edge_gradients) else None
        lines.append(f'    <edge id="e{index}" source="n{edge.source}" target="n{edge.target}">')
        lines += _data("source_slot", str(edge.source_slot)) + _data("target_slot", str(edge.target_slot))
        lines += _data("edge_rms", _double(record.rms if record is not None else None))
        lines.append("    </edge>")
    return "\n".join([*lines, "  </graph>", "</graphml>"]) + "\n"


def _data(key: str, content: str) -> list[str]:
    return [f'      <data key="{key}">{escape(words.clean(content, 1000))}</data>'] if content else []


def _double(number: float | None) -> str:
    """xs:double spells its special values NaN, INF and -INF."""
    if number is None:
        return ""
    return {"nan": "NaN", "inf": "INF", "-inf": "-INF"}.get(str(number), repr(number))
