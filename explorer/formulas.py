"""The formula of every backward node, from the derivatives.yaml of the installed torch.

The file ships in the wheel (``torchgen/packaged/autograd/derivatives.yaml``) and says, per operation,
what each input's gradient is. torch's generator names the nodes after it: the operation in title case,
"Backward", and a counter in file order over the entries that have derivatives. Numbers therefore
belong to the installed version, and the installed file is what is read. torchgen's own loader needs
PyYAML and seconds; the few lines of YAML used there are read here in some hundredths of a second.
Nothing imports torch.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from pathlib import Path

__all__ = ["Entry", "arguments", "entry", "formulas", "inputs", "meaning", "operation", "parse"]

DEFAULT = "Default"


@dataclass(frozen=True, slots=True)
class Entry:
    """One node's entry: `operation` is the aten signature, `formulas` input -> C++ expression.

    Inputs stand in the order of the signature, which is the order of ``next_functions`` (a list of
    tensors takes one place per tensor there).
    """

    operation: str
    formulas: Mapping[str, str] = field(default_factory=dict)


MEANINGS: Mapping[str, str] = {
    "AccumulateGrad": "adds the gradient that arrives to the .grad of its leaf: grad += incoming",
    "CopySlices": "an in-place change of a view: the written part's gradient goes through the hidden inner "
    "function, the rest passes unchanged to the base",
    "Error": "stands where a derivative does not exist; it raises when backward reaches it",
    "NotImplemented": "stands where torch has no derivative; it raises when backward reaches it",
    "DelayedError": "lets forward run and raises when backward reaches it",
    "GraphRoot": "hands the first gradients to the roots",
    "Identity": "passes the gradient unchanged",
    "UndefinedGrad": "passes no gradient on",
    "UndefinedGradBackward": "passes no gradient on",
    "CopyBackwards": "a copy to another device or dtype: the gradient is copied back",
    "Scatter": "spread a tensor over devices: the gradients are gathered",
    "Gather": "gathered tensors from devices: the gradient is scattered",
    "CompiledFunctionBackward": "one node for a whole compiled graph; its inner operations are not exposed",
    "CheckpointFunctionBackward": "a reentrant checkpoint: runs its forward again, then an inner backward",
}
"""Hand-written nodes, in words."""

CUSTOM = "a custom function: its own backward method says how the gradient goes on"


@cache
def formulas(name: str) -> Mapping[str, str]:
    """Gradient formula per input of the node called `name`, as torch's derivatives.yaml has it.

    Empty for nodes that are not generated from that file (see `meaning`) or when it cannot be read.

    >>> formulas("SinBackward0")
    {'self': 'grad * self.cos().conj()'}
    """
    found = entry(name)
    return found.formulas if found else {}


def operation(name: str) -> str:
    """The aten signature of the forward operation behind the node `name`, "" where unknown.

    >>> operation("SinBackward0")
    'sin(Tensor self) -> Tensor'
    """
    found = entry(name)
    return found.operation if found else ""


def inputs(name: str) -> tuple[str, ...]:
    """The differentiable inputs of the node `name`, in the order of its ``next_functions``."""
    return tuple(formulas(name))


def meaning(name: str) -> str:
    """A sentence on a node that torch's file does not describe, "" for one that it does."""
    short = name.rsplit("::", 1)[-1]
    if entry(name):
        return ""
    return MEANINGS.get(short, CUSTOM)


def entry(name: str) -> Entry | None:
    """The entry of derivatives.yaml for the node `name`, with or without its C++ namespace."""
    short = name.rsplit("::", 1)[-1].removesuffix("_copy")
    found = _entries().get(short)
    return found or _foreach(short)


def _foreach(name: str) -> Entry | None:
    """``ForeachAddBackward0List`` applies ``AddBackward0`` to each tensor of its lists.

    torch names such a node after the entry whose formula it borrows, followed by its own overload.
    """
    match = re.fullmatch(r"Foreach(\w+Backward\d+)[A-Za-z]*", name)
    return _entries().get(match[1]) if match else None


