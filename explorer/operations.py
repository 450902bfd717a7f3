"""The mathematics of the common operations: one table for the words, the values and the slopes.

An `Operation` says what the forward computes (`forward`, a template over the names of its inputs) and,
for each differentiable input, what goes back. Elementwise operations (`elementwise`) state the local
derivative: "∂(a·b)/∂a = b"; the gradient is then multiplied by it. The others state the gradient itself,
with G for the gradient that arrives. `value` and `slope` compute on one element, given every needed value
by torch's own argument name ("self", "other", "alpha", …) and "result" for the output.

Kinks are torch's own: slope 0 for relu and abs at 0, 1 at the edges of clamp, ties of maximum and
minimum shared evenly. The keys are aten names, with an overload where its meaning differs.

The file is long because it is one table; a row is kept together (``fmt: skip``) to be read at a glance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["OPERATIONS", "Operation", "Values"]

Values = Mapping[str, float]
Compute = Callable[[Values], float]


@dataclass(frozen=True, slots=True)
class Operation:
    """What one aten operation means; see the module's first lines for each field."""

    forward: str
    partial: Mapping[str, str]
    elementwise: bool = True
    value: Compute | None = None
    slope: Mapping[str, Compute] = field(default_factory=dict)


OPERATIONS: dict[str, Operation] = {}
"""aten name ("mul") or name with overload ("pow.Scalar") -> its `Operation`."""


def _sides(names: str, forward: str, value: Compute, **partial: tuple[str, Compute]) -> None:
    """An elementwise operation: for each input the local derivative in words and as a function."""
    words = {name: text for name, (text, _) in partial.items()}
    slopes = {name: slope for name, (_, slope) in partial.items()}
    for name in names.split():
        OPERATIONS[name] = Operation(forward, words, True, value, slopes)


def _unary(names: str, forward: str, value: Callable[[float], float], text: str, slope: Compute) -> None:
    """An elementwise function of one input, called self."""
    _sides(names, forward, lambda v: value(v["self"]), self=(text, slope))


def _whole(names: str, forward: str, **partial: str) -> None:
    """An operation on whole tensors: what goes back to each input, G being the incoming gradient."""
    for name in names.split():
        OPERATIONS[name] = Operation(forward, partial, False)


def _sigmoid(x: float) -> float:
    """1 / (1 + e^-x) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _density(x: float) -> float:
    """The standard normal density at x."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def _distribution(x: float) -> float:
    """The standard normal distribution function at x."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _softplus(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def _elu_slope(x: float, alpha: float, inner: float) -> float:
    """1 above 0, else the slope of alpha·(e^(inner·x) − 1)."""
    return 1.0 if x > 0 else alpha * inner * math.exp(x * inner)


def _share(a: float, b: float) -> float:
    """1 where a > b, a half each at a tie, 0 below: the part of maximum(a, b) that a receives."""
    return 1.0 if a > b else 0.5 if a == b else 0.0


def _sign(x: float) -> float:
    """-1, 0 or 1."""
    return float((x > 0) - (x < 0))


def _times(factor: float, text: float) -> float:
    """factor · text, and 0 when the factor is 0, as torch's pow has it at the border."""
    return 0.0 if factor == 0 else factor * text


def _constant(number: float) -> Compute:
    """A slope that is the same everywhere."""
    return lambda v: number


# --- sums and products ---------------------------------------------------------------------------

