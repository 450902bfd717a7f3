"""Sums, products, powers, exponentials, logarithms and angles."""

from __future__ import annotations

import math

from explorer.operations.table import constant, sides, unary


def sigmoid(x: float) -> float:
    """1 / (1 + e^-x) without overflow."""
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def times(factor: float, text: float) -> float:
    """factor · text, and 0 when the factor is 0, as torch's pow has it at the border."""
    return 0.0 if factor == 0 else factor * text


# --- sums and products -----------------------------------------------------------------------------

sides(
    "add", "{self} + {alpha*}{other}", lambda v: v["self"] + v.get("alpha", 1.0) * v["other"],
    self=("1", constant(1.0)), other=("{alpha}", lambda v: v.get("alpha", 1.0)),
)  # fmt: skip
sides(
    "sub", "{self} − {alpha*}{other}", lambda v: v["self"] - v.get("alpha", 1.0) * v["other"],
    self=("1", constant(1.0)), other=("−{alpha}", lambda v: -v.get("alpha", 1.0)),
)  # fmt: skip
sides(
    "rsub", "{other} − {alpha*}{self}", lambda v: v["other"] - v.get("alpha", 1.0) * v["self"],
    self=("−{alpha}", lambda v: -v.get("alpha", 1.0)), other=("1", constant(1.0)),
)  # fmt: skip
sides(
    "mul", "{self}·{other}", lambda v: v["self"] * v["other"],
    self=("{other}", lambda v: v["other"]), other=("{self}", lambda v: v["self"]),
)  # fmt: skip
sides(
    "div", "{self}/{other}", lambda v: v["self"] / v["other"],
    self=("1/{other}", lambda v: 1 / v["other"]),
    other=("−{self}/{other}²", lambda v: -v["self"] / (v["other"] * v["other"])),
)  # fmt: skip
sides(
    "addcmul", "{self} + {value*}{tensor1}·{tensor2}",
    lambda v: v["self"] + v.get("value", 1.0) * v["tensor1"] * v["tensor2"],
    self=("1", constant(1.0)),
    tensor1=("{value*}{tensor2}", lambda v: v.get("value", 1.0) * v["tensor2"]),
    tensor2=("{value*}{tensor1}", lambda v: v.get("value", 1.0) * v["tensor1"]),
)  # fmt: skip
sides(
    "addcdiv", "{self} + {value*}{tensor1}/{tensor2}",
    lambda v: v["self"] + v.get("value", 1.0) * v["tensor1"] / v["tensor2"],
    self=("1", constant(1.0)),
    tensor1=("{value}/{tensor2}", lambda v: v.get("value", 1.0) / v["tensor2"]),
    tensor2=(
        "−{value*}{tensor1}/{tensor2}²",
        lambda v: -v.get("value", 1.0) * v["tensor1"] / v["tensor2"] ** 2,
    ),
)  # fmt: skip
sides(
    "lerp", "{self} + {weight}·({end} − {self})", lambda v: v["self"] + v["weight"] * (v["end"] - v["self"]),
    self=("1 − {weight}", lambda v: 1 - v["weight"]), end=("{weight}", lambda v: v["weight"]),
    weight=("{end} − {self}", lambda v: v["end"] - v["self"]),
)  # fmt: skip
unary("neg", "−{self}", lambda x: -x, "−1", constant(-1.0))
unary("reciprocal", "1/{self}", lambda x: 1 / x, "−1/{self}²", lambda v: -v["result"] * v["result"])
sides(
    "fmod", "{self} mod {other}", lambda v: math.fmod(v["self"], v["other"]),
    self=("1", constant(1.0)),
    other=("−trunc({self}/{other})", lambda v: -math.trunc(v["self"] / v["other"])),
)  # fmt: skip
sides(
    "remainder", "{self} mod {other}", lambda v: v["self"] - v["other"] * math.floor(v["self"] / v["other"]),
    self=("1", constant(1.0)), other=("−⌊{self}/{other}⌋", lambda v: -math.floor(v["self"] / v["other"])),
)  # fmt: skip

# --- powers, exponentials, logarithms --------------------------------------------------------------

