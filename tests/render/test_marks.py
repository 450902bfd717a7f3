"""Marks of a drawing: hooks, dtypes, contributions, leaves inside, the legend; and its height."""

from __future__ import annotations

import re
from dataclasses import replace
from xml.etree.ElementTree import fromstring

from explorer.graph import TensorSpec
from explorer.render import dot, fold, theme
from explorer.render.clusters import headroom
from explorer.render.drawing import everything
from explorer.render.layout import layout, size
from explorer.render.marks import cast
from explorer.report import Report
from tests.render import samples
from tests.render.samples import Builder, filled
from tests.render.test_html import layers


def mixed() -> Report:
    """Sixty operations in a row; one is a cast to bfloat16, one a reshape with a hook."""
    build = Builder()
    last = build.op("Mean")
    for place in range(60):
        name = {20: "ToCopy", 40: "View", 41: "View"}.get(place, "Tanh")
        hooks = ("tensor hook clip",) if place == 40 else ()
        last = build.op(name, last, shape=(4, 4), hooks=hooks)
    build.leaf("x", last, shape=(4, 4), role="input")
    graph = build.graph()
    half = TensorSpec((4, 4), "bfloat16")
    nodes = tuple(
        replace(node, outputs=(half,)) if 0 < node.id <= 21 else node for node in graph.nodes
    )  # what comes after the cast, in the forward pass
    return filled(replace(graph, nodes=nodes), samples.wave)


def test_hooks_and_dtype_changes_are_marks_that_folding_keeps() -> None:
    report = mixed()
    source = dot.source(report)
    assert "1 reshape left out" in source
    assert f"float32 {theme.CAST} bfloat16" in source
    assert f"{theme.HOOK} tensor hook clip" in source
    assert theme.KEY["hook"] in source
    assert theme.KEY["cast"] in source


def test_a_cast_is_known_from_its_operand() -> None:
    graph = mixed().graph
    found = {node.id: cast(graph, node.id) for node in graph.nodes}
    assert {node: change for node, change in found.items() if change} == {
        0: ("bfloat16", "float32"),  # the mean gives float32 again
        21: ("float32", "bfloat16"),
    }


def test_contributions_are_told_where_they_differ() -> None:
    build = Builder()
    add = build.op("Add", shape=(2, 2))
    square = build.op("Mul", add, shape=(2, 2))
    x = build.leaf("x", square, square, add, shape=(2, 2), role="input")
    report = filled(build.graph(), lambda node: 1.0)
    assert theme.KEY["sum"] not in dot.source(report)
    (_, first, second, third) = report.edge_gradients
    assert first is not None
    edges = (first, first, replace(first, norm=6.0), replace(first, norm=3.0))
    said = dot.source(replace(report, edge_gradients=edges))
    assert f"{theme.SUM} 1.0e+0, 3.0e+0, 1.5e+0" in said
    assert theme.KEY["sum"] in said
    assert (second, third, x) == (first, first, 2)


def test_the_legend_tells_the_marks_that_occur_and_no_others() -> None:
    source = dot.source(samples.kinds())
    for key in ("input", "custom", "hazard", "zero", "none", "wrong", "finding"):
        assert theme.KEY[key] in source, key
    for key in ("hook", "cast", "again", "copies", "module"):
        assert theme.KEY[key] not in source, key


def test_a_box_for_several_operations_names_each_parameter_once() -> None:
    source = dot.source(samples.resnet(), depth=3)
    rows = [line for line in source.splitlines() if "weight  " in line]
    assert rows
    assert all(line.count("weight  ") == 1 for line in rows)


def test_the_height_is_told_beforehand_to_a_fifth() -> None:
    for report in (samples.block(), samples.gpt(2), samples.resnet()):
        for drawing in fold.ladder(report):
            if 20 <= len(drawing.shapes) <= 150:
                _, high = size(layout(dot.of_drawing(report, drawing), "svg"))
                assert abs(fold.height(drawing) - high) < 0.2 * high


def test_a_default_drawing_is_not_too_tall_but_keeps_its_operations() -> None:
    assert fold.height(fold.draw(samples.resnet())) < fold.TALLEST
    drawn = fold.draw(mixed())
    assert fold.height(drawn) > fold.TALLEST  # nothing lower would tell its operations apart
    assert len(drawn.shapes) == 61


def test_the_legend_speaks_of_parameters_as_they_are_drawn() -> None:
    square, listed = "square blue border", "name and number in a box"
    for report, shown, other in (
        (samples.block(), square, listed),
        (samples.gpt(12), listed, square),
        (samples.kinds(), square, listed),
    ):
        source = dot.source(report)
        assert shown in source
        assert other not in source


def test_frames_stand_under_one_another() -> None:
    drawn = fromstring(layout(dot.source(layers(3)), "svg"))
    frames = []
    for group in drawn.iter("{http://www.w3.org/2000/svg}g"):
        if (path := group.find(".//{http://www.w3.org/2000/svg}path")) is None:
            continue
        if "module" in group.get("class", ""):
            across = [float(x) for x in re.findall(r"(-?[\d.]+),-?[\d.]+", path.get("d", ""))]
            frames.append((min(across), max(across)))
    assert len(frames) == 4
    assert all(one[0] < other[1] for one in frames for other in frames)


def test_wires_leave_room_for_the_parameters_of_their_target() -> None:
    build = samples.Builder()
    second = build.op("Addmm", module="b")
    first = build.op("Addmm", second, module="a")
    turned = build.op("T", second, module="b")
    for name, use in (("b.weight", turned), ("b.bias", second), ("a.bias", first)):
        build.leaf(name, use, module=name[0])
    drawing = everything(build.graph())
    rows = {drawing.wires[place].target: amount for place, amount in headroom(drawing).items()}
    assert rows == {second: 3}
    assert headroom(everything(samples.xyz().graph)) == {}
