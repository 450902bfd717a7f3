"""Sees gradients that nobody uses: an optimizer that clears them and never steps, a parameter left out.

Two things are followed, both weakly. Of each optimizer that has not stepped yet: how often its ``zero_grad``
threw finite gradients away, and whether its first parameter is still what it was. Of each parameter that no
optimizer is known to hold: in how many calls it got a gradient, and whether anybody cleared or changed that.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from hooks.capturing import capturing
from hooks.handles import Handles
from hooks.lines import user_place
from hooks.memory import has_memory
from hooks.places import Place
from hooks.unseen import unseen

GIVEN_UP = 3
"""So many times gradients must have been thrown away, or kept, before anything is said."""
FOLLOWED = 16
"""Calls in which ``.grad`` is looked at each time; afterwards only its identity counts."""
SAMPLED = 256
"""So many elements, spread over a parameter, tell whether somebody changed it through ``.data``."""
_PLAIN = (torch.Tensor, torch.nn.Parameter)
State: TypeAlias = "tuple[int, int | None]"
"""A parameter's version and a hash of some of its elements, None as long as they were not read."""


@dataclass(slots=True)
class Waiting:
    """An optimizer that never stepped: `thrown` times its ``zero_grad`` at `place` cleared finite gradients.

    `alone`: all leaves that backward had reached by then are its own parameters.
    """

    optimizer: weakref.ref[Any]
    parameter: weakref.ref[torch.Tensor]
    place: Place
    state: State
    thrown: int = 1
    alone: bool = False

    @property
    def unchanged(self) -> bool:
        """Whether its first parameter still is what it was; so is one that is gone."""
        parameter = self.parameter()
        return parameter is None or state_of(parameter) == self.state


@dataclass(slots=True)
class Kept:
    """A parameter whose ``.grad`` grew in `calls` backward calls; of one call its elements are not read yet.

    `cleared`: somebody ended that. `held`: an optimizer that holds it has stepped after all.
    """

    parameter: weakref.ref[torch.Tensor]
    state: State
    gradient: weakref.ref[torch.Tensor]
    version: int
    calls: int = 1
    cleared: bool = False
    held: bool = False

    @property
    def unchanged(self) -> bool:
        """Whether the parameter still is what it was; so is one that is gone."""
        parameter = self.parameter()
        version, elements = self.state
        if parameter is None or elements is None:
            return parameter is None or parameter._version == version
        return state_of(parameter) == self.state

    @property
    def growing(self) -> bool:
        """Whether its gradient is still the one that nobody has cleared."""
        parameter = self.parameter()
        return not self.cleared and (parameter is None or parameter.grad is self.gradient())