sides(
    "pow", "{self}^{exponent}", lambda v: v["self"] ** v["exponent"],
    self=(
        "{exponent}·{self}^({exponent}−1)",
        lambda v: 0.0 if v["exponent"] == 0 else v["exponent"] * v["self"] ** (v["exponent"] - 1),
    ),
    exponent=("{self}^{exponent}·ln {self}", lambda v: times(v["result"], math.log(v["self"]))),
)  # fmt: skip
unary("sqrt", "√{self}", math.sqrt, "1/(2·√{self})", lambda v: 1 / (2 * v["result"]))
unary(
    "rsqrt", "1/√{self}", lambda x: 1 / math.sqrt(x), "−1/(2·{self}^1.5)", lambda v: -(v["result"] ** 3) / 2
)
unary("exp", "e^{self}", math.exp, "e^{self}", lambda v: v["result"])
unary("exp2", "2^{self}", lambda x: 2.0**x, "2^{self}·ln 2", lambda v: v["result"] * math.log(2))
unary("expm1", "e^{self} − 1", math.expm1, "e^{self}", lambda v: v["result"] + 1)
unary("log", "ln {self}", math.log, "1/{self}", lambda v: 1 / v["self"])
unary("log2", "log₂ {self}", math.log2, "1/({self}·ln 2)", lambda v: 1 / (v["self"] * math.log(2)))
unary("log10", "log₁₀ {self}", math.log10, "1/({self}·ln 10)", lambda v: 1 / (v["self"] * math.log(10)))
unary("log1p", "ln(1 + {self})", math.log1p, "1/(1 + {self})", lambda v: 1 / (1 + v["self"]))
sides(
    "xlogy", "{self}·ln {other}", lambda v: times(v["self"], math.log(v["other"])),
    self=("ln {other}", lambda v: math.log(v["other"])),
    other=("{self}/{other}", lambda v: v["self"] / v["other"]),
)  # fmt: skip
sides(
    "logaddexp", "ln(e^{self} + e^{other})",
    lambda v: max(v["self"], v["other"]) + math.log1p(math.exp(-abs(v["self"] - v["other"]))),
    self=("σ({self} − {other})", lambda v: sigmoid(v["self"] - v["other"])),
    other=("σ({other} − {self})", lambda v: sigmoid(v["other"] - v["self"])),
)  # fmt: skip
sides(
    "hypot", "√({self}² + {other}²)", lambda v: math.hypot(v["self"], v["other"]),
    self=("{self}/√({self}² + {other}²)", lambda v: v["self"] / v["result"]),
    other=("{other}/√({self}² + {other}²)", lambda v: v["other"] / v["result"]),
)  # fmt: skip

# --- angles ----------------------------------------------------------------------------------------

unary("sin", "sin {self}", math.sin, "cos {self}", lambda v: math.cos(v["self"]))
unary("cos", "cos {self}", math.cos, "−sin {self}", lambda v: -math.sin(v["self"]))
unary("tan", "tan {self}", math.tan, "1 + tan² {self}", lambda v: 1 + v["result"] ** 2)
unary("asin", "arcsin {self}", math.asin, "1/√(1 − {self}²)", lambda v: 1 / math.sqrt(1 - v["self"] ** 2))
unary("acos", "arccos {self}", math.acos, "−1/√(1 − {self}²)", lambda v: -1 / math.sqrt(1 - v["self"] ** 2))
unary("atan", "arctan {self}", math.atan, "1/(1 + {self}²)", lambda v: 1 / (1 + v["self"] ** 2))
unary("sinh", "sinh {self}", math.sinh, "cosh {self}", lambda v: math.cosh(v["self"]))
unary("cosh", "cosh {self}", math.cosh, "sinh {self}", lambda v: math.sinh(v["self"]))
unary("asinh", "arsinh {self}", math.asinh, "1/√({self}² + 1)", lambda v: 1 / math.sqrt(v["self"] ** 2 + 1))
unary("acosh", "arcosh {self}", math.acosh, "1/√({self}² − 1)", lambda v: 1 / math.sqrt(v["self"] ** 2 - 1))
unary("atanh", "artanh {self}", math.atanh, "1/(1 − {self}²)", lambda v: 1 / (1 - v["self"] ** 2))
sides(
    "atan2", "atan2({self}, {other})", lambda v: math.atan2(v["self"], v["other"]),
    self=("{other}/({self}² + {other}²)", lambda v: v["other"] / (v["self"] ** 2 + v["other"] ** 2)),
    other=("−{self}/({self}² + {other}²)", lambda v: -v["self"] / (v["self"] ** 2 + v["other"] ** 2)),
)  # fmt: skip
