"""Activations, and what they are made of."""

from __future__ import annotations

import math

from explorer.operations.elementary import sigmoid
from explorer.operations.table import sides, unary


def density(x: float) -> float:
    """The standard normal density at x."""
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


def distribution(x: float) -> float:
    """The standard normal distribution function at x."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


def softplus(x: float) -> float:
    """log(1 + e^x) without overflow."""
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


def elu_slope(x: float, alpha: float, inner: float) -> float:
    """1 above 0, else the slope of alpha·(e^(inner·x) − 1)."""
    return 1.0 if x > 0 else alpha * inner * math.exp(x * inner)


unary("tanh", "tanh {self}", math.tanh, "1 − tanh² {self}", lambda v: 1 - v["result"] ** 2)
unary("sigmoid", "σ({self})", sigmoid, "σ({self})·(1 − σ({self}))", lambda v: v["result"] * (1 - v["result"]))
unary(
    "log_sigmoid_forward",
    "ln σ({self})",
    lambda x: -softplus(-x),
    "σ(−{self})",
    lambda v: sigmoid(-v["self"]),
)
unary(
    "relu", "max(0, {self})", lambda x: max(x, 0.0), "1 where {self} > 0, else 0",
    lambda v: float(v["result"] > 0),
)  # fmt: skip
sides(
    "threshold", "{self} where {self} > {threshold}, else {value}",
    lambda v: v["self"] if v["self"] > v["threshold"] else v["value"],
    self=("1 where {self} > {threshold}, else 0", lambda v: float(v["self"] > v["threshold"])),
)  # fmt: skip
sides(
    "leaky_relu", "max({self}, 0) + {negative_slope}·min({self}, 0)",
    lambda v: v["self"] if v["self"] > 0 else v["negative_slope"] * v["self"],
    self=(
        "1 where {self} > 0, else {negative_slope}",
        lambda v: 1.0 if v["self"] > 0 else v["negative_slope"],
    ),
)  # fmt: skip
sides(
    "hardtanh", "{self} held in [{min_val}, {max_val}]",
    lambda v: min(max(v["self"], v["min_val"]), v["max_val"]),
    self=(
        "1 inside ({min_val}, {max_val}), else 0",
        lambda v: float(v["min_val"] < v["self"] < v["max_val"]),
    ),
)  # fmt: skip
sides(
    "elu", "{self} above 0, else {alpha*}(e^{self} − 1)",
    lambda v: (
        v["scale"]
        * (v["self"] if v["self"] > 0 else v["alpha"] * math.expm1(v["self"] * v.get("input_scale", 1.0)))
    ),
    self=(
        "1 where {self} > 0, else {alpha*}e^{self}",
        lambda v: (
            v["scale"] * elu_slope(v["self"], v["alpha"], v["input_scale"])
        ),
    ),
)  # fmt: skip
unary(
    "gelu", "{self}·Φ({self})", lambda x: x * distribution(x), "Φ({self}) + {self}·φ({self})",
    lambda v: distribution(v["self"]) + v["self"] * density(v["self"]),
)  # fmt: skip
unary(
    "silu", "{self}·σ({self})", lambda x: x * sigmoid(x), "σ({self})·(1 + {self}·(1 − σ({self})))",
    lambda v: sigmoid(v["self"]) * (1 + v["self"] * (1 - sigmoid(v["self"]))),
)  # fmt: skip
unary(
    "mish", "{self}·tanh(softplus({self}))", lambda x: x * math.tanh(softplus(x)),
    "tanh s + {self}·σ({self})·(1 − tanh² s), s = softplus({self})",
    lambda v: (
        math.tanh(softplus(v["self"]))
        + v["self"] * sigmoid(v["self"]) * (1 - math.tanh(softplus(v["self"])) ** 2)
    ),
)  # fmt: skip
sides(
    "softplus", "ln(1 + e^({beta}·{self}))/{beta}",
    lambda v: (
        v["self"] if v["beta"] * v["self"] > v["threshold"] else softplus(v["beta"] * v["self"]) / v["beta"]
    ),
    self=(
        "σ({beta}·{self})",
        lambda v: 1.0 if v["beta"] * v["self"] > v["threshold"] else sigmoid(v["beta"] * v["self"]),
    ),
)  # fmt: skip
unary(
    "hardsigmoid", "({self} + 3)/6 held in [0, 1]", lambda x: min(max(x + 3, 0.0), 6.0) / 6,
    "1/6 inside (−3, 3), else 0", lambda v: 1 / 6 if -3 < v["self"] < 3 else 0.0,
)  # fmt: skip
unary(
    "erf",
    "erf {self}",
    math.erf,
    "2/√π·e^(−{self}²)",
    lambda v: 2 / math.sqrt(math.pi) * math.exp(-(v["self"] ** 2)),
)
unary(
    "erfc", "1 − erf {self}", math.erfc, "−2/√π·e^(−{self}²)",
    lambda v: -2 / math.sqrt(math.pi) * math.exp(-v["self"] ** 2),
)  # fmt: skip