_sides(
    "add", "{self} + {alpha*}{other}", lambda v: v["self"] + v.get("alpha", 1.0) * v["other"],
    self=("1", _constant(1.0)), other=("{alpha}", lambda v: v.get("alpha", 1.0)),
)  # fmt: skip
_sides(
    "sub", "{self} − {alpha*}{other}", lambda v: v["self"] - v.get("alpha", 1.0) * v["other"],
    self=("1", _constant(1.0)), other=("−{alpha}", lambda v: -v.get("alpha", 1.0)),
)  # fmt: skip
_sides(
    "rsub", "{other} − {alpha*}{self}", lambda v: v["other"] - v.get("alpha", 1.0) * v["self"],
    self=("−{alpha}", lambda v: -v.get("alpha", 1.0)), other=("1", _constant(1.0)),
)  # fmt: skip
_sides(
    "mul", "{self}·{other}", lambda v: v["self"] * v["other"],
    self=("{other}", lambda v: v["other"]), other=("{self}", lambda v: v["self"]),
)  # fmt: skip
_sides(
    "div", "{self}/{other}", lambda v: v["self"] / v["other"],
    self=("1/{other}", lambda v: 1 / v["other"]),
    other=("−{self}/{other}²", lambda v: -v["self"] / (v["other"] * v["other"])),
)  # fmt: skip
_sides(
    "addcmul", "{self} + {value*}{tensor1}·{tensor2}",
    lambda v: v["self"] + v.get("value", 1.0) * v["tensor1"] * v["tensor2"],
    self=("1", _constant(1.0)),
    tensor1=("{value*}{tensor2}", lambda v: v.get("value", 1.0) * v["tensor2"]),
    tensor2=("{value*}{tensor1}", lambda v: v.get("value", 1.0) * v["tensor1"]),
)  # fmt: skip
_sides(
    "addcdiv", "{self} + {value*}{tensor1}/{tensor2}",
    lambda v: v["self"] + v.get("value", 1.0) * v["tensor1"] / v["tensor2"],
    self=("1", _constant(1.0)),
    tensor1=("{value}/{tensor2}", lambda v: v.get("value", 1.0) / v["tensor2"]),
    tensor2=(
        "−{value*}{tensor1}/{tensor2}²",
        lambda v: -v.get("value", 1.0) * v["tensor1"] / v["tensor2"] ** 2,
    ),
)  # fmt: skip
_sides(
    "lerp", "{self} + {weight}·({end} − {self})", lambda v: v["self"] + v["weight"] * (v["end"] - v["self"]),
    self=("1 − {weight}", lambda v: 1 - v["weight"]), end=("{weight}", lambda v: v["weight"]),
    weight=("{end} − {self}", lambda v: v["end"] - v["self"]),
)  # fmt: skip
_unary("neg", "−{self}", lambda x: -x, "−1", _constant(-1.0))
_unary("reciprocal", "1/{self}", lambda x: 1 / x, "−1/{self}²", lambda v: -v["result"] * v["result"])
_sides(
    "fmod", "{self} mod {other}", lambda v: math.fmod(v["self"], v["other"]),
    self=("1", _constant(1.0)),
    other=("−trunc({self}/{other})", lambda v: -math.trunc(v["self"] / v["other"])),
)  # fmt: skip
_sides(
    "remainder", "{self} mod {other}", lambda v: v["self"] - v["other"] * math.floor(v["self"] / v["other"]),
    self=("1", _constant(1.0)), other=("−⌊{self}/{other}⌋", lambda v: -math.floor(v["self"] / v["other"])),
)  # fmt: skip

# --- powers, exponentials, logarithms ------------------------------------------------------------

