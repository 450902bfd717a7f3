"""Drawings and pages in somebody else's page: a notebook, its export, a picture alone, in light and dark."""

from __future__ import annotations

import re
from base64 import b64encode
from pathlib import Path

import pytest

from explorer.render import html
from explorer.render.notebook import HEIGHT, bundle
from explorer.report import Report
from tests.browser.chromium import Page
from tests.render import samples

pytestmark = pytest.mark.browser

PAGES = {"light": ("#ffffff", "#1f1f1f"), "dark": ("#111111", "#e8e8e8")}

CONTRASTS = """(() => {
  const pen = new OffscreenCanvas(1, 1).getContext('2d');
  const over = (ground, ink) => {
    for (const colour of [ground, ink]) { pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1); }
    const [r, g, b] = [...pen.getImageData(0, 0, 1, 1).data].map((part) => part / 255)
      .map((part) => (part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = 'GROUND';
  const words = [...document.querySelectorAll('.graph > text, .cluster > text, .wire text')];
  const swatches = ['#111111', '#ffffff', 'white'];
  return words.filter((word) => !swatches.includes(word.getAttribute('fill'))).map((word) => {
    const {fill} = getComputedStyle(word);
    const [low, high] = [over(ground, ground), over(ground, fill)].sort((a, b) => a - b);
    return [word.textContent, fill, (high + 0.05) / (low + 0.05)];
  });
})()"""
"""Every loose word of the drawings with its contrast against the page; numbers on swatches stand on those."""


def inline(report: Report) -> str:
    return str(bundle(report)["image/svg+xml"])


def write(path: Path, body: str, scheme: str) -> str:
    ground, ink = PAGES[scheme]
    path.write_text(
        f'<!DOCTYPE html><meta charset=utf-8><body style="background:{ground};color:{ink}">{body}',
        encoding="utf-8",
    )
    return path.as_uri()


def faint(tab: Page, ground: str, least: float = 4.5) -> list[object]:
    """Loose words of the drawings in the page that do not read on `ground`."""
    words = tab.run(CONTRASTS.replace("GROUND", ground))
    assert len(words) > 3
    return [word for word in words if word[2] < least]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("system", ["light", "dark"])
@pytest.mark.parametrize("sample", [samples.sigmoid, samples.block, samples.kinds])
def test_a_drawing_in_a_page_reads_on_that_page(
    tab: Page, tmp_path: Path, scheme: str, system: str, sample: object
) -> None:
    """An exported notebook keeps its own colours whatever the reader's system prefers."""
    assert callable(sample)
    tab.size(1000, 700)
    tab.prefer(prefers_color_scheme=system)
    tab.open(write(tmp_path / "export.html", inline(sample()), scheme))
    assert faint(tab, PAGES[scheme][0]) == []
    tab.prefer()


def test_a_word_that_does_not_read_is_noticed(tab: Page, tmp_path: Path) -> None:
    unruly = inline(samples.sigmoid()).replace("currentColor", "#1f2933")
    tab.open(write(tmp_path / "planted.html", unruly, "dark"))
    assert faint(tab, PAGES["dark"][0])


SEEN = """(async () => {
  const shot = new Image();
  shot.src = 'data:image/png;base64,PICTURE';
  await shot.decode();
  const pen = new OffscreenCanvas(shot.width, 80).getContext('2d');
  pen.drawImage(shot, 0, 0);
  const {data} = pen.getImageData(100, 20, shot.width - 200, 60), grey = [];
  for (let at = 0; at < data.length; at += 4) grey.push(Math.max(data[at], data[at + 1], data[at + 2]));
  return [Math.min(...grey), Math.max(...grey)];
})()"""
"""The darkest and the brightest pixel about the title of what a screenshot shows."""


def seen(tab: Page, path: Path) -> tuple[int, int]:
    tab.frames()
    tab.picture(path)
    tab.open("about:blank")
    low, high = tab.run(SEEN.replace("PICTURE", b64encode(path.read_bytes()).decode("ascii")))
    return low, high


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_picture_put_into_a_page_reads_there(tab: Page, tmp_path: Path, scheme: str, system: str) -> None:
    """As an image it does not know its surroundings: Jupyter's exports say nothing of theirs."""
    data = b64encode(inline(samples.block()).encode()).decode("ascii")
    tab.size(1000, 700)
    tab.prefer(prefers_color_scheme=system)
    picture = f'<img src="data:image/svg+xml;base64,{data}" style="width:100%">'
    tab.open(write(tmp_path / "export.html", picture, scheme))
    low, high = seen(tab, tmp_path / "seen.png")
    assert high - low > 180
    tab.prefer()


@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_picture_on_its_own_reads_on_what_the_browser_puts_under_it(
    tab: Page, tmp_path: Path, system: str
) -> None:
    file = tmp_path / "block.svg"
    samples.block().save(file)
    tab.size(1000, 700)
    tab.prefer(prefers_color_scheme=system)
    tab.open(file.as_uri())
    assert faint(tab, tab.run("getComputedStyle(document.documentElement).backgroundColor")) == []
    low, high = seen(tab, tmp_path / "seen.png")
    assert high - low > 180
    tab.prefer()


