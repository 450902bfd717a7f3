"""Level of detail: every node stays reachable, the worst finding shows, nothing is too large."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from explorer.errors import UsageError
from explorer.render import fold
from explorer.render.drawing import Drawing, everything
from explorer.render.marks import findings_by_node, mark
from explorer.render.quotient import tangled
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


@pytest.mark.parametrize("name", ["", "  ", "²", "n²", "..", "no..", "999999"])
def test_a_focus_that_names_nothing_is_told(name: str) -> None:
    with pytest.raises(UsageError, match=r"empty name|is called"):
        fold.draw(samples.gpt(2), focus=name)


def test_a_focus_finds_a_module_by_the_end_of_its_path() -> None:
    report = samples.gpt(3)
    whole = fold.draw(report, focus="h.2.attn", full=True)
    assert stands_for(fold.draw(report, focus="2.attn", full=True)) == stands_for(whole)


def test_a_tall_loop_is_drawn_once() -> None:
    drawn = fold.draw(samples.loop(35))
    assert len(drawn.shapes) < 20
    assert fold.height(drawn) < fold.TALLEST
    assert stands_for(drawn) == set(range(len(samples.loop(35).graph.nodes)))


def test_unused_leaves_do_not_fill_the_page() -> None:
    build = samples.Builder()
    build.op("Sum")
    for number in range(300):
        build.leaf(f"unused.{number}", shape=(3,))
    drawing = fold.draw(samples.filled(build.graph(), samples.wave))
    assert [shape.label for shape in drawing.shapes][-1] == "300 leaves"


def test_a_frame_says_how_many_calls_only_where_it_holds_no_others() -> None:
    levels = list(fold.ladder(samples.adversarial()))
    (two,) = [drawing for drawing in levels if "D ×2 calls drawn once" in drawing.folded]
    assert ("D",) not in two.titles
    assert {shape.times for shape in two.shapes if shape.module == ("D", "0") and shape.call} == {2}
    three, *_ = [drawing for drawing in levels if ("D",) in drawing.titles]
    assert three.titles["D",] == "D ×3 calls"
    assert ("cells",) in fold.Levels(samples.lstm(12, 3)).once.titles


def test_a_module_called_twice_closes_no_cycle() -> None:
    drawing = fold.draw(samples.resnet(), depth=3)
    back = {(wire.target, wire.source) for wire in drawing.wires}
    assert not any((wire.source, wire.target) in back for wire in drawing.wires if not wire.again)


def test_everything_is_one_to_one() -> None:
    graph = samples.block().graph
    drawing = everything(graph)
    assert [shape.members for shape in drawing.shapes] == [(node.id,) for node in graph.nodes]
    assert [wire.edges for wire in drawing.wires] == [(index,) for index in range(len(graph.edges))]


def stack(layers: int) -> Report:
    """Linear, Tanh, Linear, Tanh, …: modules 0, 2, 4, … are alike, with 1, 3, 5, … between them."""
    build = samples.Builder()
    after = build.op("Sum")
    for layer in reversed(range(layers)):
        after = build.op("Tanh", after, module=f"{2 * layer + 1}")
        after = build.op("Addmm", after, module=f"{2 * layer}")
        for name in ("weight", "bias"):
            build.leaf(f"{2 * layer}.{name}", after, module=f"{2 * layer}", shape=(6,))
    return samples.filled(build.graph(), samples.wave)


@pytest.mark.parametrize("layers", [28, 40, 60, 200])
def test_layers_with_others_between_them_make_no_star(layers: int) -> None:
    """Drawn once, they would send to every one between them and take from it again."""
    for drawing in fold.ladder(stack(layers)):
        ahead = replace(drawing, wires=tuple(wire for wire in drawing.wires if not wire.again))
        assert not tangled(ahead, range(len(ahead.shapes)))


def test_blocks_with_such_layers_inside_are_still_drawn_once() -> None:
    build = samples.Builder()
    after = build.op("Sum")
    for block in reversed(range(30)):
        for layer in (2, 1, 0):
            after = build.op("Tanh", after, module=f"blocks.{block}.mlp.{2 * layer + 1}")
            after = build.op("Addmm", after, module=f"blocks.{block}.mlp.{2 * layer}")
            build.leaf(
                f"blocks.{block}.mlp.{2 * layer}.weight", after, module=f"blocks.{block}.mlp.{2 * layer}"
            )
            build.leaf(
                f"blocks.{block}.mlp.{2 * layer}.bias", after, module=f"blocks.{block}.mlp.{2 * layer}"
            )
    drawing = fold.draw(samples.filled(build.graph(), samples.wave))
    assert [said for said in drawing.folded if "drawn once" in said] == ["blocks.0–29 ×30 drawn once"]
    assert [shape.label for shape in drawing.shapes].count("Tanh") == 3


@pytest.mark.parametrize("steps", range(10, 40, 5))
def test_steps_are_one_however_many(steps: int) -> None:
    """Below and above the size at which parameters go inside their operation."""
    drawing = fold.draw(samples.lstm(steps, 1))
    assert f"×{steps} calls drawn once" in " ".join(drawing.folded)
    assert max(shape.times for shape in drawing.shapes) == steps
    assert len(drawing.shapes) < 30
    assert len({(shape.module, shape.call) for shape in drawing.shapes if shape.module}) < 4


def test_what_counts_is_how_much_is_drawn() -> None:
    """Many reshapes do not hide the parameters of a graph that is small without them."""
    build = samples.Builder()
    after = build.op("Sum")
    for number in range(24):
        for name in ("View", "T", "Squeeze", "Unsqueeze", "Permute"):
            after = build.op(name, after)
        after = build.op("Mul", after)
        build.leaf(f"w{number}", after, shape=(3,))
    report = samples.filled(build.graph(), samples.wave)
    assert len(report.graph.nodes) > 150
    drawing = fold.draw(report)
    assert [shape.kind for shape in drawing.shapes].count("parameter") == 24
    assert "reshapes left out" in " ".join(drawing.folded)