_sides(
    "pow", "{self}^{exponent}", lambda v: v["self"] ** v["exponent"],
    self=(
        "{exponent}·{self}^({exponent}−1)",
        lambda v: 0.0 if v["exponent"] == 0 else v["exponent"] * v["self"] ** (v["exponent"] - 1),
    ),
    exponent=("{self}^{exponent}·ln {self}", lambda v: _times(v["result"], math.log(v["self"]))),
)  # fmt: skip
_unary("sqrt", "√{self}", math.sqrt, "1/(2·√{self})", lambda v: 1 / (2 * v["result"]))
_unary(
    "rsqrt", "1/√{self}", lambda x: 1 / math.sqrt(x), "−1/(2·{self}^1.5)", lambda v: -(v["result"] ** 3) / 2
)
_unary("exp", "e^{self}", math.exp, "e^{self}", lambda v: v["result"])
_unary("exp2", "2^{self}", lambda x: 2.0**x, "2^{self}·ln 2", lambda v: v["result"] * math.log(2))
_unary("expm1", "e^{self} − 1", math.expm1, "e^{self}", lambda v: v["result"] + 1)
_unary("log", "ln {self}", math.log, "1/{self}", lambda v: 1 / v["self"])
_unary("log2", "log₂ {self}", math.log2, "1/({self}·ln 2)", lambda v: 1 / (v["self"] * math.log(2)))
_unary("log10", "log₁₀ {self}", math.log10, "1/({self}·ln 10)", lambda v: 1 / (v["self"] * math.log(10)))
_unary("log1p", "ln(1 + {self})", math.log1p, "1/(1 + {self})", lambda v: 1 / (1 + v["self"]))
_sides(
    "xlogy", "{self}·ln {other}", lambda v: _times(v["self"], math.log(v["other"])),
    self=("ln {other}", lambda v: math.log(v["other"])),
    other=("{self}/{other}", lambda v: v["self"] / v["other"]),
)  # fmt: skip
_sides(
    "logaddexp", "ln(e^{self} + e^{other})",
    lambda v: max(v["self"], v["other"]) + math.log1p(math.exp(-abs(v["self"] - v["other"]))),
    self=("σ({self} − {other})", lambda v: _sigmoid(v["self"] - v["other"])),
    other=("σ({other} − {self})", lambda v: _sigmoid(v["other"] - v["self"])),
)  # fmt: skip
_sides(
    "hypot", "√({self}² + {other}²)", lambda v: math.hypot(v["self"], v["other"]),
    self=("{self}/√({self}² + {other}²)", lambda v: v["self"] / v["result"]),
    other=("{other}/√({self}² + {other}²)", lambda v: v["other"] / v["result"]),
)  # fmt: skip

# --- angles --------------------------------------------------------------------------------------

_unary("sin", "sin {self}", math.sin, "cos {self}", lambda v: math.cos(v["self"]))
_unary("cos", "cos {self}", math.cos, "−sin {self}", lambda v: -math.sin(v["self"]))
_unary("tan", "tan {self}", math.tan, "1 + tan² {self}", lambda v: 1 + v["result"] ** 2)
_unary("asin", "arcsin {self}", math.asin, "1/√(1 − {self}²)", lambda v: 1 / math.sqrt(1 - v["self"] ** 2))
_unary("acos", "arccos {self}", math.acos, "−1/√(1 − {self}²)", lambda v: -1 / math.sqrt(1 - v["self"] ** 2))
_unary("atan", "arctan {self}", math.atan, "1/(1 + {self}²)", lambda v: 1 / (1 + v["self"] ** 2))
_unary("sinh", "sinh {self}", math.sinh, "cosh {self}", lambda v: math.cosh(v["self"]))
_unary("cosh", "cosh {self}", math.cosh, "sinh {self}", lambda v: math.sinh(v["self"]))
_unary("asinh", "arsinh {self}", math.asinh, "1/√({self}² + 1)", lambda v: 1 / math.sqrt(v["self"] ** 2 + 1))
_unary("acosh", "arcosh {self}", math.acosh, "1/√({self}² − 1)", lambda v: 1 / math.sqrt(v["self"] ** 2 - 1))
_unary("atanh", "artanh {self}", math.atanh, "1/(1 − {self}²)", lambda v: 1 / (1 - v["self"] ** 2))
_sides(
    "atan2", "atan2({self}, {other})", lambda v: math.atan2(v["self"], v["other"]),
    self=("{other}/({self}² + {other}²)", lambda v: v["other"] / (v["self"] ** 2 + v["other"] ** 2)),
    other=("−{self}/({self}² + {other}²)", lambda v: -v["self"] / (v["self"] ** 2 + v["other"] ** 2)),
)  # fmt: skip

# --- activations ---------------------------------------------------------------------------------

