"""Which rule belongs to which backward node, and what a rule sees of its node."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, TypeVar

from explorer.engine.array import Array
from explorer.engine.elementwise import COMPLEX, Full, Missing, apply
from explorer.engine.rounding import ROUNDINGS
from explorer.errors import RuleError, ShapeError
from explorer.graph import TensorSpec

Gradients: TypeAlias = "Sequence[Array | None]"
Function: TypeAlias = "Callable[..., Sequence[Array | None]]"
Hints: TypeAlias = "Callable[..., Sequence[Sequence[tuple[int, ...]] | None]]"
HintFunction = TypeVar("HintFunction", bound=Callable[..., Sequence[Sequence[tuple[int, ...]] | None]])


class Site:
    """What a rule sees of its node, by convention named `n`.

    ``n.self``, ``n.dim``, ... are the saved values by torch's names: tensors as arrays, a list of tensors
    as a list, everything else as plain Python (negative integers already signed, None where torch kept
    none). `inputs[i]` is the spec of the tensor behind ``next_functions[i]`` (None: no gradient wanted),
    `outputs[k]` that of forward output k, whose gradient is the rule's k-th.
    """

    def __init__(
        self,
        name: str,
        saved: Mapping[str, Any],
        inputs: Sequence[TensorSpec | None],
        outputs: Sequence[TensorSpec | None],
        matmul_precision: float = 0.0,
    ) -> None:
        self.name = name
        self.saved = saved
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.matmul_precision = matmul_precision

    def __getattr__(self, name: str) -> Any:
        saved = self.__dict__.get("saved", {})
        if name in saved:
            return saved[name]
        listed: list[Any] = []
        while f"{name}[{len(listed)}]" in saved:
            listed.append(saved[f"{name}[{len(listed)}]"])
        if listed:
            return listed
        raise RuleError(
            f"{self.__dict__.get('name')} saved no {name!r} (it has {', '.join(saved) or 'nothing'})"
        )

    @property
    def saved_tensors(self) -> list[Any]:
        """What a Python Function kept with ``save_for_backward``."""
        return [self.saved[key] for key in map(str, range(len(self.saved))) if key in self.saved]

    def needs(self, slot: int) -> bool:
        """Whether the gradient of this input is wanted."""
        return slot < len(self.inputs) and self.inputs[slot] is not None

    def shape(self, slot: int) -> tuple[int, ...]:
        """Shape of an input; raises RuleError when its gradient is not wanted (torch tells no shape then)."""
        spec = self.inputs[slot]
        if spec is None:
            raise RuleError(f"the shape of input {slot} of {self.name} is not known")
        return spec.shape

    @property
    def missing(self) -> str:
        """Why a saved value cannot be read, "" when all can."""
        reasons = [value.reason for value in self.saved.values() if isinstance(value, Missing)]
        return reasons[0] if reasons else ""


@dataclass(frozen=True, slots=True)
class Rule:
    """A registered rule: its function and, where some places deserve a look, its hints.

    `shared`: per gradient the axis along which its elements cost a sum that all gradients of the node share
    (the channel of a batch norm). The sample then looks at the same few indices in each.
    """

    names: tuple[str, ...]
    function: Function
    hints: Hints | None = None
    shared: tuple[int, ...] = ()


_RULES: dict[str, Rule] = {}


def vjp(
    *names: str, hints: Hints | None = None, shared: tuple[int, ...] = ()
) -> Callable[[Function], Function]:
    """Register the vector-Jacobian product of the backward nodes `names`.

    The function takes ``(n, g)`` (``(n, g0, g1, ...)`` for a node with several outputs; an undefined
    gradient is None) and returns one array or None per entry of ``next_functions`` (for a single entry the
    array alone will do). Summing to a broadcast input's shape, taking the real part and casting happen
    afterwards. `hints`, called the same way, gives for each entry a list of element indices worth checking;
    `shared` is as in `Rule`.

    A custom Function's node is called by its class and "Backward" ("SwishBackward"), an op of torch.library
    "GeneratedBackwardFor_NAMESPACE_OP_defaultBackward"; ``n.saved_tensors`` and the attributes of its ctx
    are what a rule of one's own reads. Running the same definition again (a notebook's cell) replaces it.

    Raises:
        RuleError: a name already has a rule.
    """

    def register(function: Function) -> Function:
        for name in names:
            if name in _RULES and _origin(_RULES[name].function) != _origin(function):
                raise RuleError(f"{name} already has a rule: {_RULES[name].function.__qualname__}")
        rule = Rule(names, function, hints, shared)
        _RULES.update(dict.fromkeys(names, rule))
        return function

    return register


def hinted(*names: str) -> Callable[[HintFunction], HintFunction]:
    """Give hints to the rules of the backward nodes `names`, which are there already.

    The function takes what the rule takes, and gives for each entry of ``next_functions`` a list of element
    indices worth checking; `explorer.engine.hints` says what they may cost.

    Raises:
        RuleError: a name has no rule, or other hints.
    """

    def register(function: HintFunction) -> HintFunction:
        for name in names:
            rule = _RULES.get(name)
            if rule is None:
                raise RuleError(f"{name} has no rule that could have hints")
            if rule.hints is not None and _origin(rule.hints) != _origin(function):
                raise RuleError(f"{name} already has hints")
            _RULES[name] = replace(rule, hints=function)
        return function

    return register


def hints_of(rule: Rule, n: Site, gradients: Gradients) -> tuple[list[list[tuple[int, ...]]], str]:
    """Per input the elements that the rule's hints name, and what went wrong in them ("" if nothing did).

    Hints are a courtesy: where they fail, the sample is as if there were none.
    """
    if rule.hints is None:
        return [], ""
    try:
        return [list(map(tuple, points or ())) for points in rule.hints(n, *gradients)], ""
    except Exception as problem:  # noqa: BLE001 - hints of the user's may fail, and must not end the check
        return [], f"the hints of {n.name} raised {type(problem).__name__}: {problem}"


def _origin(function: Any) -> tuple[str, int, str]:
    """File, line and name of a definition."""
    code = getattr(function, "__code__", None)
    place = ("", id(function)) if code is None else (code.co_filename, code.co_firstlineno)
    return (*place, getattr(function, "__qualname__", ""))


def rule_for(name: str) -> Rule | None:
    """The rule of a backward node, None when there is none."""
    return _RULES.get(name)


def rule_names() -> tuple[str, ...]:
    """All names that have a rule, sorted."""
    return tuple(sorted(_RULES))


def unregister(*names: str) -> None:
    """Remove rules again (a rule of one's own, tried out)."""
    for name in names:
        _RULES.pop(name, None)


def apply_rule(rule: Rule, n: Site, gradients: Gradients) -> list[Array | None]:
    """The rule's result, one entry per input, each in the shape of that input (None: zero or not wanted).

    Raises:
        RuleError: the rule raised, or returned the wrong number of gradients or the wrong shape.
    """
    try:
        returned = rule.function(n, *gradients)
        found = [returned] if isinstance(returned, Array) else list(returned)
    except Exception as problem:
        reason = n.missing or f"the rule of {n.name} raised {type(problem).__name__}: {problem}"
        raise RuleError(reason) from problem
    if len(found) < len(n.inputs) or any(one is not None for one in found[len(n.inputs) :]):
        raise RuleError(f"the rule of {n.name} gave {len(found)} gradients for {len(n.inputs)} inputs")
    return [
        None if spec is None or one is None else fitted(one, spec, n, slot)
        for slot, (one, spec) in enumerate(zip(found, n.inputs, strict=False))
    ]


def fitted(gradient: Array, spec: TensorSpec, n: Site, slot: int) -> Array:
    """`gradient` in the shape and realness of the input it is for, as torch's engine makes it."""
    if isinstance(gradient, Missing):
        return gradient
    if not isinstance(gradient, Array):
        raise RuleError(f"the rule of {n.name} gave a {type(gradient).__name__} for input {slot}")
    if gradient.shape != spec.shape:
        outer = gradient.ndim - len(spec.shape)
        pairs = zip(gradient.shape[max(outer, 0) :], spec.shape, strict=False)
        if outer < 0 or any(have != want and want != 1 for have, want in pairs):
            raise RuleError(
                f"the rule of {n.name} gave shape {gradient.shape} for input {slot} of shape {spec.shape}"
            )
        gradient = gradient.sum_to(spec.shape)
    if _narrows(n, spec.dtype):
        gradient = gradient * 1.0  # torch's engine casts it: rounded once more
    if gradient.is_complex and not spec.dtype.startswith("complex"):
        gradient = gradient.real
    return gradient


def _narrows(n: Site, dtype: str) -> bool:
    """Whether `dtype` holds numbers less finely than every output of the node (a rule computes in theirs)."""
    own = [spec.dtype for spec in n.outputs if spec is not None]
    if dtype in own or dtype not in ROUNDINGS:
        return False
    return all(name in ROUNDINGS and ROUNDINGS[name].u < ROUNDINGS[dtype].u for name in own)


def zeros(spec: TensorSpec) -> Array:
    """The gradient that an undefined one stands for."""
    return Full(0.0, spec.shape)


def as_complex(real: Array, imag: Array) -> Array:
    """real + i·imag."""
    return apply(COMPLEX, real, imag)


__all__ = [
    "Rule",
    "RuleError",
    "ShapeError",
    "Site",
    "apply_rule",
    "as_complex",
    "hinted",
    "hints_of",
    "rule_for",
    "rule_names",
    "unregister",
    "vjp",
    "zeros",
]