class Idle:
    """Attach with `attach`; `before_backward` and `after_backward` follow the gradients in between.

    Args:
        alone: whether all leaves that backward is known to have reached are among these parameters.
    """

    def __init__(self, alone: Callable[[Iterable[torch.Tensor]], bool]) -> None:
        self.problem = ""
        self.stepped = False
        self._alone = alone
        self._calls = 0
        self._waiting: dict[int, Waiting | None] = {}
        self._over: list[Waiting] = []
        self._kept: dict[int, Kept] = {}
        self._steps = 0
        self._fed: dict[int, weakref.ref[torch.Tensor]] = {}

    def attach(self, handles: Handles) -> None:
        """See the optimizers' steps and ``zero_grad``; `handles` puts everything back."""
        handles.add(register_optimizer_step_pre_hook(self._stepping))
        original: Callable[..., Any] = torch.optim.Optimizer.zero_grad
        open_ = [True]

        def zero_grad(self_: Any, *args: Any, **kwargs: Any) -> Any:
            if open_[0] and not torch.compiler.is_compiling() and not capturing():
                self._clearing(self_)
            return original(self_, *args, **kwargs)

        zero_grad.__doc__ = original.__doc__
        handles.patch(torch.optim.Optimizer, "zero_grad", zero_grad)
        handles.callback(lambda: open_.__setitem__(0, False))

    def waiting(self) -> list[Waiting]:
        """The optimizers that threw gradients away, at least `GIVEN_UP` times, and never stepped."""
        found = [*self._over, *(one for one in list(self._waiting.values()) if one is not None)]
        return [one for one in found if one.thrown >= GIVEN_UP and one.unchanged]

    def kept(self) -> list[Kept]:
        """The followed parameters that nobody changed, whose gradient came in `GIVEN_UP` calls or more."""
        return [
            one
            for one in list(self._kept.values())
            if one.calls >= GIVEN_UP and not one.held and one.unchanged
        ]

    def was_fed(self, parameter: torch.Tensor) -> bool:
        """Whether one of the first steps found a gradient in it, whoever put that there."""
        fed = self._fed.get(id(parameter))
        return fed is not None and fed() is parameter

    def give_up(self) -> None:
        """Follow no gradient any more: not all of them can be looked at."""
        self._calls = FOLLOWED + 1
        self._kept.clear()

    def before_backward(self) -> None:
        """End the line of every gradient that somebody changed or cleared."""
        if self._calls > FOLLOWED:
            return
        for kept in list(self._kept.values()):  # backward may run in several threads
            parameter, gradient = kept.parameter(), kept.gradient()
            if parameter is not None and (
                gradient is None or parameter.grad is not gradient or gradient._version != kept.version
            ):
                kept.cleared = True

    def after_backward(self, free: Iterable[torch.Tensor]) -> None:
        """Note what backward added to the gradients of `free`: what no optimizer is known to hold."""
        self._calls += 1
        if self._calls > FOLLOWED:
            return
        for parameter in free:
            gradient = parameter.grad
            if gradient is None or type(gradient) is not torch.Tensor or gradient.layout is not torch.strided:
                continue
            known = self._kept.get(id(parameter))
            if known is None or known.parameter() is not parameter:
                if _can_be_read(parameter):
                    state = (parameter._version, None)
                    self._kept[id(parameter)] = Kept(
                        weakref.ref(parameter), state, weakref.ref(gradient), gradient._version
                    )
            elif known.gradient() is not gradient or gradient._version != known.version:
                known.cleared |= known.gradient() is not gradient
                known.gradient, known.version = weakref.ref(gradient), gradient._version
                known.calls += 1
                if known.state == (parameter._version, None):
                    known.state = state_of(parameter)

    def _stepping(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        self.stepped = True
        self._waiting[id(optimizer)] = None
        self._steps += 1
        if self.problem or (not self._kept and self._steps > FOLLOWED):
            return
        try:
            with unseen():
                self._note_fed(optimizer)
        except Exception as error:  # noqa: BLE001 - the user's step must not notice
            self.problem = f"following optimizer steps failed: {type(error).__name__}: {error}"

    def _note_fed(self, optimizer: Any) -> None:
        for parameter in (p for group in optimizer.param_groups for p in group["params"]):
            kept = self._kept.get(id(parameter))
            if kept is not None and kept.parameter() is parameter:
                kept.held = True
                self._kept.pop(id(parameter), None)
            if self._steps <= FOLLOWED and parameter.grad is not None:
                self._fed[id(parameter)] = weakref.ref(parameter)

    def _clearing(self, optimizer: Any) -> None:
        """Note gradients that are about to be cleared; what fails ends the following."""
        if self.problem:
            return
        try:
            with unseen():
                self._note(optimizer)
        except Exception as error:  # noqa: BLE001 - the user's zero_grad must not notice
            self.problem = f"following zero_grad failed: {type(error).__name__}: {error}"

    def _note(self, optimizer: Any) -> None:
        key = id(optimizer)
        known = self._waiting.get(key)
        if known is None and key in self._waiting:
            return
        held = [p for group in optimizer.param_groups for p in group["params"]]
        gradients = [p.grad for p in held if p.grad is not None]
        if known is not None and known.optimizer() is not optimizer:
            self._over += [known] * (known.thrown >= GIVEN_UP)
            known = None
        if not gradients or (known is None and self._seen_zeros(gradients)):
            return
        first = next((p for p in held if p.requires_grad and _can_be_read(p)), None)
        place = user_place(sys._getframe(3))
        if first is None or place is None or optimizer.state:  # it has stepped before anybody looked
            self._waiting[key] = None
        elif known is None:
            if not _finite(gradients):
                self._waiting[key] = None
                return
            self._waiting[key] = Waiting(weakref.ref(optimizer), weakref.ref(first), place, state_of(first))
        elif known.thrown < GIVEN_UP and self._seen_zeros(gradients):
            return
        elif (known.thrown < GIVEN_UP and not _finite(gradients)) or not known.unchanged:
            self._waiting[key] = None
        else:
            known.thrown += 1
            if known.thrown == GIVEN_UP:
                known.alone = self._alone(held)

    def _seen_zeros(self, gradients: list[torch.Tensor]) -> bool:
        """Whether all of them were cleared already."""
        with torch.no_grad():
            return not any(bool(one.any()) for one in map(_elements, gradients) if one is not None)


def state_of(parameter: torch.Tensor) -> State:
    """What tells whether somebody changed a parameter: its version, and some elements, told by their hash.

    A change through ``.data`` leaves the version as it is. nan is told as -1.
    """
    if not has_memory(parameter):  # FSDP has given it back
        return parameter._version, 0
    with torch.no_grad():
        flat = parameter.detach().reshape(-1)
        some = flat[:: max(1, flat.numel() // SAMPLED)].abs().cpu().double()
        return parameter._version, hash(tuple(some.nan_to_num(nan=-1.0).tolist()))


def _can_be_read(tensor: torch.Tensor) -> bool:
    plain = type(tensor) in _PLAIN and tensor.layout is torch.strided
    return plain and not tensor.is_meta and has_memory(tensor)


def _elements(gradient: torch.Tensor) -> torch.Tensor | None:
    """What can be asked for its elements; None for what cannot."""
    gradient = gradient.detach()
    if gradient.is_meta or type(gradient) is not torch.Tensor:
        return None
    if gradient.layout is torch.sparse_coo:
        return gradient.coalesce().values()
    return gradient if has_memory(gradient) else None


def _finite(gradients: list[torch.Tensor]) -> bool:
    """Whether a step could have been taken: a scaler of losses leaves out those that overflowed."""
    with torch.no_grad():
        found = [_elements(one) for one in gradients]
        return all(one is not None and bool(one.isfinite().all()) for one in found)