_unary("tanh", "tanh {self}", math.tanh, "1 − tanh² {self}", lambda v: 1 - v["result"] ** 2)
_unary(
    "sigmoid", "σ({self})", _sigmoid, "σ({self})·(1 − σ({self}))", lambda v: v["result"] * (1 - v["result"])
)
_unary(
    "log_sigmoid_forward",
    "ln σ({self})",
    lambda x: -_softplus(-x),
    "σ(−{self})",
    lambda v: _sigmoid(-v["self"]),
)
_unary(
    "relu", "max(0, {self})", lambda x: max(x, 0.0), "1 where {self} > 0, else 0",
    lambda v: float(v["result"] > 0),
)  # fmt: skip
_sides(
    "threshold", "{self} where {self} > {threshold}, else {value}",
    lambda v: v["self"] if v["self"] > v["threshold"] else v["value"],
    self=("1 where {self} > {threshold}, else 0", lambda v: float(v["self"] > v["threshold"])),
)  # fmt: skip
_sides(
    "leaky_relu", "max({self}, 0) + {negative_slope}·min({self}, 0)",
    lambda v: v["self"] if v["self"] > 0 else v["negative_slope"] * v["self"],
    self=(
        "1 where {self} > 0, else {negative_slope}",
        lambda v: 1.0 if v["self"] > 0 else v["negative_slope"],
    ),
)  # fmt: skip
_sides(
    "hardtanh", "{self} held in [{min_val}, {max_val}]",
    lambda v: min(max(v["self"], v["min_val"]), v["max_val"]),
    self=(
        "1 inside ({min_val}, {max_val}), else 0",
        lambda v: float(v["min_val"] < v["self"] < v["max_val"]),
    ),
)  # fmt: skip
_sides(
    "elu", "{self} above 0, else {alpha*}(e^{self} − 1)",
    lambda v: (
        v["scale"]
        * (v["self"] if v["self"] > 0 else v["alpha"] * math.expm1(v["self"] * v.get("input_scale", 1.0)))
    ),
    self=(
        "1 where {self} > 0, else {alpha*}e^{self}",
        lambda v: (
            v["scale"] * _elu_slope(v["self"], v["alpha"], v["input_scale"])
        ),
    ),
)  # fmt: skip
_unary(
    "gelu", "{self}·Φ({self})", lambda x: x * _distribution(x), "Φ({self}) + {self}·φ({self})",
    lambda v: _distribution(v["self"]) + v["self"] * _density(v["self"]),
)  # fmt: skip
_unary(
    "silu", "{self}·σ({self})", lambda x: x * _sigmoid(x), "σ({self})·(1 + {self}·(1 − σ({self})))",
    lambda v: _sigmoid(v["self"]) * (1 + v["self"] * (1 - _sigmoid(v["self"]))),
)  # fmt: skip
_unary(
    "mish", "{self}·tanh(softplus({self}))", lambda x: x * math.tanh(_softplus(x)),
    "tanh s + {self}·σ({self})·(1 − tanh² s), s = softplus({self})",
    lambda v: (
        math.tanh(_softplus(v["self"]))
        + v["self"] * _sigmoid(v["self"]) * (1 - math.tanh(_softplus(v["self"])) ** 2)
    ),
)  # fmt: skip
_sides(
    "softplus", "ln(1 + e^({beta}·{self}))/{beta}",
    lambda v: (
        v["self"] if v["beta"] * v["self"] > v["threshold"] else _softplus(v["beta"] * v["self"]) / v["beta"]
    ),
    self=(
        "σ({beta}·{self})",
        lambda v: 1.0 if v["beta"] * v["self"] > v["threshold"] else _sigmoid(v["beta"] * v["self"]),
    ),
)  # fmt: skip
_unary(
    "hardsigmoid", "({self} + 3)/6 held in [0, 1]", lambda x: min(max(x + 3, 0.0), 6.0) / 6,
    "1/6 inside (−3, 3), else 0", lambda v: 1 / 6 if -3 < v["self"] < 3 else 0.0,
)  # fmt: skip
_unary(
    "erf",
    "erf {self}",
    math.erf,
    "2/√π·e^(−{self}²)",
    lambda v: 2 / math.sqrt(math.pi) * math.exp(-(v["self"] ** 2)),
)
_unary(
    "erfc", "1 − erf {self}", math.erfc, "−2/√π·e^(−{self}²)",
    lambda v: -2 / math.sqrt(math.pi) * math.exp(-v["self"] ** 2),
)  # fmt: skip

