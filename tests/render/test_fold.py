"""Level of detail: every node stays reachable, the worst finding shows, nothing is too large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from explorer.errors import UsageError
from explorer.render import fold
from explorer.render.drawing import Drawing, everything
from explorer.render.marks import findings_by_node, mark
from explorer.report import Finding, Report, Verdict
from tests.render import samples

SMALL_LSTM: Callable[[], Report] = lambda: samples.lstm(12, 3)  # noqa: E731  # one line a sample reads better
SAMPLES: tuple[Callable[[], Report], ...] = (
    samples.xyz,
    samples.block,
    samples.kinds,
    samples.resnet,
    lambda: samples.gpt(6),
    SMALL_LSTM,
    lambda: samples.loop(200),
    lambda: samples.loop(200, lines=False),
    lambda: samples.tangle(400),
)


def stands_for(drawing: Drawing) -> set[int]:
    """Every node some shape of the drawing remembers."""
    return {node for shape in drawing.shapes for node in (*shape.members, *shape.inside, *shape.hidden)}


@pytest.mark.parametrize("make", SAMPLES)
def test_no_level_forgets_a_node_or_draws_a_loose_wire(make: Callable[[], Report]) -> None:
    report = make()
    everyone = set(range(len(report.graph.nodes)))
    for drawing in fold.ladder(report):
        assert stands_for(drawing) == everyone
        keys = [shape.key for shape in drawing.shapes]
        assert len(set(keys)) == len(keys)
        places = range(len(keys))
        assert all(wire.source in places and wire.target in places for wire in drawing.wires)


@pytest.mark.parametrize("make", SAMPLES)
def test_levels_get_coarser_and_the_default_is_legible(make: Callable[[], Report]) -> None:
    report = make()
    sizes = [len(drawing.shapes) for drawing in fold.ladder(report)]
    assert sizes == sorted(set(sizes), reverse=True)
    assert len(fold.draw(report).shapes) <= fold.VISIBLE


@pytest.mark.parametrize(
    "make", [samples.resnet, lambda: samples.gpt(6), SMALL_LSTM, lambda: samples.tangle(400)]
)
def test_the_worst_is_never_hidden(make: Callable[[], Report]) -> None:
    report = make()
    node = len(report.graph.nodes) * 2 // 3
    finding = Finding("planted", "error", "planted", node=node)
    verdicts = list(report.verdicts)
    verdicts[node // 2] = Verdict(node // 2, "mismatch", "planted")
    report = replace(report, findings=(finding,), verdicts=tuple(verdicts))
    findings = findings_by_node(report)
    for drawing in fold.ladder(report):
        marks = [mark(report, shape, findings) for shape in drawing.shapes]
        assert any(finding in state.findings for state in marks)
        assert any(state.wrong for state in marks)


def test_repeated_blocks_are_one_and_keep_their_range() -> None:
    report = samples.gpt(6)
    (softmax,) = (shape for shape in fold.draw(report).shapes if shape.label == "Softmax")
    nodes = [node.id for node in report.graph.nodes if node.name == "SoftmaxBackward0"]
    assert sorted(softmax.members) == nodes
    assert softmax.times == 6
    levels = [report.gradients[node].received[0].rms for node in nodes]  # type: ignore[union-attr]  # all flowed
    state = mark(report, softmax, {})
    assert (state.low, state.high) == pytest.approx((min(levels), max(levels)))


def test_time_steps_are_one() -> None:
    drawing = fold.draw(samples.lstm(40, 3))
    assert len(drawing.shapes) == 14
    assert any("×40 calls" in said for said in drawing.folded)
    assert any(wire.again for wire in drawing.wires)


def test_depth_full_and_focus() -> None:
    report = samples.gpt(6)
    shallow = fold.draw(report, depth=1)
    assert {"h.0–5 ×6", "ln_f"} & {shape.label for shape in shallow.shapes} or "h" in {
        shape.label for shape in shallow.shapes
    }
    assert len(fold.draw(report, full=True).shapes) == len(report.graph.nodes)
    near = fold.draw(report, focus="ln_f.weight")
    assert {report.graph.nodes[node].label for node in stands_for(near)} >= {"ln_f.weight"}
    assert len(near.shapes) < 8
    path = fold.draw(report, focus="loss..ln_f")
    assert 0 in stands_for(path)
    with pytest.raises(UsageError, match=r"did you mean 'ln_f"):
        fold.draw(report, focus="ln_g.weight")


def test_unused_leaves_do_not_fill_the_page() -> None:
    build = samples.Builder()
    build.op("Sum")
    for number in range(300):
        build.leaf(f"unused.{number}", shape=(3,))
    drawing = fold.draw(samples.filled(build.graph(), samples.wave))
    assert [shape.label for shape in drawing.shapes][-1] == "300 leaves"


def test_a_module_called_twice_closes_no_cycle() -> None:
    drawing = fold.draw(samples.resnet(), depth=3)
    back = {(wire.target, wire.source) for wire in drawing.wires}
    assert not any((wire.source, wire.target) in back for wire in drawing.wires if not wire.again)


def test_everything_is_one_to_one() -> None:
    graph = samples.block().graph
    drawing = everything(graph)
    assert [shape.members for shape in drawing.shapes] == [(node.id,) for node in graph.nodes]
    assert [wire.edges for wire in drawing.wires] == [(index,) for index in range(len(graph.edges))]
