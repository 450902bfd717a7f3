"""Operations that choose, round or cut; copies and other shapes."""

from __future__ import annotations

import math

from explorer.operations.table import constant, sides, unary, whole


def share(a: float, b: float) -> float:
    """1 where a > b, a half each at a tie, 0 below: the part of maximum(a, b) that a receives."""
    return 1.0 if a > b else 0.5 if a == b else 0.0


def sign(x: float) -> float:
    """-1, 0 or 1."""
    return float((x > 0) - (x < 0))


# --- choices ---------------------------------------------------------------------------------------

unary("abs", "|{self}|", abs, "sign({self})", lambda v: sign(v["self"]))
unary("sign", "sign({self})", sign, "0", constant(0.0))
unary("floor", "⌊{self}⌋", math.floor, "0", constant(0.0))
unary("ceil", "⌈{self}⌉", math.ceil, "0", constant(0.0))
unary("round", "round({self})", round, "0", constant(0.0))
unary("trunc", "trunc({self})", math.trunc, "0", constant(0.0))
unary("frac", "{self} − trunc({self})", lambda x: x - math.trunc(x), "1", constant(1.0))
sides(
    "maximum", "max({self}, {other})", lambda v: max(v["self"], v["other"]),
    self=("1 where {self} > {other}, ½ at a tie", lambda v: share(v["self"], v["other"])),
    other=("1 where {other} > {self}, ½ at a tie", lambda v: share(v["other"], v["self"])),
)  # fmt: skip
sides(
    "minimum", "min({self}, {other})", lambda v: min(v["self"], v["other"]),
    self=("1 where {self} < {other}, ½ at a tie", lambda v: share(v["other"], v["self"])),
    other=("1 where {other} < {self}, ½ at a tie", lambda v: share(v["self"], v["other"])),
)  # fmt: skip
sides(
    "where", "{self} where the condition holds, else {other}",
    lambda v: v["self"] if v["condition"] else v["other"],
    self=("1 where the condition holds, else 0", lambda v: float(bool(v["condition"]))),
    other=("0 where the condition holds, else 1", lambda v: float(not v["condition"])),
)  # fmt: skip
sides(
    "clamp", "{self} held in [{min}, {max}]",
    lambda v: min(max(v["self"], v.get("min", -math.inf)), v.get("max", math.inf)),
    self=(
        "1 inside [{min}, {max}], else 0",
        lambda v: float(v.get("min", -math.inf) <= v["self"] <= v.get("max", math.inf)),
    ),
)  # fmt: skip
sides(
    "clamp_min", "max({self}, {min})", lambda v: max(v["self"], v["min"]),
    self=("1 where {self} ≥ {min}, else 0", lambda v: float(v["self"] >= v["min"])),
)  # fmt: skip
sides(
    "clamp_max", "min({self}, {max})", lambda v: min(v["self"], v["max"]),
    self=("1 where {self} ≤ {max}, else 0", lambda v: float(v["self"] <= v["max"])),
)  # fmt: skip
sides(
    "masked_fill", "{self} where the mask is 0", lambda v: v["value"] if v["mask"] else v["self"],
    self=("0 where the mask holds, else 1", lambda v: float(not v["mask"])),
)  # fmt: skip

# --- copies and other shapes: the same elements ----------------------------------------------------

unary("clone alias _to_copy lift_fresh", "{self}", float, "1", constant(1.0))
whole("view _unsafe_view _reshape_alias _reshape_copy", "{self} in another shape",
       self="G in the shape of {self}")  # fmt: skip
whole("squeeze unsqueeze", "{self} in another shape", self="G in the shape of {self}")
whole("t", "{self}ᵀ", self="Gᵀ")
whole("transpose permute", "{self} with its axes exchanged", self="G with its axes exchanged back")
whole("expand", "{self} repeated along new axes", self="G summed over the repeated axes")
whole("repeat", "{self} repeated", self="G summed over the repetitions")
whole("select slice index index_select gather take diagonal unfold", "chosen elements of {self}",
       self="zeros, with G added at the chosen elements")  # fmt: skip
whole("split split_with_sizes unbind chunk", "{self} in pieces", self="the pieces' gradients joined")
whole("cat stack", "{tensors} joined", tensors="the part of G that came from it")
whole("constant_pad_nd", "{self} with a border", self="G without the border")
whole("embedding", "rows of {weight} by index", weight="zeros, with each row's G added at its index")
