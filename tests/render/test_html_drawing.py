"""The drawings of a page against the layout engine's own: nothing lost, nothing moved."""

from __future__ import annotations

import re
from collections import Counter
from xml.etree.ElementTree import Element, fromstring

import pytest

from explorer.errors import LayoutError
from explorer.render import dot, fold
from explorer.render.layout import layout
from explorer.render.page.compact import compact
from explorer.render.page.palette import Palette
from explorer.render.page.views import views
from explorer.report import Report
from tests.render import samples

SVG = "{http://www.w3.org/2000/svg}"
TENTH = 0.0501
"""Half of the last digit kept."""


def both(report: Report) -> tuple[Element, Element, str]:
    """The engine's drawing, the page's, and the page's style rules."""
    made = layout(dot.of_drawing(report, fold.draw(report)), "svg")
    palette = Palette()
    found = compact(made, palette, _named)
    inner = fromstring(f'<svg xmlns="http://www.w3.org/2000/svg">{found.content}</svg>')
    return fromstring(made), inner, palette.rules()


def _named(what: str, name: str) -> dict[str, str] | None:
    return {"class": what, "data-name": name} if name else None


def groups(root: Element) -> dict[str, Element]:
    """The engine's nodes and edges by title."""
    return {
        re.sub(r":[a-z]+(?=->|$)", "", group.findtext(f"{SVG}title") or ""): group
        for group in root.iter(f"{SVG}g")
        if group.get("class", "").startswith(("node", "edge"))
    }


def numbers(text: str) -> list[float]:
    """All numbers of a path or of points."""
    return [float(found) for found in re.findall(r"-?(?:\d+\.?\d*|\.\d+)", text)]


def absolute(path: str) -> list[tuple[float, float]]:
    """Points of a relative path of curves."""
    x, y, *rest = numbers(path)
    points = [(x, y)]
    for place in range(0, len(rest), 6):
        curve = [(x + rest[at], y + rest[at + 1]) for at in range(place, place + 6, 2)]
        points += curve
        x, y = curve[-1]
    return points


@pytest.mark.parametrize("name", ["sigmoid", "block", "kinds"])
def test_texts_stand_where_the_engine_put_them(name: str) -> None:
    engine, ours, _ = both(getattr(samples, name)())

    def texts(root: Element) -> Counter[tuple[str, float, float]]:
        return Counter(
            (text.text or "", round(float(text.get("x", "")), 1), round(float(text.get("y", "")), 1))
            for group in root.iter(f"{SVG}g")
            if group.get("class", "").startswith(("node", "cluster")) and group.get("id") != "title"
            for text in group.iter(f"{SVG}text")
        )

    assert texts(engine) == texts(ours)


@pytest.mark.parametrize("name", ["sigmoid", "block", "kinds"])
def test_wires_run_where_the_engine_drew_them(name: str) -> None:
    engine, ours, _ = both(getattr(samples, name)())
    drawn = {group.get("data-name"): group for group in ours.iter(f"{SVG}g") if group.get("class") == "edge"}
    compared = 0
    for title, group in groups(engine).items():
        if "->" not in title:
            continue
        path, found = group.find(f".//{SVG}path"), drawn[title].find(f"{SVG}path")
        assert path is not None
        assert found is not None
        flat = numbers(path.get("d", ""))
        wanted = list(zip(flat[::2], flat[1::2], strict=True))
        if len([other for other in groups(engine) if other == title]) == 1:
            given = absolute(found.get("d", ""))
            assert len(given) == len(wanted)
            for (x, y), (a, b) in zip(given, wanted, strict=True):
                assert abs(x - a) <= TENTH
                assert abs(y - b) <= TENTH
            compared += 1
    assert compared


def test_rounded_boxes_keep_their_place() -> None:
    engine, ours, _ = both(samples.block())
    known = groups(engine)
    compared = 0
    for group in ours.iter(f"{SVG}g"):
        box = group.find(f"{SVG}rect")
        if group.get("class") != "node" or box is None:
            continue
        path = known[group.get("data-name", "")].find(f".//{SVG}path")
        assert path is not None
        flat = numbers(path.get("d", ""))
        left, top = float(box.get("x", "")), float(box.get("y", ""))
        assert abs(left - min(flat[::2])) <= TENTH
        assert abs(top - min(flat[1::2])) <= TENTH
        assert abs(left + float(box.get("width", "")) - max(flat[::2])) <= 2 * TENTH
        assert abs(top + float(box.get("height", "")) - max(flat[1::2])) <= 2 * TENTH
        assert 0 < float(box.get("rx", "")) <= 12
        compared += 1
    assert compared > 20


def test_looks_become_classes_that_say_the_same() -> None:
    engine, ours, rules = both(samples.kinds())
    known = dict(re.findall(r"^\.(k\w+)\{(.*)\}$", rules, re.MULTILINE))
    hazard = next(group for group in ours.iter(f"{SVG}g") if group.get("data-name") == "n1")
    (box,) = hazard.iter(f"{SVG}rect")
    assert "fill:#111111" in known[box.get("class", "")]
    assert "stroke:#ffb000" in known[box.get("class", "")]
    used = {name for element in ours.iter() for name in element.get("class", "").split() if name[0] == "k"}
    assert used == set(known)
    assert sum(1 for _ in engine.iter(f"{SVG}g")) > 9


def test_the_dark_recolours_loose_parts_alone() -> None:
    palette = Palette()
    on_page, in_box = (
        palette.name({"fill": "#52606d"}, loose=True),
        palette.name({"fill": "#52606d"}, loose=False),
    )
    assert on_page != in_box
    assert palette.name({"fill": "#52606d"}, loose=True) == on_page
    dark = [line for line in palette.rules().splitlines() if "dark" in line]
    assert dark == [f'[data-theme="dark"] .{on_page}{{fill:#AAB4C0}}']


def test_no_drawing_is_refused() -> None:
    with pytest.raises(LayoutError, match="no SVG"):
        compact(b"<svg xmlns='http://www.w3.org/2000/svg'/>", Palette(), lambda what, name: {})


def test_views_are_different_and_within_budget() -> None:
    report = samples.resnet()
    found = views(report, Palette(), budget=200_000)
    assert sum(view.size for view in found[1:]) <= 200_000
    sizes = [len(view.drawing.shapes) for view in found[1:]]
    assert sizes == sorted(sizes)
    assert len({tuple(shape.key for shape in view.drawing.shapes) for view in found}) == len(found)
    assert max(len(view.drawing.shapes) for view in views(report, Palette())) >= len(report.graph.nodes)


def test_nothing_else_is_offered_when_the_budget_is_spent() -> None:
    assert len(views(samples.resnet(), Palette(), budget=0)) == 1