# --- choices -------------------------------------------------------------------------------------

_unary("abs", "|{self}|", abs, "sign({self})", lambda v: _sign(v["self"]))
_unary("sign", "sign({self})", _sign, "0", _constant(0.0))
_unary("floor", "⌊{self}⌋", math.floor, "0", _constant(0.0))
_unary("ceil", "⌈{self}⌉", math.ceil, "0", _constant(0.0))
_unary("round", "round({self})", round, "0", _constant(0.0))
_unary("trunc", "trunc({self})", math.trunc, "0", _constant(0.0))
_unary("frac", "{self} − trunc({self})", lambda x: x - math.trunc(x), "1", _constant(1.0))
_sides(
    "maximum", "max({self}, {other})", lambda v: max(v["self"], v["other"]),
    self=("1 where {self} > {other}, ½ at a tie", lambda v: _share(v["self"], v["other"])),
    other=("1 where {other} > {self}, ½ at a tie", lambda v: _share(v["other"], v["self"])),
)  # fmt: skip
_sides(
    "minimum", "min({self}, {other})", lambda v: min(v["self"], v["other"]),
    self=("1 where {self} < {other}, ½ at a tie", lambda v: _share(v["other"], v["self"])),
    other=("1 where {other} < {self}, ½ at a tie", lambda v: _share(v["self"], v["other"])),
)  # fmt: skip
_sides(
    "where", "{self} where the condition holds, else {other}",
    lambda v: v["self"] if v["condition"] else v["other"],
    self=("1 where the condition holds, else 0", lambda v: float(bool(v["condition"]))),
    other=("0 where the condition holds, else 1", lambda v: float(not v["condition"])),
)  # fmt: skip
_sides(
    "clamp", "{self} held in [{min}, {max}]",
    lambda v: min(max(v["self"], v.get("min", -math.inf)), v.get("max", math.inf)),
    self=(
        "1 inside [{min}, {max}], else 0",
        lambda v: float(v.get("min", -math.inf) <= v["self"] <= v.get("max", math.inf)),
    ),
)  # fmt: skip
_sides(
    "clamp_min", "max({self}, {min})", lambda v: max(v["self"], v["min"]),
    self=("1 where {self} ≥ {min}, else 0", lambda v: float(v["self"] >= v["min"])),
)  # fmt: skip
_sides(
    "clamp_max", "min({self}, {max})", lambda v: min(v["self"], v["max"]),
    self=("1 where {self} ≤ {max}, else 0", lambda v: float(v["self"] <= v["max"])),
)  # fmt: skip
_sides(
    "masked_fill", "{self} where the mask is 0", lambda v: v["value"] if v["mask"] else v["self"],
    self=("0 where the mask holds, else 1", lambda v: float(not v["mask"])),
)  # fmt: skip

# --- copies and other shapes: the same elements ---------------------------------------------------

_unary("clone alias _to_copy lift_fresh", "{self}", float, "1", _constant(1.0))
_whole("view _unsafe_view _reshape_alias _reshape_copy", "{self} in another shape",
       self="G in the shape of {self}")  # fmt: skip
_whole("squeeze unsqueeze", "{self} in another shape", self="G in the shape of {self}")
_whole("t", "{self}ᵀ", self="Gᵀ")
_whole("transpose permute", "{self} with its axes exchanged", self="G with its axes exchanged back")
_whole("expand", "{self} repeated along new axes", self="G summed over the repeated axes")
_whole("repeat", "{self} repeated", self="G summed over the repetitions")
_whole("select slice index index_select gather take diagonal unfold", "chosen elements of {self}",
       self="zeros, with G added at the chosen elements")  # fmt: skip
_whole("split split_with_sizes unbind chunk", "{self} in pieces", self="the pieces' gradients joined")
_whole("cat stack", "{tensors} joined", tensors="the part of G that came from it")
_whole("constant_pad_nd", "{self} with a border", self="G without the border")
_whole("embedding", "rows of {weight} by index", weight="zeros, with each row's G added at its index")

