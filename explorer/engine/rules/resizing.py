"""Rules of resizing: nearest, linear, bicubic, with antialiasing; and their double backward.

Every one is a product of one sparse matrix per axis: output q reads input p with weight w[q, p]. The gradient
reads the same matrix the other way round, and the gradient of the gradient reads it as the forward does.
Torch computes positions and weights in the precision of the tensor (float32 for the half types), so each
weight has a slack; nearest neighbours it finds in float32 whatever the tensor is, and so does `_nearest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from math import ceil, floor, pi, prod, sin
from typing import TypeAlias

from explorer.engine.array import Array
from explorer.engine.contract import Point
from explorer.engine.registry import Site, vjp
from explorer.engine.rounding import rounding_of, stored
from explorer.engine.run import Run
from explorer.engine.weighted import Term, weighted

Vjp = list[Array | None]
Matrix: TypeAlias = "list[list[tuple[int, float, float]]]"
"""Row q: the (p, w, slack of w) that output q reads."""
Kernel: TypeAlias = Callable[[float], float]

# -------------------------------------------------------------------- positions


def single(x: float) -> float:
    """`x` rounded to float32."""
    return stored(x, "float32")


def scale_of(size: int, count: int, given: float | None, align: bool) -> float:
    """Input steps per output step."""
    if align:
        return (size - 1) / (count - 1) if count > 1 else 0.0
    return 1 / given if given and given > 0 else size / count


def _nearest(size: int, count: int, given: float | None, shift: float) -> Matrix:
    """⌊(q + shift) s⌋, in float32; without shift torch looks at no scale where it copies or doubles."""
    if not shift and count in (size, 2 * size):
        return [[(q * size // count, 1.0, 0.0)] for q in range(count)]
    step = single(scale_of(size, count, given, False))
    places = [floor(single((q + shift) * step)) for q in range(count)]
    return [[(min(place, size - 1), 1.0, 0.0)] for place in places]


def _position(q: int, step: float, align: bool, ua: float) -> tuple[float, float]:
    """Where output `q` lies among the inputs, and the error of that."""
    place = q * step if align else (q + 0.5) * step - 0.5
    return place, 4 * ua * (abs(place) + 1)


# -------------------------------------------------------------------- kernels


def _linear(x: float) -> float:
    return max(0.0, 1 - abs(x))


def cubic(x: float, a: float = -0.75) -> float:
    """Keys' cubic convolution; torch has a = -0.75, and -0.5 where it antialiases."""
    x = abs(x)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return ((x - 5) * x + 8) * x * a - 4 * a if x < 2 else 0.0


def _lanczos(x: float) -> float:
    if abs(x) >= 3:
        return 0.0
    return 1.0 if x == 0 else sin(pi * x) * sin(pi * x / 3) * 3 / (pi * x) ** 2


def _interpolated(size: int, count: int, step: float, align: bool, kernel: Kernel, ua: float) -> Matrix:
    """Rows of an interpolation whose taps beyond the border read the border."""
    rows: Matrix = []
    if kernel is _linear and size == count:
        return [[(q, 1.0, 0.0)] for q in range(count)]  # torch copies, whatever the scale says
    for q in range(count):
        place, error = _position(q, step, align, ua)
        if kernel is _linear:
            place = min(max(place, 0.0), float(size - 1))
        row: dict[int, tuple[float, float]] = {}
        reach, slack = (1, error + ua) if kernel is _linear else (2, 1.5 * error + 40 * ua)
        for tap in range(floor(place - error) - reach + 1, ceil(place + error) + reach):
            at = min(max(tap, 0), size - 1)
            weight, before = row.get(at, (0.0, 0.0))
            row[at] = weight + kernel(place - tap), before + slack
        rows.append([(at, weight, slack) for at, (weight, slack) in sorted(row.items())])
    return rows


