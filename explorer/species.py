"""What sort of node a ``grad_fn`` is: its name, kind, short label and what is unusual about it.

=====================================  ======  ===============================================
node                                   kind    seen as
=====================================  ======  ===============================================
``AccumulateGrad``                     leaf
``MulBackward0``, ...                  op      a generated C++ class
``_foreach_*``                         op      ``CppFunction`` named ``Foreach…``
``autograd.Function``                  custom  a Python object with ``_forward_cls``
``torch.library`` op                   custom  ``GeneratedBackwardFor_<ns>_<op>_<overload>Backward``
a C++ ``torch::autograd::Function``    custom  ``CppFunction`` named ``CppNode<…>``
reentrant checkpoint                   opaque  ``CheckpointFunctionBackward``
``torch.compile``                      opaque  ``CompiledFunctionBackward``
TorchScript                            opaque  ``CppFunction`` named ``DifferentiableGraphBackward``
in-place on a view                     opaque  ``CopySlices``
a backward that will raise             opaque  ``Error``, ``NotImplemented``
=====================================  ======  ===============================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import torch
from torch.utils.checkpoint import CheckpointFunction

from explorer.graph import Kind
from hooks.nodes import AutogradNode

_ENDING = re.compile(r"Backward\d*$")
_LIBRARY = "GeneratedBackwardFor_"


@dataclass(frozen=True, slots=True)
class Species:
    """What nodes of one sort have in common.

    `keeps` is False if they have no saved values to read; `spelled` is torch's own name, with its namespace;
    `python` tells a Python Function's.
    """

    name: str
    kind: Kind = "op"
    label: str = ""
    note: str = ""
    keeps: bool = True
    spelled: str = ""
    python: bool = False


_generated: dict[type, Species] = {}
"""Species of generated C++ classes: one class is one species, so each is described once."""


def species_of(node: AutogradNode) -> Species:
    """The species of a live node."""
    kind = type(node)
    found = _generated.get(kind)
    if found is not None:
        return found
    if isinstance(node, torch.autograd.function.BackwardCFunction):
        return replace(_python(node), spelled=type(node).__name__, python=True)
    spelled = str(node.name())
    name = plain_name(spelled)
    if kind.__name__ == "CppFunction":
        return replace(_cpp(name), spelled=spelled)
    found = _special(name) or Species(name, label=short_label(name))
    found = _generated[kind] = replace(found, spelled=spelled)
    return found


def plain_name(name: str) -> str:
    """A node's name without its C++ namespace: ``torch::autograd::CopySlices`` is ``CopySlices``."""
    head, bracket, rest = name.partition("<")
    return head.rpartition("::")[2] + bracket + rest


def short_label(name: str) -> str:
    """The operation's name: ``Mul`` for ``MulBackward0``."""
    return _ENDING.sub("", name) or name


def _special(name: str) -> Species | None:
    """The hand-written C++ nodes."""
    if name == "AccumulateGrad":
        return Species(name, "leaf", "leaf", keeps=False)
    if name == "CopySlices":
        return Species(name, "opaque", name, "in-place on a view; hides the operation inside", keeps=False)
    if name in ("Error", "NotImplemented", "DelayedError"):
        return Species(name, "opaque", name, "raises when backward reaches it", keeps=False)
    return None


def _cpp(name: str) -> Species:
    """Nodes that share the Python type ``CppFunction``: told apart by name, nothing saved to read."""
    label = short_label(name)
    if name.startswith("Foreach"):
        return Species(name, "op", label, "one tensor of a _foreach_ call", keeps=False)
    if name.startswith("DifferentiableGraph"):
        return Species(name, "opaque", label, "TorchScript; hides the scripted operations", keeps=False)
    if name.startswith("CppNode"):
        return Species(name, "custom", label, "autograd Function written in C++", keeps=False)
    return Species(name, "opaque", label, "C++ node without Python access", keeps=False)


def _python(node: AutogradNode) -> Species:
    """Nodes that are Python objects."""
    name = str(type(node).__name__)
    label = short_label(name)
    forward = node._forward_cls
    if forward is CheckpointFunction:
        return Species(
            name, "opaque", label, "reentrant checkpoint; its graph exists only while backward runs"
        )
    if name.startswith("CompiledFunction"):
        return Species(name, "opaque", label, "compiled; hides the operations inside")
    if name.startswith(_LIBRARY):
        operation = label.removeprefix(_LIBRARY).removesuffix("_default")
        namespace, _, short = operation.partition("_")
        return Species(name, "custom", short or operation, f"torch.library operation {namespace}::{short}")
    module = str(getattr(forward, "__module__", ""))
    where = "" if module in ("", "__main__") else f"{module}."
    return Species(name, "custom", label, f"autograd Function {where}{forward.__qualname__}")
