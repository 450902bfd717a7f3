"""Numbers, shapes and names as people read them: 4.3e−6, 2 × 8 × 16, 1.2 MB."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from math import isfinite, isnan

from explorer.graph import Node
from explorer.render import theme
from explorer.report import STATUSES, CheckSummary, Number, Report, Status

LONGEST = 120
"""Characters of a name or message that a drawing shows before it says `…`."""


def scientific(number: float) -> str:
    """Two significant digits with a true minus sign.

    >>> scientific(4.3e-6), scientific(1.0), scientific(0.0), scientific(float("nan"))
    ('4.3e−6', '1.0e+0', '0', 'NaN')
    """
    if number == 0:
        return "0"
    if not isfinite(number):
        return _special(number)
    mantissa, exponent = f"{number:.1e}".split("e")
    power = int(exponent)
    return f"{_minus(mantissa)}e{'−' if power < 0 else '+'}{abs(power)}"


def value(number: Number) -> str:
    """A forward value or gradient of a circuit: two decimals where that says enough.

    >>> value(2), value(-0.196), value(0.0), value(1e-5), value(1 + 2j)
    ('2.00', '−0.20', '0', '1.0e−5', '1.00+2.00i')
    """
    if isinstance(number, complex):
        imaginary = value(number.imag)
        return f"{value(number.real)}{'' if imaginary.startswith('−') else '+'}{imaginary}i"
    if not isfinite(number):
        return _special(number)
    if number == 0:
        return "0"
    if 0.01 <= abs(number) < 100_000:
        return _minus(f"{number:.2f}")
    return scientific(number)


def constant(number: float) -> str:
    """A number that the program spelled: the fewest digits that tell it.

    >>> constant(1.0), constant(-0.5), constant(1e-5)
    ('1', '−0.5', '1e−5')
    """
    return _minus(f"{number:.4g}".replace("e-0", "e-").replace("e+0", "e+"))


def _minus(text: str) -> str:
    return text.replace("-", "−")


def _special(number: float) -> str:
    if isnan(number):
        return "NaN"
    return "Inf" if number > 0 else "−Inf"


def shape(sizes: Sequence[int]) -> str:
    """Sizes joined by ×; "scalar" for none.

    >>> shape((2, 8, 16)), shape(())
    ('2 × 8 × 16', 'scalar')
    """
    return " × ".join(map(str, sizes)) if sizes else "scalar"


def memory(amount: int) -> str:
    """Bytes in the unit that keeps it short.

    >>> memory(128), memory(2048), memory(3_500_000)
    ('128 B', '2.0 KiB', '3.3 MiB')
    """
    if amount < 1024:
        return f"{amount} B"
    size = float(amount)
    for unit in ("KiB", "MiB", "GiB"):
        size /= 1024
        if size < 1024:
            return f"{size:.1f} {unit}"
    return f"{size / 1024:.1f} TiB"


def count(number: int, thing: str = "") -> str:
    """A count with thousands separated, and its noun in the right number.

    >>> count(4096), count(1, "node"), count(2, "leaf")
    ('4,096', '1 node', '2 leaves')
    """
    if not thing:
        return f"{number:,}"
    several = f"{thing[:-1]}ves" if thing.endswith("leaf") else f"{thing}s"
    return f"{number:,} {thing if number == 1 else several}"


def times(number: int) -> str:
    """How many alike, to follow a name: " ×48"; "" for one."""
    return f" {theme.TIMES}{number:,}" if number > 1 else ""


def seconds(amount: float) -> str:
    """A duration in the unit that keeps it short.

    >>> seconds(0.0000042), seconds(0.0123), seconds(2.5)
    ('4.2 µs', '12.3 ms', '2.50 s')
    """
    if amount < 1e-3:
        return f"{amount * 1e6:.1f} µs"
    return f"{amount * 1e3:.1f} ms" if amount < 1 else f"{amount:.2f} s"


_CONFIRMED: tuple[Status, ...] = ("match", "loose", "low-precision accumulation")


def clean(text: str, longest: int = LONGEST) -> str:
    r"""Text of a stranger made safe to show: controls spelled, long text cut.

    Control, format (right-to-left overrides), surrogate and private characters and line separators
    become backslash escapes, except the joiner inside emoji; what is longer than `longest` ends in `…`.

    >>> clean("a\nb"), clean("abcdef", 4)
    ('a\\nb', 'abc…')
    """
    if len(text) > longest:
        text = text[: longest - 1] + "…"
    if text.isascii() and text.isprintable():
        return text
    return "".join(_spelled(character) for character in text)


def _spelled(character: str) -> str:
    if character.isprintable() or character in "\u200d\u00a0":
        return character
    if unicodedata.category(character) == "Zs":
        return " "
    return character.encode("unicode_escape").decode("ascii")


def numbered(outer: str, name: str) -> str:
    """A module's name; a number, which would read as a size, with that of the module around it.

    >>> numbered("layers", "0"), numbered("", "0"), numbered("layers", "conv")
    ('layers.0', 'module 0', 'conv')
    """
    if not name.isdigit():
        return name
    return f"{outer}.{name}" if outer else f"module {name}"


def operation(node: Node) -> str:
    """The operation's own name: "MulBackward0" is "Mul".

    >>> operation(Node(0, "MulBackward0")), operation(Node(0, "MySwishBackward"))
    ('Mul', 'MySwish')
    """
    head, found, tail = node.name.rpartition("Backward")
    return head if found and head and (not tail or tail.isdigit()) else node.name


def label(node: Node) -> str:
    """The name a drawing shows: a leaf's or variable's own, else the operation."""
    return clean(node.label or operation(node), 60)


def roots(report: Report, longest: int = 60) -> str:
    """What backward began at: the root's name, and those of others or how many they are."""
    first = clean(report.root_name or "loss", longest)
    others = [report.graph.nodes[node] for node, _ in dict.fromkeys(report.graph.roots)][1:]
    if not others:
        return first
    named = len(others) == 1 and others[0].label not in ("", operation(others[0]), report.root_name)
    return f"{first} and {clean(others[0].label, longest) if named else f'{len(others):,} more'}"


