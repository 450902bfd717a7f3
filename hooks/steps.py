"""Sees optimizer steps: which parameters they hold, which line took them, and gradients used twice.

A ``.grad`` that a step has used is followed to the next step of the same parameter. Only an unbroken
line counts: the same tensor, unchanged between the step and the backward that accumulates into it, and
not cleared since. Whatever else happens to it (``zero_grad``, ``= None``, scaling by hand) ends the line.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from hooks.capturing import capturing
from hooks.handles import Handles
from hooks.lines import user_place
from hooks.memory import has_memory, storage_of
from hooks.places import Place
from hooks.unseen import unseen

FOLLOWED_STEPS = 6
"""Steps per optimizer that are followed; who forgets to clear gradients shows it in the second."""
GIVEN_UP = 2
"""Steps without any gradient that an optimizer must have taken."""
PROBED = 4096
"""The element that stands for a gradient is the largest among this many at its beginning."""


@dataclass(frozen=True, slots=True)
class Reused:
    """A step that used a gradient an earlier step had used: `total` = `before` + what backward added.

    The numbers are one element (flat index `element`) of the parameter's ``.grad``.
    """

    parameter: weakref.ref[torch.Tensor]
    place: Place | None
    before: float
    total: float
    element: int


@dataclass(slots=True)
class Starved:
    """An optimizer whose `steps` saw no gradient; the first `values` of `parameter` stayed as they were."""

    parameter: weakref.ref[torch.Tensor]
    place: Place | None
    values: tuple[float, ...]
    steps: int = 1

    @property
    def unchanged(self) -> bool:
        """Whether the parameter still is what it was at the first step; so is one that is gone.

        Of one whose memory was given back nothing is known, and no.
        """
        parameter = self.parameter()
        return parameter is None or (has_memory(parameter) and _beginning(parameter) == self.values)


@dataclass(slots=True)
class _Used:
    """The gradient of one parameter since the step that used it, where `element` was `first`.

    Only the `thread` that took the step looks at it again: while another one looks, this one's engine may be
    freeing it, and torch is not made for that (the process would die).
    """

    parameter: weakref.ref[torch.Tensor]
    gradient: weakref.ref[torch.Tensor]
    version: int
    element: int
    first: float
    total: float
    accumulated: bool = False
    thread: int = field(default_factory=get_ident)


class Steps:
    """Attach with `attach`; `before_backward` and `after_backward` follow the gradients in between."""

    def __init__(self) -> None:
        self.reused: Reused | None = None
        self.problem = ""
        self._starved: dict[int, Starved | None] = {}
        self._optimizers: dict[int, weakref.ref[Any]] = {}
        self._taken: dict[int, int] = {}
        self._used: dict[int, _Used] = {}
        self._changed: dict[int, tuple[weakref.ref[torch.Tensor], Place | None, int]] = {}

    def attach(self, handles: Handles) -> None:
        """Register the hooks for every optimizer of the process, owned by `handles`."""
        handles.add(register_optimizer_step_pre_hook(self._guarded(self._before)))
        handles.add(register_optimizer_step_post_hook(self._guarded(self._after)))

    def held(self) -> list[torch.Tensor]:
        """All parameters of the optimizers that took a step and still live."""
        return [
            p
            for ref in list(self._optimizers.values())
            if (held := ref()) is not None
            for p in _parameters(held)
        ]

    def step_that_changed(self, storage: int, since: int) -> tuple[torch.Tensor, Place | None] | None:
        """The parameter on `storage` that a step changed after its version `since`, and that step's line."""
        for ref, place, version in list(self._changed.values()):
            parameter = ref()
            if parameter is not None and version > since and storage_of(parameter) == storage:
                return parameter, place
        return None

    def before_backward(self) -> None:
        """End the line of every gradient that somebody changed or cleared since its step."""
        for key, used in self._own():
            gradient = _gradient(used)
            if gradient is None or gradient._version != used.version or _at(gradient, used) != used.total:
                self._used.pop(key, None)

    def after_backward(self) -> None:
        """Note what the backward added to the gradients still followed."""
        for key, used in self._own():
            gradient = _gradient(used)
            if gradient is None:
                self._used.pop(key, None)
            elif gradient._version != used.version:
                used.version, used.accumulated = gradient._version, True
                used.total = _at(gradient, used)

    def _own(self) -> list[tuple[int, _Used]]:
        """What this thread follows: backward may run in several."""
        here = get_ident()
        return [(key, used) for key, used in list(self._used.items()) if used.thread == here]

    def _guarded(self, look: Callable[..., None]) -> Callable[..., None]:
        """`look`, whose first exception ends the following of steps and never reaches the user's step."""

        def guarded(optimizer: Any, args: Any, kwargs: Any) -> None:
            if self.problem or torch.compiler.is_compiling() or capturing():
                return
            try:
                with unseen():
                    look(optimizer, any(one is not None for one in (*args[1:], *kwargs.values())))
            except Exception as error:  # noqa: BLE001 - the user's step must not notice
                self.problem = f"following optimizer steps failed: {type(error).__name__}: {error}"

        return guarded

    def starved(self) -> list[Starved]:
        """The optimizers that took at least `GIVEN_UP` steps and found no gradient in any of them.

        One that is given a closure, and one whose first parameter changed all the same, is left out.
        """
        return [
            one for one in list(self._starved.values()) if one and one.steps >= GIVEN_UP and one.unchanged
        ]

    def _follow_starving(self, optimizer: Any, closure: bool) -> None:
        key = id(optimizer)
        known = self._starved.get(key)
        if known is None and key in self._starved:
            return
        parameters = _parameters(optimizer)
        first = next((p for p in parameters if p.requires_grad and _can_be_read(p)), None)
        if closure or first is None or any(p.grad is not None for p in parameters):
            self._starved[key] = None
        elif known is None:
            self._starved[key] = Starved(weakref.ref(first), user_place(sys._getframe(2)), _beginning(first))
        elif known.parameter() is not first or not known.unchanged:
            self._starved[key] = None
        else:
            known.steps += 1

    def _before(self, optimizer: Any, closure: bool) -> None:
        self._follow_starving(optimizer, closure)
        for parameter in _parameters(optimizer) if self._used and self.reused is None else ():
            used = self._used.get(id(parameter))
            if used is None or not used.accumulated or used.thread != get_ident():
                continue
            if used.parameter() is not parameter:
                continue
            gradient = _gradient(used)
            if gradient is not None and _at(gradient, used) != 0:
                place = user_place(sys._getframe(1))
                self.reused = Reused(used.parameter, place, used.first, used.total, used.element)
                self._used.clear()
                return

    def _after(self, optimizer: Any, closure: bool) -> None:
        key = id(optimizer)
        known = self._optimizers.get(key)
        if known is None or known() is not optimizer:
            self._optimizers[key] = weakref.ref(optimizer)
            self._taken[key] = 0
        self._taken[key] += 1
        place = user_place(sys._getframe(1))
        follow = self.reused is None and self._taken[key] <= FOLLOWED_STEPS
        for parameter in _parameters(optimizer):
            self._changed[id(parameter)] = (weakref.ref(parameter), place, parameter._version)
            used = _follow(parameter) if follow else None
            if used is not None:
                self._used[id(parameter)] = used
            else:
                self._used.pop(id(parameter), None)


