"""Every colour, sign and word of the drawings, in one table.

Fills are light and text is dark, so that a node reads the same on a white page and in a dark
notebook. No meaning is carried by colour alone: position, weight, slant, border or a word repeats it.
All colours have six hex digits (Graphviz 2.43 paints shorter ones black).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

# ---------------------------------------------------------------- ink and type
FONT: Final = "Helvetica"
SIZE: Final = 11
SMALL_SIZE: Final = 9
TITLE_SIZE: Final = 13
INK: Final = "#1F2933"
MUTED: Final = "#52606D"
FAINT: Final = "#3E4C59"
WIRE: Final = "#7B8794"
SWATCH_INK: Final = "#111111"

# ---------------------------------------------------------------- circuit wires
VALUE: Final = "#0B6E3A"
GRADIENT: Final = "#B3261E"

# ---------------------------------------------------------------- gradient magnitude, one class a decade
MAGNITUDE: Final = ("#542788", "#998EC3", "#D8DAEB", "#F7F7F7", "#FEE0B6", "#F1A340", "#B35806")
MAGNITUDE_INK: Final = ("#FFFFFF", SWATCH_INK, SWATCH_INK, SWATCH_INK, SWATCH_INK, SWATCH_INK, "#FFFFFF")
CENTRE: Final = 3
WIDTH_LEAST: Final = 0.8
WIDTH_MOST: Final = 2.6

# ------------------------------------------------------------ kinds: (shape, style, border, pen width, fill)
Look = tuple[str, str, str, str, str]
LOOKS: Final[Mapping[str, Look]] = {
    "op": ("box", "rounded,filled", "#7B8794", "1", "#F5F7FA"),
    "parameter": ("box", "filled", "#0072B2", "1.6", "#DCEBF7"),
    "input": ("box", "rounded,filled,dashed", "#B87700", "1.4", "#FFF6E0"),
    "custom": ("component", "filled", "#A3467E", "1.6", "#F8ECF3"),
    "opaque": ("box3d", "filled", "#7B8794", "1", "#F5F7FA"),
    "module": ("folder", "filled", "#7B8794", "1.2", "#EFF3F7"),
    "fold": ("box3d", "filled", "#7B8794", "1.2", "#F5F7FA"),
    "saved": ("note", "filled", "#9AA5B1", "0.8", "#FFFFFF"),
}
ROOT_BORDER: Final = "#00795A"
ROOT_FILL: Final = "#DDF3EA"
NEUTRAL: Final = "#F7F7F7"

# ---------------------------------------------------------------- states that override the look
HAZARD_FILL: Final = "#111111"
HAZARD_BORDER: Final = "#FFB000"
HAZARD_INK: Final = "#FFD24A"
ZERO_FILL: Final = "#FFFFFF"
NONE_FILL: Final = "#F1F3F5"
NONE_BORDER: Final = "#9AA5B1"
WRONG_BORDER: Final = "#C4161C"
WRONG_INK: Final = "#A80F14"
FINDING_INK: Final = "#8A4B00"
HOOK_INK: Final = "#8A2F68"
CAST_INK: Final = "#005B8A"
INSIDE_INK: Final = "#00558A"

# ---------------------------------------------------------------- clusters
CLUSTER_FILLS: Final = ("#F8FAFC", "#EFF3F7", "#E4EAF0", "#D9E1E9")
CLUSTER_BORDER: Final = "#CBD2D9"

# ---------------------------------------------------------------- the dark side, for the CSS in an SVG
DARK: Final[Mapping[str, str]] = {
    INK: "#F5F7FA",
    MUTED: "#AAB4C0",
    FAINT: "#CBD2D9",
    WIRE: "#9AA5B1",
    VALUE: "#63D297",
    GRADIENT: "#FF8A80",
    WRONG_INK: "#FF8A80",
    HOOK_INK: "#F09AC8",
    CAST_INK: "#7CC4F0",
    FINDING_INK: "#FFC46B",
    "#0072B2": "#6CB8EC",
    "#F8FAFC": "#1B222B",
    "#EFF3F7": "#232C37",
    "#E4EAF0": "#2C3744",
    "#D9E1E9": "#364352",
    "#CBD2D9": "#465466",
}

# ---------------------------------------------------------------- on a page of any colour
GROUND: Final = ("#FFFFFF", "#121212")
"""Under a picture that is a document of its own, light and dark."""
OWN_SHARE: Final = "60%"
"""Of a coloured word's own colour; the rest is that of the text around the drawing."""
VEIL: Final = "#64748B"
VEIL_DEPTH: Final = ".06"
VEIL_EDGE: Final = ".4"

