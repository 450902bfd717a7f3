"""Finishing an SVG of the layout engine: one element, safe to inline, readable in the dark and aloud."""

from __future__ import annotations

import re
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
    """CSS that recolours frames, wires and loose text where the reader prefers the dark."""
    rules = []
    for light, dark in theme.DARK.items():
        low = light.lower()
        texts = ",".join(f'{scope} {part}[fill="{low}"]' for part in _LABELS.split(","))
        rules.append(f"{texts}{{fill:{dark}}}")
    for fill in theme.CLUSTER_FILLS:  # a frame with a tooltip stands in a link of its own: any depth
        rules.append(f'{scope} .cluster [fill="{fill.lower()}"]{{fill:{theme.DARK[fill]}}}')
    rules.append(f"{scope} .cluster [stroke]{{stroke:{theme.DARK[theme.CLUSTER_BORDER]}}}")
    rules.append(f'{scope} .cluster [stroke="none"]{{stroke:none}}')
    wire, dark = theme.WIRE.lower(), theme.DARK[theme.WIRE]
    rules.append(f'{scope} .edge [stroke="{wire}"],{scope} .wire [stroke="{wire}"]{{stroke:{dark}}}')
    rules.append(f'{scope} .edge [fill="{wire}"],{scope} .wire [fill="{wire}"]{{fill:{dark}}}')
    return f"@media (prefers-color-scheme:dark){{{''.join(rules)}}}"
