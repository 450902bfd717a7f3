"""The engine's own gradients of many operations against central differences of the operation itself.

The inputs are torch's samples; of torch only the forward and the saved values are used, so that a formula
read wrongly in the same way twice cannot pass.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import pytest
import torch

from tests.engine.test_rules import _engine_gradients, _upstream
from tests.test_op_db import DIFFERENTIABLE, flat

BY_NAME = {op.formatted_name: op for op in DIFFERENTIABLE}

OPERATIONS = """
asin acos atan sinh cosh tan asinh acosh atanh atan2 exp2 expm1 log2 log10 log1p logaddexp logaddexp2 xlogy
special_xlog1py logit special_entr ldexp hypot sinc erfc erfinv special_erfcx special_ndtri special_log_ndtr
lgamma digamma polygamma_polygamma_n_1 mvlgamma_mvlgamma_p_3 i0 special_i0e special_i1 special_i1e complex
polar view_as_complex ceil floor frac fmod remainder div_no_rounding_mode copysign nan_to_num fmax fmin
deg2rad rad2deg nn_functional_glu nn_functional_prelu nn_functional_hardshrink nn_functional_softshrink
renorm diagonal diag_embed trace diagonal_scatter narrow_copy slice_scatter select_scatter unfold block_diag
rot90 nn_functional_pixel_shuffle nn_functional_pixel_unshuffle nn_functional_channel_shuffle masked_select
masked_scatter take put index_copy index_fill nn_functional_pad_reflect nn_functional_pad_replicate
nn_functional_adaptive_max_pool2d nn_functional_max_pool3d nn_functional_fold median nanmedian kthvalue mode
aminmax cummax cummin nansum std_mean norm_nuc dist prod cumprod logcumsumexp scatter_reduce_amax
scatter_reduce_prod scatter_reduce_mean index_reduce_amax index_reduce_prod index_reduce_mean
nn_functional_embedding_bag vdot addr linalg_cross nn_functional_bilinear linalg_solve
linalg_solve_triangular linalg_inv linalg_det linalg_slogdet linalg_pinv linalg_lu lu_solve linalg_qr
linalg_svdvals fft_fft fft_rfft fft_irfft fft_hfft cdist nn_functional_pdist nn_functional_soft_margin_loss
nn_functional_multi_margin_loss nn_functional_multilabel_margin_loss
""".split()  # noqa: SIM905 - a table of words stays a table
"""Left out: max_unpool (where windows overlap one write wins, and torch's gradient goes to all), eigvalsh and
the Cholesky family (they read one triangle, torch's gradient is that of both), random operations."""


def scalar(op: Any, sample: Any) -> torch.Tensor:
    """One real number made of all outputs with fixed random weights."""
    torch.manual_seed(3)
    result = op(sample.input, *sample.args, **sample.kwargs)
    if sample.output_process_fn_grad is not None:
        result = sample.output_process_fn_grad(result)
    generator = torch.Generator().manual_seed(4)
    total = torch.zeros((), dtype=torch.float64)
    for one in flat([result]):
        if one.requires_grad or one.is_floating_point() or one.is_complex():
            real = torch.view_as_real(one).contiguous() if one.is_complex() else one
            weights = torch.randn(real.shape, generator=generator, dtype=torch.float64)
            total = total + (real * weights).sum()
    return total


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [name for name in OPERATIONS if name in BY_NAME])
def test_agrees_with_finite_differences(name: str) -> None:
    op = BY_NAME[name]
    torch.manual_seed(0)
    compared = 0
    for sample in islice(op.sample_inputs("cpu", torch.float64, requires_grad=True), 12):
        if compared >= 3:
            break
        given = [sample.input, *sample.args, *sample.kwargs.values()]
        tensors = [one for one in flat(given) if one.requires_grad and one.is_leaf and one.numel()]
        if not tensors or len({one.data_ptr() for one in tensors}) < len(tensors):
            continue
        result = scalar(op, sample)
        if not result.requires_grad:
            continue
        engine = _engine_gradients(result, tensors)
        factor = float(_upstream(result))
        for tensor, gradient in zip(tensors, engine, strict=True):
            direction = torch.randn(
                tensor.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64
            )
            step = 1e-6
            sides = []
            with torch.no_grad():
                for sign in (1, -1):
                    tensor += sign * step * direction
                    sides.append(float(scalar(op, sample)))
                    tensor -= sign * step * direction
            slope = factor * (sides[0] - sides[1]) / (2 * step)
            own = sum(a * b for a, b in zip(gradient, direction.reshape(-1).tolist(), strict=True))
            size = sum(abs(a * b) for a, b in zip(gradient, direction.reshape(-1).tolist(), strict=True))
            assert own == pytest.approx(slope, rel=2e-5, abs=2e-6 * (1 + size)), name
            compared += 1
    assert compared, f"no sample of {name} could be compared"


def test_the_table_names_operations_of_torch() -> None:
    assert len(set(OPERATIONS) & set(BY_NAME)) > 100, sorted(set(OPERATIONS) - set(BY_NAME))
