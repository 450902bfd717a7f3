"""Checks a custom Function's backward against finite differences of its own forward.

With g the gradient the node received and x its inputs, the derivative of φ(x) = Σ g f(x) along a direction
is a central difference over five points, f being the forward run again in float64 (`explorer.rerun`). It is
compared with what backward returned, element by element at a few places and over all elements at once along
random directions.

A difference quotient counts only where it has settled: the slopes of four intervals lie on a line (no kink)
and two steps give the same. Nothing is said, for a reason that is told, where the forward must not or cannot
be run again, draws random numbers, or has no derivative that its backward could be meant to be: an identity
(reversed or clipped gradients) or a step (straight-through estimators).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import sqrt
from time import perf_counter

import torch

from explorer.convert import dtype_name
from explorer.engine.compare import Comparison
from explorer.engine.rounding import rounding_of
from explorer.engine.sampling import plan
from explorer.rerun import Outputs, Rerun, UncheckableError, aside, double
from hooks.nodes import Event

STEP = 1e-5
"""Relative step of a difference quotient: in float64 both its errors are then about 1e-10."""

ELEMENTS = 24
"""So many elements of each input are compared one by one, all of them where there are no more."""

DIRECTIONS = 2
THOROUGH = 4
"""So many nodes of one class are looked at element by element; later ones along one direction only."""

SECONDS = 0.25
"""Time for one node, once the first direction of each input is done."""

TOTAL_SECONDS = 5.0
"""Time for all custom nodes of one backward."""

NOISE = 16
"""Units of float64 rounding that a forward may leave in what it changes (2 were met: log of a softmax)."""

ROUGH = 1e-2
"""Slopes of neighbouring intervals that leave a line by more than this share meet at a kink."""


@dataclass(slots=True)
class _Slope:
    """One comparison: backward's value and the numeric derivative along a direction, with its error."""

    place: tuple[int, ...] | None  # None: a random direction
    backward: float
    numeric: float
    error: float
    size: float  # what the rounding of backward's value is relative to


class Numeric:
    """Compares custom nodes of one backward; keeps only how many were seen and how long it took."""

    def __init__(self) -> None:
        self._seen: dict[type, int] = {}
        self._seconds = 0.0

    def compare(self, event: Event, wanted: Sequence[bool], whole: bool) -> list[tuple[int, Comparison]]:
        """Compare what a node sent on with finite differences, for each input `wanted`.

        Raises:
            UncheckableError: with the reason, where the forward cannot be differentiated numerically.
        """
        if self._seconds > TOTAL_SECONDS:
            raise UncheckableError("the time for finite differences was used up")
        started = perf_counter()
        try:
            kind = type(event.node)
            count = self._seen[kind] = self._seen.get(kind, 0) + 1
            one = Problem(event, wanted)
            with aside():
                return one.compare(whole or count <= THOROUGH)
        except UncheckableError:
            raise
        except Exception as problem:
            raise UncheckableError(f"they failed ({type(problem).__name__}: {problem})") from problem
        finally:
            self._seconds += perf_counter() - started


