"""Style classes shared by all drawings of a page: a look said once, not once per box."""

from __future__ import annotations

from collections.abc import Mapping

from explorer.render import theme

_DARK = {light.lower(): dark for light, dark in theme.DARK.items()}


class Palette:
    """Gives each distinct look a short class name and writes the rules for all of them.

    A look is a mapping of SVG presentation attributes. Looks of loose parts (frames, wires, text beside
    them) stand on the page's own background and are recoloured in the dark; those of boxes keep their
    light fill and dark text.
    """

    def __init__(self) -> None:
        self._names: dict[tuple[bool, tuple[tuple[str, str], ...]], str] = {}

    def name(self, look: Mapping[str, str], *, loose: bool) -> str:
        """The class for `look`; the same look gives the same class."""
        key = loose, tuple(sorted(look.items()))
        return self._names.setdefault(key, f"k{len(self._names):x}")

    def rules(self) -> str:
        """CSS for every class handed out so far."""
        rules: list[str] = []
        dark: dict[str, list[str]] = {}
        for (loose, look), name in self._names.items():
            rules.append(f".{name}{{{_declarations(dict(look))}}}")
            other = {part: _DARK[colour] for part, colour in look if colour in _DARK}
            if loose and other:
                dark.setdefault(_declarations(other), []).append(f".{name}")
        for said, names in dark.items():
            several = names[0] if len(names) == 1 else f":is({','.join(names)})"
            rules.append(f'[data-theme="dark"] {several}{{{said}}}')
        return "\n".join(rules)


def _declarations(look: Mapping[str, str]) -> str:
    return ";".join(f"{part}:{value}" for part, value in look.items())