# --- whole tensors ---------------------------------------------------------------------------------

_whole("sum", "Σ {self}", self="G to every element that was summed")
_whole("mean", "Σ {self} / n", self="G/n to every element")
_whole("prod", "Π {self}", self="G·(product of the other elements)")
_whole("cumsum", "running sum of {self}", self="G summed from the end")
_whole("var", "variance of {self}", self="G·2·({self} − mean)/(n − correction)")
_whole("std", "standard deviation of {self}", self="G·({self} − mean)/(std·(n − correction))")
_whole("norm linalg_vector_norm", "‖{self}‖", self="G·{self}/‖{self}‖ (2-norm)")
_whole("max min amax amin", "an extreme of {self}", self="G at the extreme element, 0 elsewhere")
_whole("logsumexp", "ln Σ e^{self}", self="G·softmax({self})")
_whole("_softmax _safe_softmax", "softmax({self})", self="s·(G − Σ G·s), s = softmax({self})")
_whole("_log_softmax", "log softmax({self})", self="G − softmax({self})·Σ G")
_whole("mm", "{self}·{mat2}", self="G·{mat2}ᵀ", mat2="{self}ᵀ·G")
_whole("bmm", "{self}·{mat2}, batch by batch", self="G·{mat2}ᵀ", mat2="{self}ᵀ·G")
_whole("mv", "{self}·{vec}", self="G·{vec}ᵀ", vec="{self}ᵀ·G")
_whole("dot", "Σ {self}·{tensor}", self="G·{tensor}", tensor="G·{self}")
_whole("addmm", "{self} + {mat1}·{mat2}", self="G (summed over broadcast axes)", mat1="G·{mat2}ᵀ",
       mat2="{mat1}ᵀ·G")  # fmt: skip
_whole("baddbmm", "{self} + {batch1}·{batch2}", self="G", batch1="G·{batch2}ᵀ", batch2="{batch1}ᵀ·G")
_whole(
    "linear", "{input}·{weight}ᵀ + {bias}", input="G·{weight}", weight="Gᵀ·{input}", bias="G summed over rows"
)
_whole("convolution", "{weight} slid over {input}", input="G slid back through {weight}",
       weight="{input} correlated with G", bias="G summed over batch and places")  # fmt: skip
_whole(
    "max_pool2d_with_indices", "largest of each window of {self}", self="G at each window's largest element"
)
_whole("avg_pool2d _adaptive_avg_pool2d", "mean of each window of {self}", self="G/n over each window")
_whole("native_dropout", "{input}·mask/(1 − p)", input="G·mask/(1 − p)")
_NORMAL = "w/σ·(G − mean(G) − x̂·mean(G·x̂)), x̂ the normalised {input}"
_whole("native_layer_norm native_batch_norm native_group_norm", "w·x̂ + b, x̂ = ({input} − mean)/σ",
       input=_NORMAL, weight="Σ G·x̂", bias="Σ G")  # fmt: skip
_whole("mse_loss", "mean of ({self} − {target})²", self="G·2·({self} − {target})/n",
       target="−G·2·({self} − {target})/n")  # fmt: skip
_whole(
    "nll_loss_forward nll_loss2d_forward",
    "−mean of {self} at the targets",
    self="−G/n at the targets, else 0",
)
_whole("binary_cross_entropy", "−mean(t·ln {self} + (1 − t)·ln(1 − {self}))",
       self="G·({self} − t)/({self}·(1 − {self}))/n")  # fmt: skip
_whole("binary_cross_entropy_with_logits", "cross entropy of σ({self})", self="G·(σ({self}) − t)/n")
_whole("_scaled_dot_product_flash_attention_for_cpu _scaled_dot_product_efficient_attention",
       "softmax({query}·{key}ᵀ/√d)·{value}", query="dS·{key}/√d", key="dSᵀ·{query}/√d",
       value="softmax(…)ᵀ·G")  # fmt: skip
