"""Samples of every size: what is left over for the second round may be nothing."""

from __future__ import annotations

import pytest

from explorer.engine.compare import compare
from explorer.engine.leaf import Leaf
from explorer.engine.rounding import ROUNDINGS


@pytest.mark.parametrize("rows", [2, 8, 17])
@pytest.mark.parametrize("width", [1000, 2000, 5000])
def test_costly_elements_of_a_short_gradient(rows: int, width: int) -> None:
    """Each is a long sum; the first round sees nearly all of them, and more are wanted than are left."""
    values = [float(k % 7) for k in range(rows * width)]
    sums = [sum(values[k * width : (k + 1) * width]) for k in range(rows)]
    terms = Leaf(values, (rows, width))
    right = compare(terms.sum(1), Leaf(sums, (rows,)), ROUNDINGS["float32"])
    assert right.status == "match"
    assert right.elements >= min(rows, 14)
    sums[-1] *= 1.01
    assert compare(terms.sum(1), Leaf(sums, (rows,)), ROUNDINGS["float32"]).status == "mismatch"