def test_a_sandboxed_frame_starts(tab: Page, tmp_path: Path) -> None:
    tab.size(1000, 700)
    tab.open(write(tmp_path / "notebook.html", html.frame(samples.sigmoid()), "light"))
    inside = tab.inside()
    assert inside("document.querySelector('.moved').hasAttribute('transform')")
    assert inside("document.querySelector('#ae-panel h2').innerText.startsWith('σ = ')")
    inside("document.querySelector('#ae-next').click()")
    assert inside("document.querySelector('#ae-count').innerText") == "1/13"
    assert inside("origin") == "null"
    assert tab.complaints() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("system", ["light", "dark"])
def test_a_frame_is_as_light_or_dark_as_the_page_around_it(
    tab: Page, tmp_path: Path, scheme: str, system: str
) -> None:
    tab.prefer(prefers_color_scheme=system)
    tab.open(write(tmp_path / "notebook.html", html.frame(samples.xyz()), scheme))
    inside = tab.inside()
    tab.frames()
    assert inside("document.documentElement.dataset.theme") == scheme
    assert (
        inside("document.querySelector('#ae-theme').getAttribute('aria-pressed')")
        == str(scheme == "dark").lower()
    )
    tab.prefer()


def test_a_frame_takes_a_theme_from_the_page_around_it_and_nothing_else(tab: Page, tmp_path: Path) -> None:
    tab.prefer(prefers_color_scheme="light")
    tab.open(write(tmp_path / "notebook.html", html.frame(samples.xyz()), "light"))
    inside = tab.inside()
    before = inside("document.body.innerHTML")
    for message in ("null", "'dark'", "{theme: '<b>'}", "{theme: {}}"):
        tab.run(f"document.querySelector('iframe').contentWindow.postMessage({message}, '*')")
    tab.frames()
    assert inside("document.body.innerHTML") == before
    inside("postMessage({theme: 'dark'}, '*')")
    tab.frames()
    assert inside("document.documentElement.dataset.theme") == "light"
    assert tab.complaints() == []
    tab.prefer()


def test_two_outputs_on_one_page_share_no_id(tab: Page, tmp_path: Path) -> None:
    """VS Code and exports put all outputs into one document; a drawing shown twice is the same twice."""
    drawings = [inline(samples.block()), inline(samples.kinds()), inline(samples.xyz())]
    frames = html.frame(samples.xyz()) + html.frame(samples.block())
    tab.open(write(tmp_path / "outputs.html", "".join(drawings) + frames, "light"))
    twice = (
        "(() => { const ids = [...document.querySelectorAll('[id]')].map(({id}) => id);"
        " return ids.filter((id, place) => ids.indexOf(id) !== place) })()"
    )
    assert tab.run("document.querySelectorAll('[id]').length") > 100
    assert tab.run(twice) == []
    referred = (
        "[...document.querySelectorAll('[aria-labelledby]')].flatMap((e) =>"
        " e.getAttribute('aria-labelledby').split(' ')).filter((id) => !document.getElementById(id))"
    )
    assert tab.run(referred) == []
    titles = [tab.inside(place)("document.querySelector('#ae-panel h2').innerText") for place in (0, 1)]
    assert titles[0].startswith("f = ")
    assert titles[0] != titles[1]
    assert tab.complaints() == []


def test_a_frame_of_more_than_a_megabyte_starts(tab: Page, tmp_path: Path) -> None:
    framed = html.frame(samples.gpt())
    assert len(framed) > 1_000_000
    tab.open(write(tmp_path / "large.html", framed, "dark"))
    tab.frames()
    inside = tab.inside()
    assert inside("document.querySelectorAll('.drawing .n').length") > 5
    assert inside("innerHeight") == HEIGHT
    assert tab.complaints() == []


def test_a_picture_in_the_dark_has_dark_frames_and_light_words(tab: Page, tmp_path: Path) -> None:
    file = tmp_path / "block.svg"
    samples.block().save(file)
    tab.open(file.as_uri())
    colours = (
        "[...document.querySelectorAll('.cluster path, .cluster polygon')]"
        ".map((frame) => getComputedStyle(frame).fill)"
    )
    words = "[...document.querySelectorAll('.cluster text')].map((word) => getComputedStyle(word).fill)"

    def bright(said: str) -> bool:
        return sum(map(int, re.findall(r"\d+", said)[:3])) > 3 * 128

    tab.prefer(prefers_color_scheme="light")
    assert all(bright(fill) for fill in tab.run(colours) if fill != "none")
    tab.prefer(prefers_color_scheme="dark")
    frames = [fill for fill in tab.run(colours) if fill != "none"]
    assert len(frames) > 5
    assert not any(map(bright, frames))
    assert all(map(bright, tab.run(words)))
    tab.prefer()
