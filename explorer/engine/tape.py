"""The engine on its own: tensors that remember how they were made, and `backward` through the same rules.

    from explorer import engine

    x = engine.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    loss = (x.tanh() ** 2).mean()
    loss.backward()
    x.grad.tolist()

Each operation computes its result at once, in float64, and keeps what torch's node of the same name would:
its rule (see `explorer.engine.rules`) is then the one that checks torch. The way back through the rules is in
`explorer.engine.backward`; the free functions (convolution, pooling, ...) are in `explorer.engine.functions`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from explorer.engine.array import Array, Dims
from explorer.engine.backward import Made, evaluated, leaf_gradients
from explorer.engine.elementwise import ERF, NORMAL_CDF, SOFTPLUS, Full
from explorer.engine.leaf import Leaf
from explorer.engine.leaf import array as nested
from explorer.errors import EngineError, ShapeError
from explorer.graph import TensorSpec

Operand: TypeAlias = "Tensor | float | int"

_recording = [True]


class Tensor:
    """An n-dimensional tensor of float64 numbers (or of integers, as indices and labels).

    `array` holds its elements; `made` says how it was made, None for a leaf. After `backward`, `grad` is
    the sum of all gradients that reached this leaf since it was None.
    """

    __slots__ = ("array", "grad", "made", "requires_grad")

    def __init__(self, array: Array, requires_grad: bool = False, made: Made | None = None) -> None:
        self.array = array
        self.requires_grad = requires_grad
        self.made = made
        self.grad: Tensor | None = None

    # ------------------------------------------------------------------ what it is

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the axes."""
        return self.array.shape

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return self.array.ndim

    def numel(self) -> int:
        """Number of elements."""
        return self.array.numel

    def item(self) -> float:
        """The one element of a tensor of one element; ShapeError otherwise."""
        return self.array.item()

    def tolist(self) -> Any:
        """Nested lists of numbers; a number for a 0-d tensor."""
        flat: Any = self.array.values()
        for size in reversed(self.shape[1:]):
            flat = [flat[i : i + size] for i in range(0, len(flat), size)] if size else []
        if not self.shape:
            return flat[0]
        return flat if 0 not in self.shape[1:] else [_empty(self.shape[1:]) for _ in range(self.shape[0])]

    def detach(self) -> Tensor:
        """The same elements, cut off from how they were made."""
        return Tensor(self.array)

    def __len__(self) -> int:
        if not self.shape:
            raise TypeError("a 0-d tensor has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        made = f", made by {self.made.name}" if self.made else ", requires_grad=True" * self.requires_grad
        return f"tensor({self.tolist()}{made})" if self.numel() <= 64 else f"tensor({self.shape}{made})"

    def backward(self, gradient: Tensor | None = None) -> None:
        """Send `gradient` (1 for a tensor of one element) back to every leaf that requires one.

        Raises:
            EngineError: this tensor requires no gradient, or has several elements and `gradient` is None.
            ShapeError: `gradient` has another shape.
        """
        if not self.requires_grad:
            raise EngineError("backward() of a tensor that requires no gradient")
        if gradient is None and self.numel() != 1:
            raise EngineError(f"backward() of shape {self.shape} needs a gradient of that shape")
        if gradient is not None and gradient.shape != self.shape:
            raise ShapeError(f"backward() of shape {self.shape} with a gradient of shape {gradient.shape}")
        start = Full(1.0, self.shape) if gradient is None else gradient.array
        for leaf, g in leaf_gradients(self, start):
            leaf.grad = Tensor(g if leaf.grad is None else evaluated(leaf.grad.array + g))

    # ------------------------------------------------------------------ arithmetic

    def __add__(self, other: Operand) -> Tensor:
        if not isinstance(other, Tensor):
            return record("AddBackward1", self.array + other, [self])
        return record("AddBackward0", self.array + other.array, [self, other], {"alpha": 1})

    def __sub__(self, other: Operand) -> Tensor:
        if not isinstance(other, Tensor):
            return record("SubBackward1", self.array - other, [self])
        return record("SubBackward0", self.array - other.array, [self, other], {"alpha": 1})

    def __mul__(self, other: Operand) -> Tensor:
        if not isinstance(other, Tensor):
            return record("MulBackward1", self.array * other, [self], {"other": other})
        saved = {"self": self.array, "other": other.array}
        return record("MulBackward0", self.array * other.array, [self, other], saved)

    def __truediv__(self, other: Operand) -> Tensor:
        if not isinstance(other, Tensor):
            return record("DivBackward1", self.array / other, [self], {"other": other})
        saved = {"self": self.array, "other": other.array}
        return record("DivBackward0", self.array / other.array, [self, other], saved)

    def __pow__(self, other: Operand) -> Tensor:
        if not isinstance(other, Tensor):
            saved = {"self": self.array, "exponent": other}
            return record("PowBackward0", self.array**other, [self], saved)
        saved = {"self": self.array, "exponent": other.array}
        return record("PowBackward1", self.array**other.array, [self, other], saved, result="result")

    def __neg__(self) -> Tensor:
        return record("NegBackward0", -self.array, [self])

    def __radd__(self, other: float) -> Tensor:
        return self + other

    def __rmul__(self, other: float) -> Tensor:
        return self * other

    def __rsub__(self, other: float) -> Tensor:
        return record("RsubBackward1", other - self.array, [self], {"alpha": 1})

    def __rtruediv__(self, other: float) -> Tensor:
        return self.reciprocal() * other

    def __abs__(self) -> Tensor:
        return record("AbsBackward0", abs(self.array), [self], {"self": self.array})

    def __matmul__(self, other: Tensor) -> Tensor:
        left = self.reshape(1, -1) if self.ndim == 1 else self
        right = other.reshape(-1, 1) if other.ndim == 1 else other
        saved = {"self": left.array, "mat2": right.array}
        found = record("BmmBackward0", left.array @ right.array, [left, right], saved)
        shape = list(found.shape)
        if other.ndim == 1:
            del shape[-1]
        if self.ndim == 1:
            del shape[-1 if other.ndim == 1 else -2]
        return found.reshape(*shape)

    # ------------------------------------------------------------------ functions of each element

    def exp(self) -> Tensor:
        """e to the power of each element."""
        return record("ExpBackward0", self.array.exp(), [self], result="result")

    def log(self) -> Tensor:
        """Natural logarithm."""
        return record("LogBackward0", self.array.log(), [self], {"self": self.array})

    def sqrt(self) -> Tensor:
        """Square root."""
        return record("SqrtBackward0", self.array.sqrt(), [self], result="result")

    def reciprocal(self) -> Tensor:
        """1 / x."""
        return record("ReciprocalBackward0", 1 / self.array, [self], result="result")

    def sin(self) -> Tensor:
        """Sine."""
        return record("SinBackward0", self.array.sin(), [self], {"self": self.array})

    def cos(self) -> Tensor:
        """Cosine."""
        return record("CosBackward0", self.array.cos(), [self], {"self": self.array})

    def tanh(self) -> Tensor:
        """Hyperbolic tangent."""
        return record("TanhBackward0", self.array.tanh(), [self], result="result")

    def sigmoid(self) -> Tensor:
        """1 / (1 + exp(-x))."""
        return record("SigmoidBackward0", self.array.sigmoid(), [self], result="result")

    def relu(self) -> Tensor:
        """max(x, 0)."""
        return record("ReluBackward0", self.array.maximum(0.0), [self], result="result")

    def erf(self) -> Tensor:
        """The error function."""
        return record("ErfBackward0", self.array.map(ERF), [self], {"self": self.array})

    def gelu(self) -> Tensor:
        """x Φ(x), Φ being the normal distribution function."""
        saved = {"self": self.array, "approximate": "none"}
        return record("GeluBackward0", self.array * self.array.map(NORMAL_CDF), [self], saved)

    def silu(self) -> Tensor:
        """x σ(x)."""
        return record("SiluBackward0", self.array * self.array.sigmoid(), [self], {"self": self.array})

    def softplus(self) -> Tensor:
        """log(1 + exp(x))."""
        saved = {"self": self.array, "beta": 1, "threshold": 20}
        return record("SoftplusBackward0", self.array.map(SOFTPLUS), [self], saved)

    def clamp(self, low: float | None = None, high: float | None = None) -> Tensor:
        """min(max(x, low), high)."""
        found = self.array if low is None else self.array.maximum(low)
        found = found if high is None else found.minimum(high)
        return record("ClampBackward1", found, [self], {"self": self.array, "min": low, "max": high})

    def maximum(self, other: Tensor) -> Tensor:
        """The larger one of each pair."""
        saved = {"self": self.array, "other": other.array}
        return record("MaximumBackward0", self.array.maximum(other.array), [self, other], saved)

    def minimum(self, other: Tensor) -> Tensor:
        """The smaller one of each pair."""
        saved = {"self": self.array, "other": other.array}
        return record("MinimumBackward0", self.array.minimum(other.array), [self, other], saved)

    # ------------------------------------------------------------------ reductions

    def sum(self, dims: Dims = None, keepdim: bool = False) -> Tensor:
        """Sum over `dims`, over everything by default."""
        saved = {"dim": _listed(dims), "keepdim": keepdim}
        return record("SumBackward1", self.array.sum(dims, keepdim), [self], saved)

    def mean(self, dims: Dims = None, keepdim: bool = False) -> Tensor:
        """Mean over `dims`, over everything by default."""
        saved = {"dim": _listed(dims), "keepdim": keepdim}
        return record("MeanBackward1", self.array.mean(dims, keepdim), [self], saved)

    def amax(self, dims: Dims = None, keepdim: bool = False) -> Tensor:
        """Largest element over `dims`; ties share the gradient evenly."""
        saved = {"self": self.array, "dim": _listed(dims), "keepdim": keepdim}
        return record("AmaxBackward0", self.array.amax(dims, keepdim), [self], saved, result="result")

    def amin(self, dims: Dims = None, keepdim: bool = False) -> Tensor:
        """Smallest element over `dims`; ties share the gradient evenly."""
        saved = {"self": self.array, "dim": _listed(dims), "keepdim": keepdim}
        return record("AminBackward0", self.array.amin(dims, keepdim), [self], saved, result="result")

    # ------------------------------------------------------------------ views

    def reshape(self, *shape: int) -> Tensor:
        """The same elements in row-major order under another shape; one size may be -1."""
        return record("ViewBackward0", self.array.reshape(*shape), [self])

    def permute(self, *dims: int) -> Tensor:
        """Axis ``dims[i]`` becomes axis i."""
        return record("PermuteBackward0", self.array.permute(*dims), [self], {"dims": dims})

    def transpose(self, first: int, second: int) -> Tensor:
        """Two axes swapped."""
        saved = {"dim0": first, "dim1": second}
        return record("TransposeBackward0", self.array.transpose(first, second), [self], saved)

    @property
    def T(self) -> Tensor:  # noqa: N802 - torch's own name
        """The last two axes swapped."""
        return self.transpose(-2, -1)

    def expand(self, *shape: int) -> Tensor:
        """Broadcast to `shape`."""
        return record("ExpandBackward0", self.array.expand(*shape), [self])

    def unsqueeze(self, dim: int) -> Tensor:
        """A new axis of size 1 at `dim`."""
        return record("UnsqueezeBackward0", self.array.unsqueeze(dim), [self])

    def __getitem__(self, key: Any) -> Tensor:
        """Integers and slices, axis by axis: ``x[2, 1:]``."""
        found, dim = self, 0
        for part in key if isinstance(key, tuple) else (key,):
            if isinstance(part, int):
                if not -found.shape[dim] <= part < found.shape[dim]:
                    raise IndexError(f"index {part} of an axis of size {found.shape[dim]}")
                saved = {"dim": dim, "index": part}
                found = record("SelectBackward0", found.array.select(dim, part), [found], saved)
            elif isinstance(part, slice):
                start, stop, step = part.indices(found.shape[dim])
                if step < 1:
                    raise EngineError("a slice's step must be positive")
                saved = {"dim": dim, "start": start, "end": stop, "step": step}
                found = record("SliceBackward0", found.array.slice(dim, start, stop, step), [found], saved)
                dim += 1
            else:
                raise EngineError(f"an index is an integer or a slice, not {type(part).__name__}")
        return found


def tensor(data: Any, requires_grad: bool = False) -> Tensor:
    """A tensor from nested lists of numbers, a number, an `Array` or another tensor (cut off from it).

    Raises:
        ShapeError: ragged lists.
    """
    source = data.array if isinstance(data, Tensor) else data if isinstance(data, Array) else nested(data)
    if requires_grad and isinstance(source, Leaf) and type(source.memory) is list:
        source = Leaf([float(one) for one in source.values()], source.shape)
    return Tensor(evaluated(source), requires_grad)


@contextmanager
def no_grad() -> Iterator[None]:
    """What is computed inside does not remember how it was made."""
    _recording.append(False)
    try:
        yield
    finally:
        _recording.pop()


# -------------------------------------------------------------------- recording


def record(
    name: str, value: Array, inputs: Sequence[Tensor], saved: Mapping[str, Any] | None = None, *,
    result: str = "",
) -> Tensor:  # fmt: skip
    """A new tensor of the elements of `value`, made by node `name` from `inputs`.

    Args:
        name: the backward node whose rule sends gradients on.
        saved: what the rule reads, by torch's names.
        result: the name under which the rule reads the result itself.
    """
    array = evaluated(value)
    if not (_recording[-1] and any(one.requires_grad for one in inputs)):
        return Tensor(array)
    kept = dict(saved or {})
    if result:
        kept[result] = array
    return Tensor(array, True, Made(name, kept, tuple(inputs), TensorSpec(array.shape, "float64")))


def _listed(dims: Dims) -> Sequence[int] | None:
    return [dims] if isinstance(dims, int) else dims


def _empty(shape: Sequence[int]) -> Any:
    return [_empty(shape[1:]) for _ in range(shape[0])] if shape else 0.0