@cache
def _entries() -> Mapping[str, Entry]:
    """Node name -> entry of the installed torch; empty when the file is missing or unreadable."""
    try:
        spec = find_spec("torchgen")
        if spec is None or not spec.submodule_search_locations:
            return {}
        folder = Path(next(iter(spec.submodule_search_locations)))
        return parse((folder / "packaged" / "autograd" / "derivatives.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, StopIteration):
        return {}


def parse(text: str) -> dict[str, Entry]:
    """Node name -> `Entry` of a derivatives.yaml given as text.

    A dispatch key other than Default has a node of its own, with the key in its name. A name -> formula
    whose name is no argument of the signature is a forward-mode formula and is left out.
    """
    found: dict[str, Entry] = {}
    counter: Counter[str] = Counter()
    for signature, dispatch in _records(text):
        order = arguments(signature)
        base = re.split(r"[.(]", signature, maxsplit=1)[0]
        prefix = ("".join(part.title() for part in base.split("_")) + "Backward").replace(
            "ForwardBackward", "Backward"
        )
        for key, lines in dispatch.items():
            given = {
                name.strip(): formula
                for names, formula in lines.items()
                for name in names.split(",")
                if formula.lower() != "non_differentiable"
            }
            kept = {name: given[name] for name in order if name in given}
            if kept:
                own = prefix if key == DEFAULT else prefix + key
                found[f"{own}{counter[own]}"] = Entry(signature, kept)
                counter[own] += 1
    return found


@cache
def arguments(signature: str) -> tuple[str, ...]:
    """The argument names of an aten signature, in order.

    >>> arguments("sum.dim_IntList(Tensor self, int[1]? dim, bool keepdim=False) -> Tensor")
    ('self', 'dim', 'keepdim')
    """
    start = signature.find("(")
    if start < 0:
        return ()
    depth, end = 0, len(signature)
    pieces: list[str] = []
    last = start + 1
    for place in range(start, len(signature)):
        character = signature[place]
        depth += (character in "([") - (character in ")]")
        if depth == 0:
            end = place
            break
        if character == "," and depth == 1:
            pieces.append(signature[last:place])
            last = place + 1
    pieces.append(signature[last:end])
    names = (piece.split("=")[0].split() for piece in pieces)
    return tuple(words[-1] for words in names if len(words) > 1)


def _records(text: str) -> Iterator[tuple[str, dict[str, dict[str, str]]]]:
    """Each entry of the file: its signature, and per dispatch key its lines name(s) -> formula."""
    signature, dispatch, key = "", {DEFAULT: {}}, DEFAULT  # type: str, dict[str, dict[str, str]], str
    for line in _joined(text):
        body = line.strip()
        indent = len(line) - len(line.lstrip())
        name, _, value = body.partition(":")
        value = _unquoted(value.strip())
        if body.startswith("- name:"):
            if signature:
                yield signature, dispatch
            signature, dispatch, key = value, {DEFAULT: {}}, DEFAULT
        elif indent == 4 and not value:
            key = name
            dispatch.setdefault(key, {})
        elif value and name not in {"output_differentiability"}:
            dispatch[key][name] = value
    if signature:
        yield signature, dispatch


def _joined(text: str) -> Iterator[str]:
    """The lines without comments and blanks, those of one value joined by a space.

    A line continues the one before while a quote is open, or when it stands deeper than a key may and
    has no key of its own.
    """
    held = ""
    for raw in text.splitlines():
        line = raw.rstrip()
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if held and (
            _open(held) or not re.match(r"(- name|  [\w, ]+|    [\w, ]+|      [\w, ]+):(\s|$)", line)
        ):
            held += " " + line.strip()
            continue
        if held:
            yield held
        held = line
    if held:
        yield held


def _open(line: str) -> bool:
    """Whether the value on this line opens a quote that it does not close."""
    value = line.partition(":")[2].strip()
    return value[:1] in {'"', "'"} and (len(value) == 1 or value[-1] != value[0])


def _unquoted(value: str) -> str:
    """A YAML scalar without its quotes."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return " ".join(value.split())