def _beginning(tensor: torch.Tensor) -> tuple[float, ...]:
    """The first few values of a parameter, which tell whether somebody changed it; nan is told as -1."""
    with torch.no_grad():
        some = tensor.detach().reshape(-1)[:16].abs().cpu().double()
        return tuple(some.nan_to_num(nan=-1.0).tolist())


def _can_be_read(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in (torch.Tensor, torch.nn.Parameter) and tensor.layout is torch.strided
    return plain and not tensor.is_meta and has_memory(tensor)


def _parameters(optimizer: Any) -> list[torch.Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _follow(parameter: torch.Tensor) -> _Used | None:
    """The gradient of `parameter` as a step left it; None for one that cannot be followed."""
    gradient = parameter.grad
    if gradient is None or not _can_be_read(gradient) or not gradient.numel():
        return None
    if type(gradient) is not torch.Tensor or gradient.is_complex():
        return None
    with torch.no_grad():
        element = int(gradient.reshape(-1)[:PROBED].abs().argmax())
        used = _Used(weakref.ref(parameter), weakref.ref(gradient), gradient._version, element, 0.0, 0.0)
        used.first = used.total = _at(gradient, used)
    return used if used.first != 0 else None


def _gradient(used: _Used) -> torch.Tensor | None:
    """The followed gradient, if it still is its parameter's."""
    parameter, gradient = used.parameter(), used.gradient()
    return gradient if parameter is not None and parameter.grad is gradient else None


def _at(gradient: torch.Tensor, used: _Used) -> float:
    with torch.no_grad():
        return float(gradient.reshape(-1)[used.element])
