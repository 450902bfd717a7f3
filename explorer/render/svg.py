"""Finishing an SVG of the layout engine: one element, safe to inline, readable in the dark and aloud."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import escape

from explorer.render import theme, words

_IDS = re.compile(r'(?<= id=")[^"]*(?=")')
_ROOT = re.compile(r"<svg ([^>]*)>")
_LABELS = ".graph>text,.cluster text,.wire text"


def finish(svg: bytes, *, title: str, description: str, prefix: str = "") -> str:
    """The `svg` element alone, with a title, a description and a dark side.

    Args:
        svg: what the layout engine wrote.
        title: the accessible name.
        description: what the picture shows, in words.
        prefix: put before every id and into the style's selectors, so that several drawings can
            stand in one page.
    """
    text = svg.decode("utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL)
    if prefix:
        text = _IDS.sub(lambda found: prefix + found[0], text)
    name = f"{prefix}drawing"
    head = (
        f'<title id="{name}-title">{escape(words.clean(title, 200))}</title>\n'
        f'<desc id="{name}-desc">{escape(words.clean(description, 2000))}</desc>\n'
        f"<style>{style(f'#{name}')}</style>\n"
    )
    labels = f'id="{name}" role="img" aria-labelledby="{name}-title {name}-desc"'
    return _ROOT.sub(lambda found: f"<svg {labels} {found[1]}>\n{head}", text, count=1).rstrip() + "\n"


def style(scope: str) -> str:
    """CSS by which frames, wires and loose text read on any ground.

    A picture that is a document, alone or as an image in a page, follows what the reader prefers and brings
    its ground along: nothing tells it what it lies on. Inside a page's own markup it takes up the colour of
    the text around it: an exported notebook is light or dark whatever its reader prefers.
    """
    alone, within = f"{scope}:root", f"{scope}:not(:root)"
    light, dark = theme.GROUND
    return (
        f"{alone}{{color-scheme:light dark;background:{light}}}"
        f"@media (prefers-color-scheme:dark){{{alone}{{background:{dark}}}{''.join(_dark(alone))}}}"
        f"{''.join(_as_around(within))}"
    )


def _dark(scope: str) -> Iterator[str]:
    """The colours of `theme.DARK`."""
    for light, dark in theme.DARK.items():
        yield f"{_loose(scope, light)}{{fill:{dark}}}"
    for fill in theme.CLUSTER_FILLS:  # a frame with a tooltip stands in a link of its own: any depth
        yield f'{scope} .cluster [fill="{fill.lower()}"]{{fill:{theme.DARK[fill]}}}'
    yield f"{scope} .cluster [stroke]{{stroke:{theme.DARK[theme.CLUSTER_BORDER]}}}"
    yield f'{scope} .cluster [stroke="none"]{{stroke:none}}'
    wire, dark = theme.WIRE.lower(), theme.DARK[theme.WIRE]
    yield f'{scope} .edge [stroke="{wire}"],{scope} .wire [stroke="{wire}"]{{stroke:{dark}}}'
    yield f'{scope} .edge [fill="{wire}"],{scope} .wire [fill="{wire}"]{{fill:{dark}}}'


def _as_around(scope: str) -> Iterator[str]:
    """Loose text nearly in the colour around it, frames a veil over the ground; wires do as they are."""
    for light in theme.DARK:
        if light in theme.CLUSTER_FILLS or light in (theme.WIRE, theme.CLUSTER_BORDER):
            continue
        own = "" if light == theme.INK else f"color-mix(in srgb,{light} {theme.OWN_SHARE},currentColor)"
        yield f"{_loose(scope, light)}{{fill:{own or 'currentColor'}}}"
    for fill in theme.CLUSTER_FILLS:
        yield f'{scope} .cluster [fill="{fill.lower()}"]{{fill:{theme.VEIL};fill-opacity:{theme.VEIL_DEPTH}}}'
    edge = f"stroke:{theme.VEIL};stroke-opacity:{theme.VEIL_EDGE}"
    yield f'{scope} .cluster [stroke]:not([stroke="none"]){{{edge}}}'


def _loose(scope: str, colour: str) -> str:
    """Selects the text of this colour that stands in no box."""
    return ",".join(f'{scope} {part}[fill="{colour.lower()}"]' for part in _LABELS.split(","))
