"""`Array`: a recipe that computes only the elements asked for.

An array knows its shape and how to compute any of its elements, and computes nothing until asked:

    eval(box, run)            the elements of a product of index sequences, one per axis
    at(coords, count, run)    `count` single elements; `coords` holds one index list per axis

Both give ``(values, errors)``: flat row-major lists, `errors` bounding what torch's rounding may have
done to each value (None: exact). Evaluating everything is the same recipe over `full_box`.

Operators build recipes, so that a rule reads like its mathematics:

    gy = g * n.result
    return [gy - n.result * gy.sum(n.dim, keepdim=True)]

Shapes broadcast as in torch. The modules beside this one hold the kinds of recipes: `leaf` (memory),
`elementwise`, `views`, `reduce`, `contract`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING, TypeAlias

from explorer.engine.memory import Box, Values
from explorer.engine.run import Bounded, Errors, Run
from explorer.errors import ShapeError

if TYPE_CHECKING:
    from explorer.engine.operations import Operation

Operand: TypeAlias = "Array | float | int | bool | complex"
Dims: TypeAlias = "int | Sequence[int] | None"
Coords: TypeAlias = "Sequence[Sequence[int]]"

__all__ = [
    "Array",
    "Bounded",
    "Box",
    "Coords",
    "Derived",
    "Dims",
    "Errors",
    "Operand",
    "Values",
    "broadcast_shapes",
]


class Array:
    """An n-dimensional recipe. Subclasses compute in `_box` (and may do better in `_at`)."""

    __slots__ = ("shape", "uses")

    def __init__(self, shape: Sequence[int]) -> None:
        self.shape: tuple[int, ...] = tuple(shape)
        self.uses = 0  # how many recipes read this one: shared results are kept during a run

    # ------------------------------------------------------------------ evaluation

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def numel(self) -> int:
        """Number of elements; 1 for a 0-d array, 0 for an empty one."""
        return prod(self.shape)

    @property
    def full_box(self) -> Box:
        """The box of all elements."""
        return tuple(range(size) for size in self.shape)

    def eval(self, box: Box, run: Run) -> Bounded:
        """The elements of `box`, row-major. Shared recipes are evaluated once per run and box."""
        if self.uses < 2:
            found = self._box(box, run)
            if run.peak is not None:
                run.see(found[0])
            return found
        key = (self, box, run.bounds)
        kept: Bounded | None = run.recall(key)
        if kept is None:
            before = run.work
            kept = self._box(box, run)
            run.keep(key, kept, before)
            if run.peak is not None:
                run.see(kept[0])
        return kept

    def at(self, coords: Coords, count: int, run: Run) -> Bounded:
        """`count` single elements; ``coords[axis][i]`` is the index of element i along an axis."""
        if self.uses < 2 or count == 1:
            found = self._at(coords, count, run)
        else:
            key = (self, count, tuple(map(tuple, coords)), run.bounds)  # count: a 0-d array has no coords
            kept: Bounded | None = run.recall(key)
            if kept is None:
                before = run.work
                kept = self._at(coords, count, run)
                run.keep(key, kept, before)
            found = kept
        if run.peak is not None:
            run.see(found[0])
        return found

    def _box(self, box: Box, run: Run) -> Bounded:
        """What `eval` gives, not kept yet.

        No abstract method: leaves answer `eval` and `at` themselves, and with an abstract class every
        ``isinstance`` would take longer, a fifth of what building a product takes.
        """
        raise NotImplementedError

    def _at(self, coords: Coords, count: int, run: Run) -> Bounded:
        """Point by point through `eval`; recipes that can do better override this."""
        values: Values = []
        errors: list[float] = []
        exact = True
        for point in zip(*coords, strict=True) if coords else [()] * count:
            value, error = self.eval(tuple((i,) for i in point), run)
            values += value
            if error is None:
                errors.append(0.0)
            else:
                exact = False
                errors += error
        return values, None if exact or not run.bounds else errors

    def values(self, run: Run | None = None) -> Values:
        """Every element, flat and row-major (float64 rounding unless a `run` says otherwise)."""
        if self.numel == 0:
            return []
        return self.eval(self.full_box, run or Run(rounding.ROUNDINGS["float64"], bounds=False))[0]

    def item(self) -> float:
        """The one element of an array of one element."""
        if self.numel != 1:
            raise ShapeError(f"item() needs one element, not shape {self.shape}")
        value: float = self.values()[0]
        return value

    def __repr__(self) -> str:
        return f"{type(self).__name__}(shape={self.shape})"

    def projected(self, axis: int, signs: Sequence[int], run: Run) -> Array | None:
        """Σ_a ± self[.., a, ..] along `axis`, where that costs about as much as one of its elements.

        None where it does not: `explorer.engine.projection` has what this is for.
        """
        return None

    # ------------------------------------------------------------------ arithmetic

    def map(self, operation: Operation, *others: Operand) -> Array:
        """Any elementwise operation of `explorer.engine.operations` on this array and others."""
        return elementwise.apply(operation, self, *others)

    def __add__(self, other: Operand) -> Array:
        return elementwise.apply(operations.ADD, self, other)

    def __radd__(self, other: Operand) -> Array:
        return elementwise.apply(operations.ADD, other, self)

    def __sub__(self, other: Operand) -> Array:
        return elementwise.apply(operations.SUB, self, other)

    def __rsub__(self, other: Operand) -> Array:
        return elementwise.apply(operations.SUB, other, self)

    def __mul__(self, other: Operand) -> Array:
        return elementwise.apply(operations.MUL, self, other)

    def __rmul__(self, other: Operand) -> Array:
        return elementwise.apply(operations.MUL, other, self)

    def __truediv__(self, other: Operand) -> Array:
        return elementwise.apply(operations.DIV, self, other)

    def __rtruediv__(self, other: Operand) -> Array:
        return elementwise.apply(operations.DIV, other, self)

    def __pow__(self, other: Operand) -> Array:
        return elementwise.apply(operations.POW, self, other)

    def __rpow__(self, other: Operand) -> Array:
        return elementwise.apply(operations.POW, other, self)

    def __neg__(self) -> Array:
        return elementwise.apply(operations.NEG, self)

    def __abs__(self) -> Array:
        return elementwise.apply(operations.ABS, self)

    def __lt__(self, other: Operand) -> Array:
        return elementwise.apply(operations.LT, self, other)

    def __le__(self, other: Operand) -> Array:
        return elementwise.apply(operations.LE, self, other)

    def __gt__(self, other: Operand) -> Array:
        return elementwise.apply(operations.GT, self, other)

    def __ge__(self, other: Operand) -> Array:
        return elementwise.apply(operations.GE, self, other)

    def __and__(self, other: Operand) -> Array:
        return elementwise.apply(operations.AND, self, other)

    def __or__(self, other: Operand) -> Array:
        return elementwise.apply(operations.OR, self, other)

    def __invert__(self) -> Array:
        return elementwise.apply(operations.NOT, self)

    def eq(self, other: Operand) -> Array:
        """Elementwise equality (``==`` itself stays identity, so that arrays can be keys)."""
        return elementwise.apply(operations.EQ, self, other)

    def ne(self, other: Operand) -> Array:
        """Elementwise inequality."""
        return elementwise.apply(operations.NE, self, other)

    def exp(self) -> Array:
        """e to the power of each element."""
        return elementwise.apply(operations.EXP, self)

    def log(self) -> Array:
        """Natural logarithm."""
        return elementwise.apply(operations.LOG, self)

    def sqrt(self) -> Array:
        """Square root."""
        return elementwise.apply(operations.SQRT, self)

    def sin(self) -> Array:
        """Sine."""
        return elementwise.apply(operations.SIN, self)

    def cos(self) -> Array:
        """Cosine."""
        return elementwise.apply(operations.COS, self)

    def tanh(self) -> Array:
        """Hyperbolic tangent."""
        return elementwise.apply(operations.TANH, self)

    def sigmoid(self) -> Array:
        """1 / (1 + exp(-x))."""
        return elementwise.apply(operations.SIGMOID, self)

    def sign(self) -> Array:
        """-1, 0 or 1; x/abs(x) for complex numbers, 0 at 0."""
        return elementwise.apply(operations.SIGN, self)

    def conj(self) -> Array:
        """Complex conjugate; the array itself behaves so for real numbers at no cost."""
        return elementwise.apply(operations.CONJ, self) if self.is_complex else self

    @property
    def real(self) -> Array:
        """Real part."""
        return elementwise.apply(operations.REAL, self) if self.is_complex else self

    @property
    def imag(self) -> Array:
        """Imaginary part."""
        return elementwise.apply(operations.IMAG, self)

    @property
    def is_complex(self) -> bool:
        """Whether elements may be complex."""
        return False

    def where(self, condition: Array, other: Operand = 0.0) -> Array:
        """This array where `condition` holds, `other` elsewhere."""
        return elementwise.apply(operations.WHERE, condition, self, other)

    def minimum(self, other: Operand) -> Array:
        """Elementwise smaller one."""
        return elementwise.apply(operations.MINIMUM, self, other)

    def maximum(self, other: Operand) -> Array:
        """Elementwise larger one."""
        return elementwise.apply(operations.MAXIMUM, self, other)

    # ------------------------------------------------------------------ views

    def window(self, shape: Sequence[int], axes: Sequence[tuple[int, int, int]]) -> Array:
        """Any strided view: per axis of *this* array ``(axis of the view, start, step)``.

        Index i of the view's axis reads index ``start + step * i`` here; a view axis of -1 means that
        the index is always `start`. View axes that no axis here refers to repeat the elements.
        """
        return views.View(self, shape, axes)

    def reshape(self, *shape: int) -> Array:
        """The same elements in row-major order under another shape; one size may be -1."""
        return views.reshape(self, shape)

    def permute(self, *dims: int) -> Array:
        """Axis ``dims[i]`` of this array becomes axis i."""
        return views.permute(self, dims)

    def transpose(self, first: int, second: int) -> Array:
        """Two axes swapped."""
        return views.transpose(self, first, second)

    @property
    def mT(self) -> Array:  # noqa: N802 - torch's own name
        """The last two axes swapped."""
        return views.transpose(self, -1, -2)

    def unsqueeze(self, dim: int) -> Array:
        """A new axis of size 1 at `dim`."""
        return views.unsqueeze(self, dim)

    def squeeze(self, dim: int) -> Array:
        """Axis `dim` (of size 1) removed."""
        return views.select(self, dim, 0)

    def select(self, dim: int, index: int) -> Array:
        """Axis `dim` removed, at `index`."""
        return views.select(self, dim, index)

    def slice(self, dim: int, start: int = 0, stop: int | None = None, step: int = 1) -> Array:
        """Part of axis `dim`, with torch's clamping of negative and too large limits."""
        return views.narrow(self, dim, start, stop, step)

    def expand(self, *shape: int) -> Array:
        """Broadcast to `shape` at no cost; -1 keeps a size."""
        return views.expand(self, shape)

    def flip(self, *dims: int) -> Array:
        """Axes `dims` reversed."""
        return views.flip(self, dims)

    def pad(self, dim: int, before: int, after: int, value: float = 0.0) -> Array:
        """`value` put before and after along axis `dim`; negative amounts cut off."""
        return views.pad(self, dim, before, after, value)

    # ------------------------------------------------------------------ reductions and products

    def sum(self, dims: Dims = None, keepdim: bool = False) -> Array:
        """Sum over `dims` (None or empty: all)."""
        return reduce.total(self, dims, keepdim)

    def mean(self, dims: Dims = None, keepdim: bool = False) -> Array:
        """Mean over `dims` (None or empty: all)."""
        total = reduce.total(self, dims, keepdim)
        return total / (self.numel // max(total.numel, 1))

    def amax(self, dims: Dims = None, keepdim: bool = False) -> Array:
        """Largest element over `dims`."""
        return reduce.extreme(self, dims, keepdim, largest=True)

    def amin(self, dims: Dims = None, keepdim: bool = False) -> Array:
        """Smallest element over `dims`."""
        return reduce.extreme(self, dims, keepdim, largest=False)

    def sum_to(self, shape: Sequence[int]) -> Array:
        """Summed over every axis along which an array of `shape` was broadcast to this one."""
        return reduce.sum_to(self, shape)

    def __matmul__(self, other: Array) -> Array:
        return contract.matmul(self, other)


class Derived(Array):
    """A recipe that reads one other, its `source`, and is complex where that is."""

    __slots__ = ("source",)

    def __init__(self, shape: Sequence[int], source: Array) -> None:
        super().__init__(shape)
        source.uses += 1
        self.source = source

    @property
    def is_complex(self) -> bool:
        return self.source.is_complex


def broadcast_shapes(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that arrays of these shapes broadcast to; raises ShapeError if they do not."""
    if len(shapes) == 2 and shapes[0] == shapes[1]:
        return tuple(shapes[0])
    out: list[int] = []
    for axis in range(1, max(map(len, shapes), default=0) + 1):
        sizes = {shape[-axis] for shape in shapes if len(shape) >= axis} - {1}
        if len(sizes) > 1:
            raise ShapeError(f"shapes {', '.join(str(tuple(s)) for s in shapes)} do not broadcast")
        out.append(sizes.pop() if sizes else 1)
    return tuple(reversed(out))


# The operators' own modules need the class above, hence at the end.
from explorer.engine import contract, elementwise, operations, reduce, rounding, views  # noqa: E402