class Problem:
    """One node's forward as a function of float64 numbers, its inputs and both gradients."""

    def __init__(self, event: Event, wanted: Sequence[bool]) -> None:
        self._rerun = rerun = Rerun(event.node, event.grad_outputs)
        if len(rerun.inputs) != len(wanted):
            raise UncheckableError("its inputs are not those of its edges")
        returned = event.grad_inputs or ()
        self._inputs = rerun.inputs
        self._returned = [
            torch.zeros_like(x) if one is None else double(one)
            for x, one in zip(self._inputs, returned, strict=True)
        ]
        self._missing = [one is None for one in returned]
        self._slots = [i for i, one in enumerate(wanted) if one and _is_continuous(self._inputs[i])]
        names = [dtype_name(one.dtype) for one in event.grad_outputs if one is not None]
        # Half of the dtype's digits: backward may cancel as it likes, a wrong formula is far off.
        self._tolerance = 4 * sqrt(rounding_of([*rerun.dtypes, *names]).u)
        self._seed = event.index

    # ------------------------------------------------------------------ the comparison

    def compare(self, thorough: bool) -> list[tuple[int, Comparison]]:
        """One `Comparison` per input that wants a gradient."""
        started = perf_counter()
        centre = self._rerun.settled()
        found: list[tuple[int, Comparison]] = []
        flat: list[int] = []
        for slot in self._slots:
            if not bool(torch.isfinite(self._returned[slot]).all()):
                found.append((slot, Comparison("nan-mismatch", reason="backward gave nan or inf")))
                continue
            slopes = self._slopes(slot, centre, thorough, started)
            judged = self._judge(slot, slopes)
            if judged.status == "mismatch" and not thorough:
                slopes += self._elements(slot, centre, started)
                judged = self._judge(slot, slopes)
            if judged.status == "mismatch" and all(one.numeric == 0 for one in slopes):
                flat.append(slot)
            found.append((slot, judged))
        if any(one.status == "mismatch" for _, one in found):
            self._excuse(centre, flat)
        return found

    def _excuse(self, centre: Outputs, flat: Sequence[int]) -> None:
        """A backward that differs on purpose is no mismatch."""
        for slot in self._slots:
            x = self._inputs[slot]
            if any(one is not None and one.shape == x.shape and torch.equal(one, x) for one in centre):
                raise UncheckableError("its forward returns its input: backward differs on purpose")
        if any(not self._missing[slot] for slot in flat):
            raise UncheckableError("its forward is a step (a straight-through estimator?): no derivative")

    def _slopes(self, slot: int, centre: Outputs, thorough: bool, started: float) -> list[_Slope]:
        x = self._inputs[slot]
        found: list[_Slope] = []
        generator = torch.Generator().manual_seed(1000 * self._seed + slot)
        if x.numel() == 0:
            return found
        for _ in range(DIRECTIONS if thorough else 1):
            if found and perf_counter() - started > SECONDS:
                break
            signs = torch.randint(0, 2, (2, *x.shape), generator=generator, dtype=torch.float64) * 2 - 1
            direction = torch.complex(signs[0], signs[1]) if x.is_complex() else signs[0]
            slope = self._slope(slot, direction.to(x.device) * _scale(x), centre, None)
            found += [] if slope is None else [slope]
        return found + (self._elements(slot, centre, started) if thorough else [])

    def _elements(self, slot: int, centre: Outputs, started: float) -> list[_Slope]:
        x = self._inputs[slot]
        scale = _scale(x)
        points = plan(tuple(x.shape), self._seed, ELEMENTS)
        largest = int(self._returned[slot].abs().argmax())
        points = [*points, tuple(int(i) for i in _unravel(largest, x.shape))]
        found: list[_Slope] = []
        for point in dict.fromkeys(points):
            if perf_counter() - started > SECONDS:
                break
            direction = torch.zeros_like(scale)
            direction[point] = scale[point]
            slope = self._slope(slot, direction, centre, point)
            found += [] if slope is None else [slope]
        return found

    def _slope(
        self,
        slot: int,
        direction: torch.Tensor,
        centre: Outputs,
        place: tuple[int, ...] | None,
    ) -> _Slope | None:
        """The derivative along `direction` beside backward's; None where the quotient does not settle."""
        values = [self._moved(slot, direction, k * STEP) for k in (-2, -1)]
        values += [list(centre), *(self._moved(slot, direction, k * STEP) for k in (1, 2))]
        steps = [self._difference(a, b) for a, b in pairwise(values)]
        slopes = [step / STEP for step, _ in steps]
        noise = sum(size for _, size in steps) * NOISE * 2.0**-52 / STEP
        near, far = (slopes[1] + slopes[2]) / 2, sum(slopes) / 4
        if not all(abs(one) < float("inf") for one in slopes):  # nan included
            return None
        # Over four intervals the slopes of a smooth function lie on a line; a kink bends it.
        bend = max(abs(a - 2 * b + c) for a, b, c in zip(slopes, slopes[1:], slopes[2:], strict=False))
        if bend > ROUGH * max(map(abs, slopes)) + noise:
            return None
        product = (self._returned[slot].conj() * direction).real
        unit = float(direction.abs().max()) if place is not None else 1.0
        return _Slope(
            place,
            float(product.sum()) / unit,
            near / unit,
            (2 * abs(near - far) + bend + noise) / unit,
            float(product.norm()) / unit,
        )

    def _moved(self, slot: int, direction: torch.Tensor, step: float) -> list[torch.Tensor | None]:
        inputs = list(self._inputs)
        inputs[slot] = inputs[slot] + step * direction
        return self._rerun.outputs(inputs)

    def _difference(self, low: Outputs, high: Outputs) -> tuple[float, float]:
        """φ(high) - φ(low), and the size of what changed: outputs that stay cancel exactly."""
        total = size = most = 0.0
        for a, b, upstream in zip(low, high, self._rerun.upstream, strict=True):
            if a is None or b is None or upstream is None or not a.numel():
                continue
            change = b - a
            sizes = (upstream * torch.maximum(a.abs(), b.abs())).abs()
            total += float((upstream.conj() * change).real.sum())
            size += float(sizes[change != 0].sum())
            most = max(most, float(sizes.max()))
        return total, max(size, most)  # a change too small for the largest output leaves it as it was

    # ------------------------------------------------------------------ the verdict

    def _judge(self, slot: int, slopes: Sequence[_Slope]) -> Comparison:
        x = self._inputs[slot]
        total = x.numel()
        if total == 0:
            return Comparison("match")
        single = [one for one in slopes if one.place is not None]
        if not slopes:
            return Comparison("unchecked", of=total, reason=f"input {slot} has no smooth place nearby")
        largest = max((abs(one.numeric) for one in single), default=0.0)
        elements = total if self._sees_all(slopes) else len(single)
        judged: list[tuple[float, bool, _Slope]] = []
        for one in slopes:
            scale = max(abs(one.numeric), 0.1 * largest if one.place is not None else one.size)
            bound = self._tolerance * scale + one.error
            gap = abs(one.backward - one.numeric)
            share = gap / bound if bound else float("inf") if gap else 0.0
            judged.append((share, one.place is not None, one))
        # An element says more than a direction: where one is wrong, it is named.
        wrong = [row for row in judged if row[0] > 1 and row[1]] or judged
        ratio, _, worst = max(wrong, key=lambda row: row[0])
        if ratio <= 1:
            return Comparison("match", ratio, elements, total)
        reason = self._reason(slot, worst, slopes)
        return Comparison("mismatch", ratio, elements, total, worst.place or (), reason=reason)

    def _sees_all(self, slopes: Sequence[_Slope]) -> bool:
        """Whether a random direction, which meets every element, settled well enough to tell."""
        return any(one.place is None and one.error <= self._tolerance * one.size for one in slopes)

    def _reason(self, slot: int, worst: _Slope, slopes: Sequence[_Slope]) -> str:
        if self._missing[slot]:
            said = "backward gave None, the numeric derivative is not zero"
        else:
            said = self._factor(slopes, self._inputs[slot].numel())
        if worst.place is None:
            where = "along a random direction"
        else:
            where = "at [" + ", ".join(map(str, worst.place)) + "]"
        values = f"{where}: backward {worst.backward:.9g}, numeric derivative {worst.numeric:.9g}"
        return f"{said}; {values}" if said else values

    def _factor(self, slopes: Sequence[_Slope], total: int) -> str:
        """ "1.5x the numeric derivative at every element", where one factor explains all."""
        single = [one for one in slopes if one.place is not None]
        largest = max((abs(one.numeric) for one in single), default=0.0)
        clear = [one for one in single if abs(one.numeric) > 1e-3 * largest]
        if not clear:
            return ""
        factors = [one.backward / one.numeric for one in clear]
        middle = sorted(factors)[len(factors) // 2]
        for one in slopes:
            slack = self._tolerance * max(abs(one.numeric), 0.1 * largest, one.size) + one.error
            if abs(one.backward - middle * one.numeric) > (1 + abs(middle)) * slack:
                return ""
        everywhere = len(single) == total or self._sees_all(slopes)
        return f"{middle:.3g}x the numeric derivative at every element" + ("" if everywhere else " looked at")


# -------------------------------------------------------------------- what several of these need


def _is_continuous(tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _scale(x: torch.Tensor) -> torch.Tensor:
    """How far each element is moved at step 1: its size, or a hundredth of the typical size; 1 for zeros."""
    size = x.abs()
    typical = float(size.square().mean().sqrt())
    return size.clamp(min=0.01 * typical) if typical else torch.ones_like(size)


def _unravel(flat: int, shape: Sequence[int]) -> list[int]:
    point: list[int] = []
    for size in reversed(shape):
        point.append(flat % size)
        flat //= size
    return point[::-1]
