"""Checks the user's own ``autograd.Function``s against finite differences, after the script has ended.

The first small call of each class is remembered (a copy of its arguments). `compare` later runs that
forward again in float64, output and random generators set aside, and compares its backward with central
differences. Where the forward does not repeat itself, has no derivative to speak of (a step: a
straight-through estimator), or is the identity (reversed or clipped gradients), nothing is said: there
the backward differs on purpose.
"""

from __future__ import annotations

import contextlib
import io
import random
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hooks.handles import Handles
from hooks.places import USER, kind_of

LARGEST = 4096
"""Elements of all arguments together, beyond which a call is not copied."""
CLASSES = 64
SAMPLED = 12
"""Elements of each input that are compared."""
STEP = 1e-6
TOLERANCE = 1e-2
"""Relative difference that counts as wrong: far above the 1e-9 of central differences in float64."""
_PLAIN = (int, float, bool, str, type(None))


@dataclass(frozen=True, slots=True)
class WrongFunction:
    """`kind`'s backward for input `argument` is not its forward's derivative.

    `factor` is backward / derivative where that is one number for all elements; `element` the worst flat
    index, with both values there. `missing`: backward gave None.
    """

    kind: type
    argument: int
    element: int
    backward: float
    derivative: float
    factor: float | None
    missing: bool
    compared: int


class Functions:
    """Attach with `attach`; `compare` when the user's code is over."""

    def __init__(self) -> None:
        self._calls: dict[type, tuple[Any, ...]] = {}
        self._open = True

    def attach(self, handles: Handles) -> None:
        """Patch ``autograd.Function.apply`` until `handles` closes."""
        function: Any = torch.autograd.Function
        original: Any = vars(function)["apply"]
        calls = self._calls

        def apply(cls: type, *args: Any, **kwargs: Any) -> Any:
            if torch.compiler.is_compiling() or not self._open:
                return original.__func__(cls, *args, **kwargs)
            if cls not in calls and len(calls) < CLASSES and not kwargs and torch.is_grad_enabled():
                with contextlib.suppress(Exception):
                    copied = _copy(cls, args)
                    if copied is not None:
                        calls[cls] = copied
            return original.__func__(cls, *args, **kwargs)

        handles.callback(self._retire)
        handles.patch(function, "apply", classmethod(apply))
        # Reading a class attribute binds the classmethod, so the original has to be put back by hand.
        handles.callback(lambda: setattr(function, "apply", original))

    def compare(self) -> list[WrongFunction]:
        """Compare every remembered Function once; those that cannot be run again are left out."""
        found: list[WrongFunction] = []
        for kind, args in list(self._calls.items()):
            with contextlib.suppress(Exception), _aside():
                found += _compare(kind, args)
        self._calls.clear()
        return found

    def _retire(self) -> None:
        self._open = False


def _copy(cls: Any, args: Sequence[Any]) -> tuple[Any, ...] | None:
    """The arguments, tensors copied; None where they are large, foreign, or the class is not the user's."""
    if kind_of(cls.backward.__code__.co_filename) != USER:
        return None
    tensors = [arg for arg in args if isinstance(arg, torch.Tensor)]
    if not any(tensor.requires_grad for tensor in tensors) or sum(t.numel() for t in tensors) > LARGEST:
        return None
    if any(type(t) not in (torch.Tensor, torch.nn.Parameter) or t.is_complex() for t in tensors):
        return None
    if not all(isinstance(arg, (torch.Tensor, *_PLAIN)) for arg in args):
        return None
    with torch.no_grad():
        return tuple(
            arg.detach().clone().requires_grad_(arg.requires_grad) if isinstance(arg, torch.Tensor) else arg
            for arg in args
        )


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Nothing the user's forward prints, warns or draws at random shows outside."""
    state = random.getstate()
    sink = io.StringIO()
    try:
        with (
            contextlib.redirect_stdout(sink),
            contextlib.redirect_stderr(sink),
            warnings.catch_warnings(),
            torch.random.fork_rng([]),
            torch.enable_grad(),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        random.setstate(state)


def _compare(kind: Any, args: Sequence[Any]) -> Iterator[WrongFunction]:
    inputs = [
        arg.detach().double().requires_grad_(arg.requires_grad)
        if isinstance(arg, torch.Tensor) and arg.is_floating_point()
        else arg
        for arg in args
    ]
    first = _outputs(kind, inputs)
    weights = [torch.rand(out.shape, dtype=torch.float64) + 0.5 for out in first]

    def total() -> float:
        with torch.no_grad():
            outs = _outputs(kind, inputs)
            return float(sum((out * weight).sum() for out, weight in zip(outs, weights, strict=True)))

    if total() != total():
        return
    places = [i for i, arg in enumerate(inputs) if isinstance(arg, torch.Tensor) and arg.requires_grad]
    if any(out.shape == inputs[i].shape and torch.equal(out, inputs[i]) for out in first for i in places):
        return
    tensors = [inputs[i] for i in places]
    backward = torch.autograd.grad(first, tensors, weights, allow_unused=True)
    for place, tensor, gradient in zip(places, tensors, backward, strict=True):
        wrong = _one(kind, place, tensor, gradient, total)
        if wrong is not None:
            yield wrong


def _outputs(kind: Any, inputs: Sequence[Any]) -> list[torch.Tensor]:
    outs = kind.apply(*inputs)
    outs = outs if isinstance(outs, tuple) else (outs,)
    found = [out for out in outs if isinstance(out, torch.Tensor) and out.is_floating_point()]
    if any(out.dtype != torch.float64 for out in found):
        raise TypeError("the forward rounds to another dtype: differences would show its rounding")
    return found


def _one(
    kind: type, place: int, tensor: torch.Tensor, gradient: torch.Tensor | None, total: Callable[[], float]
) -> WrongFunction | None:
    """Compare up to `SAMPLED` elements of one input."""
    stride = max(1, tensor.numel() // SAMPLED)
    flat = tensor.detach().view(-1)
    rows: list[tuple[int, float, float]] = []
    for element in range(0, tensor.numel(), stride)[:SAMPLED]:
        coarse, fine = _slope(flat, element, 10 * STEP, total), _slope(flat, element, STEP, total)
        if abs(coarse - fine) > 1e-3 * max(abs(fine), 1e-3):
            continue  # a kink or a jump: no derivative here
        rows.append((element, float(gradient.reshape(-1)[element]) if gradient is not None else 0.0, fine))
    if not rows or all(abs(fine) < 1e-7 for _, _, fine in rows):
        return None
    scale = max(abs(fine) for _, _, fine in rows)
    worst = max(rows, key=lambda row: abs(row[1] - row[2]))
    if abs(worst[1] - worst[2]) <= TOLERANCE * scale:
        return None
    ratios = [ours / fine for _, ours, fine in rows if abs(fine) > 1e-6 * scale]
    same = max(ratios) - min(ratios) <= 1e-4 * max(abs(r) for r in ratios) if any(ratios) else False
    factor = ratios[0] if same else None
    return WrongFunction(kind, place, *worst, factor, gradient is None, len(rows))


def _slope(flat: torch.Tensor, element: int, step: float, total: Callable[[], float]) -> float:
    kept = float(flat[element])
    step *= max(1.0, abs(kept))
    flat[element] = kept + step
    above = total()
    flat[element] = kept - step
    below = total()
    flat[element] = kept
    return (above - below) / (2 * step)
