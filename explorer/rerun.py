"""Runs the forward of a custom Function once more: in float64, on copies, so that nobody can notice.

No gradients are recorded, output and warnings are set aside, random states are restored. What could be
noticed all the same is refused before (see `explorer.purity`).
"""

from __future__ import annotations

import contextlib
import io
import random
import sys
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from explorer.convert import dtype_name
from explorer.purity import impurity
from hooks.applied import Applied, applied_to, unobserved
from hooks.nodes import AutogradNode
from hooks.unseen import asked

Outputs = Sequence["torch.Tensor | None"]


class UncheckableError(Exception):
    """Why a node cannot be compared with finite differences."""


class Rerun:
    """The forward of one node as a function of float64 inputs.

    `inputs` are those of the script's own call, `upstream` the gradients of its outputs, all in float64.

    Raises:
        UncheckableError: the inputs are not known, or the forward must not be run again.
    """

    def __init__(self, node: AutogradNode, grad_outputs: Outputs) -> None:
        applied = applied_to(node)
        _refuse(node._forward_cls, applied)
        self._kind = node._forward_cls
        self._arguments = applied.arguments
        self.dtypes = [dtype_name(one.dtype) for one in applied.tensors]
        self.inputs = [double(one) for one in applied.tensors]
        self.upstream = [None if one is None else double(one) for one in grad_outputs]

    def outputs(self, inputs: Sequence[torch.Tensor]) -> list[torch.Tensor | None]:
        """The outputs that received a gradient, in float64."""
        fresh = iter([one.clone() for one in inputs])
        arguments = [next(fresh) if isinstance(one, torch.Tensor) else one for one in self._arguments]
        try:
            found = self._kind.apply(*arguments)
        except Exception as problem:
            said = f"{type(problem).__name__}: {problem}".partition("\n")[0]
            raise UncheckableError(f"its forward fails in float64 ({said})") from problem
        outputs = found if isinstance(found, tuple) else (found,)
        outputs = tuple(one for one in outputs if isinstance(one, torch.Tensor)) or outputs
        if len(outputs) != len(self.upstream):
            raise UncheckableError("its forward gives another number of outputs in float64")
        kept: list[torch.Tensor | None] = []
        for output, upstream in zip(outputs, self.upstream, strict=True):
            if upstream is None:
                kept.append(None)
                continue
            if output.shape != upstream.shape:
                raise UncheckableError("its forward gives other shapes in float64")
            if output.dtype not in (torch.float64, torch.complex128):
                raise UncheckableError(f"its forward rounds to {dtype_name(output.dtype)}")
            kept.append(output)
        return kept

    def settled(self) -> list[torch.Tensor | None]:
        """The outputs at x, after making sure that they are the same every time."""
        before = torch.get_rng_state()
        first = self.outputs(self.inputs)
        if not torch.equal(before, torch.get_rng_state()):
            raise UncheckableError("its forward draws random numbers")
        for one, again in zip(first, self.outputs(self.inputs), strict=True):
            if one is not None and again is not None and not torch.equal(one, again):
                raise UncheckableError("its forward is not deterministic")
        if not all(bool(torch.isfinite(one).all()) for one in first if one is not None):
            raise UncheckableError("its forward is not finite here")
        if not all(bool(torch.isfinite(one).all()) for one in self.upstream if one is not None):
            raise UncheckableError("the gradient it received is not finite")
        return first


def _refuse(kind: Any, applied: Applied) -> None:
    """Raise where the forward must not be run again."""
    module = getattr(kind, "__module__", "") or ""
    if applied.problem:
        raise UncheckableError(applied.problem)
    if applied.changed:
        raise UncheckableError("an input was modified in place since the forward")
    if kind.__name__.startswith("GeneratedBackwardFor_"):
        return  # an op of torch.library declares what it changes; one that changes nothing gets this Function
    if module.split(".")[0] == "torch":
        raise UncheckableError(f"torch's own {kind.__name__} is not run again")
    reason = impurity(kind.forward, kind.setup_context is torch.autograd.Function.setup_context)
    if not reason and kind.setup_context is not torch.autograd.Function.setup_context:
        reason = impurity(kind.setup_context)
    if reason:
        raise UncheckableError(f"its forward {reason}")


def double(tensor: torch.Tensor) -> torch.Tensor:
    """A float64 (complex128) copy; integers and booleans are copied as they are."""
    if tensor.layout is not torch.strided:
        raise UncheckableError(f"a {str(tensor.layout).removeprefix('torch.')} tensor is involved")
    if tensor.is_complex():
        return tensor.detach().to(torch.complex128, copy=True)
    return tensor.detach().to(torch.float64, copy=True) if tensor.is_floating_point() else tensor.clone()


@contextlib.contextmanager
def aside() -> Iterator[None]:
    """No gradients, no notes of our own calls, random states restored, output and warnings set aside."""
    state = random.getstate()
    numpy: Any = sys.modules.get("numpy.random")
    drawn = numpy.get_state() if numpy is not None else None
    sink = io.StringIO()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()  # type: ignore[no-untyped-call]  # torch's
    try:
        with (
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
            warnings.catch_warnings(),
            torch.random.fork_rng(devices),
            unobserved(),
            asked(),
            torch.no_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)
        if drawn is not None:
            numpy.set_state(drawn)
