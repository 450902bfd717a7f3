"""Writing files: suffixes, several reports, whole or not at all; and strangers' text in every format."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from explorer import render
from explorer.errors import UsageError
from explorer.graph import Source
from explorer.render import notebook
from explorer.report import Finding, Report, Session
from tests.render import samples

HOSTILE = (
    '<script>alert("x")</script>',
    'quote " and {brace} | pipe \\N \\G',
    "line\nbreak\r\ttab",
    "emoji 😀 עברית \u202e mirrored",
    "]]> & &lt; <b> -->",
    "\x1b[31m \x00 \x07 \ud800 \ufffe",
    "x" * 10_000,
    "</table>>",
    ".".join("deep" for _ in range(200)),
)


def hostile(report: Report, name: str) -> Report:
    """The report with every text of the user's program replaced by `name`."""
    where = Source(name, 3, name, name)
    nodes = tuple(
        replace(node, label=name, names=(name,), module=name, source=where, hooks=(name,), note=name)
        for node in report.graph.nodes
    )
    finding = Finding("code", "error", name, name, 0, where)
    return replace(
        report,
        graph=replace(report.graph, nodes=nodes),
        findings=(finding,),
        root_name=name,
        where=where,
        script=name,
        problems=(name,),
        error=name,
    )


@pytest.mark.parametrize("make", [samples.xyz, samples.kinds, samples.block])
@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_strangers_text_breaks_no_format(make: object, name: str, tmp_path: Path) -> None:
    report = hostile(make(), name)  # type: ignore[operator]  # a sample maker
    for suffix in (".svg", ".dot", ".json", ".txt", ".mmd", ".graphml"):
        render.save(report, tmp_path / f"a{suffix}")
    svg = (tmp_path / "a.svg").read_text("utf-8")
    root = ElementTree.fromstring(svg)
    assert root.tag.endswith("svg")
    assert not [item for item in root.iter() if item.tag.endswith("script")]
    ElementTree.parse(tmp_path / "a.graphml")
    (back,) = render.json.loads((tmp_path / "a.json").read_text("utf-8")).reports
    assert back.graph == report.graph
    assert render.json.dumps(back) == render.json.dumps(report)
    written = (tmp_path / "a.txt").read_text("utf-8")
    assert not set(written) & set("\x1b\x00\x07\u202e")
    assert len((tmp_path / "a.dot").read_bytes()) < 400_000


def test_several_reports_are_several_pictures_and_one_json(tmp_path: Path) -> None:
    session = Session((samples.xyz(), samples.sigmoid(), samples.kinds()), "a.py")
    assert [path.name for path in render.save(session, tmp_path / "x.svg")] == ["x.svg", "x-2.svg", "x-3.svg"]
    assert render.save(session, tmp_path / "x.json") == (tmp_path / "x.json",)
    assert len(render.json.loads((tmp_path / "x.json").read_text()).reports) == 3


def test_an_unknown_suffix_lists_what_there_is(tmp_path: Path) -> None:
    for name in ("x.gif", "x", ".svg"):
        with pytest.raises(UsageError, match=r"\.svg \.png \.pdf"):
            render.check_suffix(tmp_path / name)
    assert render.check_suffix("a/B.SVG") == ".svg"


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.dot"
    path.write_text("old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(UsageError, match="No space left"):
        render.save(samples.xyz(), path)
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["x.dot"]


def test_an_unwritable_path_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot write"):
        render.save(samples.xyz(), tmp_path / "absent" / "x.json")


def test_the_notebook_bundle_has_text_and_pictures() -> None:
    made = notebook.bundle(samples.block())
    assert set(made) == {"text/plain", "image/svg+xml", "image/png"}
    assert made == notebook.bundle(samples.block())
    drawn = str(made["image/svg+xml"])
    identifiers = {item.get("id") for item in ElementTree.fromstring(drawn).iter() if item.get("id")}
    assert all(str(one).startswith("ae") for one in identifiers)
    assert "prefers-color-scheme:dark" in drawn
    other = str(notebook.bundle(samples.kinds())["image/svg+xml"])
    assert not identifiers & {
        item.get("id") for item in ElementTree.fromstring(other).iter() if item.get("id")
    }


def test_without_an_engine_the_bundle_is_text() -> None:
    made = notebook.bundle(samples.xyz(), engine="/nowhere/dot")
    assert set(made) == {"text/plain"}
    assert "no picture" in str(made["text/plain"])