# ------------------------------------------------------------ circuit signs, by node name without "Backward…"
SIGNS: Final[Mapping[str, str]] = {
    "Mul": "×",
    "Add": "+",
    "Sub": "−",
    "Rsub": "−",
    "Div": "÷",
    "Neg": "×−1",
    "Exp": "exp",
    "Exp2": "2ˣ",
    "Expm1": "exp−1",
    "Reciprocal": "1/x",
    "Log": "log",
    "Log1P": "log1p",
    "Log2": "log₂",
    "Log10": "log₁₀",
    "Tanh": "tanh",
    "Sigmoid": "σ",
    "LogSigmoid": "log σ",
    "Relu": "ReLU",
    "LeakyRelu": "leaky",
    "Gelu": "GELU",
    "Silu": "SiLU",
    "Softplus": "softplus",
    "Sqrt": "√",
    "Rsqrt": "1/√",
    "Pow": "xⁿ",
    "Sin": "sin",
    "Cos": "cos",
    "Tan": "tan",
    "Atan": "atan",
    "Abs": "|x|",
    "Maximum": "max",
    "Minimum": "min",
    "Max": "max",
    "Min": "min",
    "Sum": "Σ",
    "Mean": "mean",
    "Dot": "·",
    "Clamp": "clamp",
    "Clone": "copy",
    "Where": "where",
    "ToCopy": "cast",
}
CONSTANT_SIGNS: Final[Mapping[str, str]] = {"Mul": "×", "Add": "+", "Sub": "−", "Div": "÷"}

# ---------------------------------------------------------------- views: one in, one out, the same elements
VIEWS: Final = frozenset(
    {
        "View", "UnsafeView", "Reshape", "ReshapeAlias", "Transpose", "T", "Permute", "Squeeze",
        "Unsqueeze", "Expand", "Alias", "Contiguous", "Clone", "ToCopy", "Movedim", "Swapaxes",
        "Unflatten", "Flatten", "ViewAs", "Mt", "Adjoint",
    }
)  # fmt: skip

# ---------------------------------------------------------------- words
NOT_REACHED: Final = "not reached"
NO_GRADIENT: Final = "no grad"
NO_DATA: Final = "no data"
ZERO: Final = "0 (exact)"
CUSTOM: Final = "custom Function"
WRONG: Final = "≠"
LOOK_HERE: Final = "▲"
TIMES: Final = "×"
CAST: Final = "→"
HOOK: Final = "¶"
SUM: Final = "Σ"
NEXT: Final = "next"
CIRCUIT_KEY: Final = ("forward value", " above the wire, ", "gradient", " below")
LEGEND: Final = "gradient RMS (log scale, centre = median)"
PARAMETER_KEY: Final = ("square blue border", " = parameter")
INSIDE_KEY: Final = ("name and number in a box", " = parameter used there")
KEY: Final[Mapping[str, str]] = {
    "input": "dashed amber: input",
    "custom": "tabs at the left: custom Function",
    "module": "folder: module drawn as one box",
    "fold": "stacked box: several nodes",
    "hazard": "black: NaN or Inf",
    "zero": "dotted: exactly zero",
    "none": "dashed grey: no gradient (None)",
    "wrong": "≠ thick red border: the check disagrees",
    "finding": "▲ finding",
    "hook": "¶ hook of the program",
    "cast": "→ dtype change",
    "sum": "Σ contributions that are added",
    "copies": "a leaf used often is drawn once per use, by name",
    "again": "dashed line: to the next of several drawn once",
}
"""Mark -> its entry in the legend, shown where the mark occurs."""
VERDICT_MARKS: Final[Mapping[str, str]] = {
    "match": "✓",
    "loose": "≈",
    "low-precision accumulation": "≈",
    "mismatch": "≠",
    "overflow": "∞",
    "nan-mismatch": "≠",
    "unchecked": "·",
}
VERDICT_COLOURS: Final[Mapping[str, str]] = {
    "match": "green",
    "loose": "green",
    "low-precision accumulation": "yellow",
    "mismatch": "bold red",
    "overflow": "yellow",
    "nan-mismatch": "bold red",
    "unchecked": "dim",
}
SEVERITY_COLOURS: Final[Mapping[str, str]] = {"error": "bold red", "warning": "yellow", "info": "cyan"}
END_TO_END: Final[Mapping[str, str]] = {
    "full": "end to end: full",
    "induction": "end to end: by induction",
    "off": "end to end: off",
}


def inks_on(fill: str) -> tuple[str, str]:
    """The colours of a name and of small print that read on `fill`."""
    if fill in (MAGNITUDE[0], MAGNITUDE[-1]):
        return "#FFFFFF", "#FFFFFF"
    return INK, INK if fill in (MAGNITUDE[1], MAGNITUDE[-2]) else FAINT
