# ruff: noqa: N812 - a row of the table stays a row; F is torch's own custom
"""More small problems, as in `tests.engine.problems`: interpolation, sequences, recursions over matrices."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F

Problem = tuple[str, Callable[..., Any], list[Any]]


def _grids() -> dict[str, Problem]:
    image, volume = (2, 3, 4, 5), (1, 2, 3, 4, 3)
    table: dict[str, Problem] = {
        "affine grid": (
            "AffineGridGeneratorBackward0",
            lambda t: F.affine_grid(t, [2, 1, 4, 3], align_corners=False),
            [(2, 2, 3)],
        ),
        "affine grid, corners": (
            "AffineGridGeneratorBackward0",
            lambda t: F.affine_grid(t, [2, 1, 4, 2, 3], align_corners=True),
            [(2, 3, 4)],
        ),
    }
    for mode in ("bilinear", "nearest", "bicubic"):
        for padding in ("zeros", "border", "reflection"):
            for align in (False, True):
                options: dict[str, Any] = {"mode": mode, "padding_mode": padding, "align_corners": align}
                name = f"grid sample, {mode}, {padding}{', corners' if align else ''}"
                table[name] = (
                    "GridSampler2DBackward0",
                    lambda x, g, o=options: F.grid_sample(x, g, **o),
                    [image, (2, 3, 4, 2)],
                )
                if mode != "bicubic":
                    table[f"{name}, 3d"] = (
                        "GridSampler3DBackward0",
                        lambda x, g, o=options: F.grid_sample(x, g, **o),
                        [volume, (1, 2, 3, 2, 3)],
                    )
    return table


def _resized() -> dict[str, Problem]:
    """Sizes up and down; scales that are not the quotient of the sizes."""
    image = (1, 2, 5, 6)
    table: dict[str, Problem] = {}
    for mode, node, options in (
        ("bicubic", "Bicubic2D", {}), ("bicubic", "Bicubic2D", {"align_corners": True}),
        ("bilinear", "Bilinear2DAa", {"antialias": True}), ("bicubic", "Bicubic2DAa", {"antialias": True}),
        ("lanczos", "Lanczos2DAa", {"antialias": True}), ("nearest-exact", "NearestExact2D", {}),
    ):  # fmt: skip
        for size in ((3, 4), (11, 7)):
            table[f"{mode} {options} to {size}"] = (
                f"Upsample{node}Backward0",
                lambda x, m=mode, o=options, s=size: F.interpolate(x, s, mode=m, **o),
                [image],
            )
        if "align_corners" not in options:
            table[f"{mode} {options} by 1.3"] = (
                f"Upsample{node}Backward0",
                lambda x, m=mode, o=options: F.interpolate(x, scale_factor=1.3, mode=m, **o),
                [image],
            )
    return table


def _matrices() -> dict[str, Problem]:
    table: dict[str, Problem] = {
        "matrix exponential": ("LinalgMatrixExpBackward0", torch.matrix_exp, [(2, 4, 4)]),
        "matrix exponential, large": (
            "LinalgMatrixExpBackward0",
            lambda a: torch.matrix_exp(2 * a),
            [(3, 3)],
        ),
        "least squares, tall": (
            "LinalgLstsqBackward0",
            lambda a, b: torch.linalg.lstsq(a, b)[0],
            [(2, 5, 3), (2, 5, 2)],
        ),
        "least squares, wide": (
            "LinalgLstsqBackward0",
            lambda a, b: torch.linalg.lstsq(a, b)[0],
            [(3, 5), (3, 2)],
        ),
        "least squares, residuals": (
            "LinalgLstsqBackward0",
            lambda a, b: torch.linalg.lstsq(a, b, driver="gels")[1],
            [(5, 3), (5, 2)],
        ),
        "householder product": (
            "LinalgHouseholderProductBackward0",
            torch.linalg.householder_product,
            [(2, 5, 3), (2, 3)],
        ),
        "householder product, few": (
            "LinalgHouseholderProductBackward0",
            torch.linalg.householder_product,
            [(4, 4), (2,)],
        ),
    }
    for left in (True, False):
        for transpose in (True, False):
            shape = (5, 2) if left else (2, 5)
            table[f"ormqr {left} {transpose}"] = (
                "OrmqrBackward0",
                lambda a, t, c, f=left, g=transpose: torch.ormqr(a, t, c, f, g),
                [(5, 3), (3,), shape],
            )
    return table


def _sequences() -> dict[str, Problem]:
    targets, lengths = torch.tensor([[1, 1, 3], [2, 4, 0]]), torch.tensor([3, 2])

    def ctc(x: Any, **options: Any) -> Any:
        return F.ctc_loss(x.log_softmax(-1), targets, torch.tensor([7, 6]), lengths, **options)

    return {
        "ctc": ("CtcLossBackward0", ctc, [(7, 2, 5)]),
        "ctc, each": ("CtcLossBackward0", lambda x: ctc(x, reduction="none"), [(7, 2, 5)]),
        "ctc, flat targets, another blank": (
            "CtcLossBackward0",
            lambda x: F.ctc_loss(x.log_softmax(-1), torch.tensor([1, 0, 3]), (6, 5), (2, 1), blank=4),
            [(6, 2, 5)],
        ),
        "pack": (
            "PackPaddedSequenceBackward0",
            lambda x: torch._pack_padded_sequence(x, torch.tensor([4, 2, 1]), False)[0],
            [(4, 3, 2)],
        ),
        "pack, batch first": (
            "PackPaddedSequenceBackward0",
            lambda x: torch._pack_padded_sequence(x, torch.tensor([3, 3]), True)[0],
            [(2, 4)],
        ),
    }


def further() -> dict[str, Problem]:
    """The table; tensors are drawn anew, so seed torch first."""
    return {
        **_grids(),
        **_resized(),
        **_matrices(),
        **_sequences(),
        "fill": ("FillBackward1", lambda x, v: torch.fill(x, v) * x, [(3, 4), ()]),
        "fill in place": ("FillBackward3", lambda x, v: (x * 2).fill_(v) * x, [(3, 4), ()]),
    }
