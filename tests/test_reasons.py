"""why(): each reason on a case made for it."""

from __future__ import annotations

import pytest
import torch

from explorer.reasons import why


def test_a_reached_leaf_and_its_path() -> None:
    x = torch.tensor([3.0, 4.0], requires_grad=True)
    loss = (x * x).sum()
    answer = why(x, loss)
    assert answer.reason == "reached"
    assert answer.gradient == pytest.approx(10.0)
    assert [node.name for node in answer.path] == ["SumBackward0", "MulBackward0", "AccumulateGrad"]
    assert x.grad is None
    loss.backward()


def test_a_gradient_without_data_has_come_all_the_same() -> None:
    w, unused = (torch.ones(2, device="meta", requires_grad=True) for _ in range(2))
    answer = why(w, (w * w).sum())
    assert (answer.reason, answer.gradient) == ("reached", None)
    assert answer.text == "`w` gets a gradient without data, 3 nodes from the loss."
    assert why(unused, (w * w).sum()).reason == "not reached"


def test_a_result_keeps_no_grad() -> None:
    x = torch.ones(2, requires_grad=True)
    h = x * 3
    answer = why(h, h.pow(2).sum())
    assert answer.reason == "not a leaf"
    assert "`h.retain_grad()`" in answer.text


def test_frozen() -> None:
    x, w = torch.ones(2), torch.ones(2, requires_grad=True)
    assert why(x, (x * w).sum()).reason == "frozen"


def test_zeroed_by_a_step_function() -> None:
    x = torch.tensor([0.3, 1.7], requires_grad=True)
    loss = (2 * (3 * x).round()).sum()
    answer = why(x, loss)
    assert answer.reason == "zeroed"
    assert "RoundBackward0" in answer.text


def test_cut_by_detach() -> None:
    w, v = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    h = w * 2
    cut = h.detach()
    answer = why(w, (cut * v).sum())
    assert answer.reason == "cut"
    assert answer.text == "`w` is cut off at `h`: `cut` has its memory and no graph (detach)."


def test_tensors_without_a_storage_share_none() -> None:
    """Sparse tensors have no storage to compare: two of them are no twins."""
    w, v = torch.eye(3).requires_grad_(), torch.ones(2, requires_grad=True)
    h = w.to_sparse()  # noqa: F841 - why() finds it among the variables
    adjacency = torch.ones(2, 2).to_sparse()  # noqa: F841 - and must not take it for the other's detached twin
    assert why(w, v.sum()).reason == "not reached"


def test_not_reached() -> None:
    w, v = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
    loss = v.sum()
    assert why(w, loss).text == "`w` is not in the graph of the loss: no variable depends on it."
    aside = w.exp()  # noqa: F841 - why() finds it among the variables
    assert "`aside` depends on it" in why(w, loss).text


def test_a_loss_without_a_graph() -> None:
    w = torch.ones(2, requires_grad=True)
    value = w.sum()
    loss = value.detach()
    answer = why(w, loss)
    assert answer.reason == "loss requires no gradient"
    assert "`value`" in answer.text


def test_an_unused_output_gets_nothing() -> None:
    x = torch.ones(4, requires_grad=True)
    first, second = x.chunk(2)
    kept = second * 1
    assert why(kept, first.sum()).reason == "not reached"


def test_only_tensors() -> None:
    with pytest.raises(TypeError, match="two tensors, not int"):
        why(torch.ones(1), 3)  # type: ignore[arg-type]  # the mistake under test