def check_line(check: CheckSummary) -> str:
    """The whole check in one line, for the terminal."""
    if not check.nodes or (check.end_to_end == "off" and not check.checked and not check.statuses):
        return "not checked"
    parts = ", ".join(f"{amount:,} {status}" for status, amount in _statuses(check))
    elements = f" ({check.elements:,} of {check.of:,} elements)" if check.of else ""
    line = f"checked {check.checked:,} of {check.nodes:,} nodes: {parts or 'none'}{elements}"
    line += f", {theme.END_TO_END[check.end_to_end]}"
    if check.end_to_end == "induction" and check.checked < check.nodes:
        line += " but for the unchecked"
    if check.wrong_share and check.wrong_share < 1:
        line += f"; with 95 % confidence, less than {100 * check.wrong_share:.2g} % of the elements are wrong"
    looked = check.consistency
    if looked is not None and looked.nodes < check.nodes:
        line += f"; saved values compared with the forward at {looked.nodes:,} of {check.nodes:,} nodes"
    return line


def check_words(report: Report) -> str:
    """The check in a few words, for the title of a drawing; "" when it was off."""
    check = report.check
    wrong = sum(check.statuses.get(status, 0) for status in ("mismatch", "nan-mismatch"))
    if wrong:
        return f"{wrong:,} of {check.checked:,} nodes disagree with the check"
    confirmed = sum(check.statuses.get(status, 0) for status in _CONFIRMED)
    if not confirmed:
        return ""
    if confirmed == check.nodes:
        return f"all {check.nodes:,} nodes confirmed" if check.nodes > 1 else "confirmed"
    return f"{confirmed:,} of {check.nodes:,} nodes confirmed"


def _statuses(check: CheckSummary) -> list[tuple[str, int]]:
    return [(status, check.statuses[status]) for status in STATUSES if check.statuses.get(status)]
