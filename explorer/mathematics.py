"""The mathematics of a backward node in words: what its forward computes, what goes back to each input.

The words come from the table in `explorer.operations`, with the names of the graph's own wires put in.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from explorer.formulas import formulas, operation
from explorer.operations import OPERATIONS, Operation

__all__ = ["forward_text", "local_text", "lookup"]


def lookup(name: str) -> Operation | None:
    """The `Operation` of the backward node `name`, None for one outside the table."""
    signature = operation(name).split("(", 1)[0]
    if signature.endswith("_mode"):  # division that rounds: its slope is 0, unlike the plain one's
        return None
    return OPERATIONS.get(signature) or OPERATIONS.get(signature.split(".", 1)[0])


class _Names(dict[str, str]):
    """Names for a template: ``{alpha*}`` is empty for 1, and an unknown name stands for itself."""

    def __missing__(self, key: str) -> str:
        if key.endswith("*"):
            factor = self.get(key[:-1], "1")
            return "" if factor == "1" else f"{factor}·"
        return {"alpha": "1", "value": "1", "min": "−∞", "max": "∞"}.get(key, key)


def _symbols(name: str) -> dict[str, str]:
    """Letters for the inputs of node `name` when nothing better is known: x alone, a and b for two."""
    names = formulas(name) or {"self": ""}
    found = lookup(name)
    tensors = list(found.partial if found else names)
    letters = ["x"] if len(tensors) == 1 else ["a", "b", "c"]
    return dict(zip(tensors, letters, strict=False))


def forward_text(name: str, names: Mapping[str, str] | None = None) -> str:
    """What the forward of node `name` computes, "" outside the table.

    `names` says what to call each argument; one it leaves out keeps torch's own name ("other").

    >>> forward_text("MulBackward0")
    'a·b'
    >>> forward_text("MulBackward0", {"self": "q", "other": "z"})
    'q·z'
    """
    found = lookup(name)
    return (
        _tidy(found.forward.format_map(_Names(_symbols(name) if names is None else names))) if found else ""
    )


def local_text(name: str, argument: str, names: Mapping[str, str] | None = None) -> str:
    """What goes back to `argument`: the local derivative, or the gradient for whole tensors.

    >>> local_text("MulBackward0", "self")
    '∂(a·b)/∂a = b'
    >>> local_text("MmBackward0", "mat2")
    '∂L/∂b = aᵀ·G'
    """
    found = lookup(name)
    if found is None or argument not in found.partial:
        return ""
    letters = _Names(_symbols(name) if names is None else names)
    text = _tidy(found.partial[argument].format_map(letters))
    if not found.elementwise:
        return f"∂L/∂{letters[argument]} = {text}"
    return f"∂({_tidy(found.forward.format_map(letters))})/∂{letters[argument]} = {text}"


RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def _tidy(text: str) -> str:
    """Whole exponents as one writes them: x^2 is x², and 2·x^(2−1) is 2·x.

    >>> _tidy("2·x^(2−1)"), _tidy("3·x^(3−1)"), _tidy("x^0.5"), _tidy("x^n")
    ('2·x', '3·x²', 'x^0.5', 'x^n')
    """
    text = re.sub(r"\^\((\d+)−1\)", lambda found: f"^{int(found[1]) - 1}", text)
    text = re.sub(r"\^1(?![\d.])", "", text)
    return re.sub(r"\^(\d+)(?![\d.])", lambda found: found[1].translate(RAISED), text)