def _antialiased(size: int, count: int, step: float, kernel: Kernel, support: int, ua: float) -> Matrix:
    """Rows of a kernel as wide as one step, with what lies beyond the border left out and the rest scaled."""
    wide = max(step, 1.0)
    rows: Matrix = []
    for q in range(count):
        centre = step * (q + 0.5)
        low, high = int(centre - support * wide + 0.5), int(centre + support * wide + 0.5)
        taps = range(max(low, 0), min(high, size))
        weights = [kernel((tap - centre + 0.5) / wide) for tap in taps]
        total = sum(weights)
        each = 6 * ua * (centre + support * wide + 1) / wide + 40 * ua
        slack = [each + abs(weight / total) * each * len(weights) for weight in weights]
        found = zip(taps, weights, slack, strict=True)
        row = [(tap, weight / total, error / abs(total)) for tap, weight, error in found]
        rows.append(row)
    return rows


# -------------------------------------------------------------------- the matrices of a node


def _flipped(rows: Matrix, size: int) -> Matrix:
    """The transpose."""
    found: Matrix = [[] for _ in range(size)]
    for q, row in enumerate(rows):
        for p, weight, slack in row:
            found[p].append((q, weight, slack))
    return found


def _scales(n: Site, spatial: int) -> list[float | None]:
    """The scale factors given by the user, slowest axis first."""
    if spatial == 1:
        return [n.scales]
    return [getattr(n, f"scales_{axis}") for axis in "dhw"[3 - spatial :]]


def _matrices(n: Site, sizes: Sequence[int], counts: Sequence[int]) -> list[Matrix]:
    """One matrix per axis that is resized from `sizes` to `counts`."""
    ua = rounding_of([spec.dtype for spec in (*n.inputs, *n.outputs) if spec is not None]).ua
    found = []
    for size, count, given in zip(sizes, counts, _scales(n, len(sizes)), strict=True):
        if "Nearest" in n.name:
            found.append(_nearest(size, count, given, 0.5 if "Exact" in n.name else 0.0))
            continue
        step = scale_of(size, count, given, n.align_corners)
        if "Aa" in n.name:
            support, kernel = _WIDE["Bicubic" if "Bicubic" in n.name else n.name[8:15]]
            found.append(_antialiased(size, count, step, kernel, support, ua))
        else:
            kernel = cubic if "Bicubic" in n.name else _linear
            found.append(_interpolated(size, count, step, n.align_corners, kernel, ua))
    return found


_WIDE: dict[str, tuple[int, Kernel]] = {
    "Bilinea": (1, _linear),
    "Bicubic": (2, lambda x: cubic(x, -0.5)),
    "Lanczos": (3, _lanczos),
}


def _applied(source: Array, shape: Sequence[int], rows: Sequence[Matrix]) -> Array:
    """y[q] = Σ source[p] Π w[q, p] over the last axes, one matrix each."""
    lead = len(shape) - len(rows)

    def terms(point: Point, run: Run) -> list[Term]:
        lines = [axis[place] for axis, place in zip(rows, point[lead:], strict=True)]
        found = []
        for taps in product(*lines):
            weight = prod(w for _, w, _ in taps)
            slack = prod(abs(w) + s for _, w, s in taps) - prod(abs(w) for _, w, _ in taps)
            found.append(((*point[:lead], *(p for p, _, _ in taps)), weight, slack))
        return found

    return weighted(shape, source, terms)


_SORTS = (
    *(f"Nearest{k}D" for k in (1, 2, 3)), *(f"NearestExact{k}D" for k in (1, 2, 3)), "Linear1D", "Bilinear2D",
    "Trilinear3D", "Bicubic2D", "Bilinear2DAa", "Bicubic2DAa", "Lanczos2DAa",
)  # fmt: skip


@vjp(*[f"Upsample{sort}Backward0" for sort in _SORTS])
def upsample(n: Site, g: Array) -> Vjp:
    """y[q] = Σ_p x[p] Π w[q, p]:  dx[p] = Σ_q g[q] Π w[q, p]."""
    shape = n.shape(0)
    rows = _matrices(n, shape[2:], g.shape[2:])
    return [_applied(g, shape, [_flipped(*pair) for pair in zip(rows, shape[2:], strict=True)])]


@vjp(*[f"Upsample{sort}BackwardBackward0" for sort in _SORTS])
def upsample_backward(n: Site, c: Array) -> Vjp:
    """h[p] = Σ_q g[q] Π w[q, p]:  dg[q] = Σ_p c[p] Π w[q, p]: resizing itself."""
    shape = n.shape(0)
    return [_applied(c, shape, _matrices(n, c.shape[2:], shape[2:]))]
