"""Forward consistency: edits that no version counter sees are told; what is right, or harmless, is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - torch's own custom
from torch.utils.checkpoint import checkpoint

import explorer
from explorer import consistency
from explorer.agreement import on_a_grid
from explorer.consistency import SAMPLE, STRETCH, altered_values, sampled
from explorer.render.reading import loads
from explorer.trace import trace

CODE = "saved-value-changed"
Build = Callable[[], "tuple[Tensor, dict[str, Tensor]]"]
"""A loss, and the tensors of the script by name."""


def altered(loss: Tensor) -> list[tuple[str, tuple[str, ...]]]:
    """The nodes and the names of what is told."""
    found = trace([loss])
    facts, _ = altered_values(found, [loss])
    return [(found.graph.nodes[one.node].name, one.names) for one in facts]


def square() -> tuple[Tensor, dict[str, Tensor]]:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    return (x * x).sum(), {"x": x}


def power() -> tuple[Tensor, dict[str, Tensor]]:
    x = torch.tensor([1.0, 2.0, 3.0], requires_grad=True)
    return (x**2).sum(), {"x": x}


def result() -> tuple[Tensor, dict[str, Tensor]]:
    x = torch.randn(4, 5, requires_grad=True)
    y = x.exp()
    return (y * torch.randn(5)).sum(), {"x": x, "y": y}


def perceptron() -> tuple[Tensor, dict[str, Tensor]]:
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3))
    loss = F.cross_entropy(model(torch.randn(20, 8)), torch.arange(20) % 3)
    return loss, dict(model.named_parameters())


def images() -> tuple[Tensor, dict[str, Tensor]]:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.GELU(),
        nn.Flatten(), nn.Linear(8 * 36, 3),
    )  # fmt: skip
    return model(torch.randn(4, 3, 8, 8)).square().mean(), dict(model.named_parameters())


def encoder() -> tuple[Tensor, dict[str, Tensor]]:
    layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    return layer(torch.randn(4, 6, 32)).square().mean(), dict(layer.named_parameters())


def numpy_batch() -> tuple[Tensor, dict[str, Tensor]]:
    """The batch lies in memory that somebody else writes to as well."""
    batch = torch.from_numpy(torch.randn(6, 4).numpy())
    y = batch.matmul(torch.randn(4, 3, requires_grad=True))
    return y.tanh().sum(), {"batch": batch}


EDITS: list[tuple[Build, str]] = [
    (square, "x"),
    (power, "x"),
    (result, "y"),
    (perceptron, "2.weight"),
    (perceptron, "4.weight"),
    (images, "3.weight"),
    (images, "1.weight"),
    (encoder, "linear2.weight"),
    (encoder, "norm1.weight"),
    (numpy_batch, "batch"),
]


@pytest.mark.parametrize("factor", [2.0, 1.01])
@pytest.mark.parametrize(("build", "name"), EDITS, ids=lambda one: getattr(one, "__name__", one))
def test_an_edit_behind_autograd_is_told(build: Build, name: str, factor: float) -> None:
    torch.manual_seed(0)
    loss, tensors = build()
    assert altered(loss) == []
    tensors[name].data.mul_(factor)
    assert altered(loss)


@pytest.mark.parametrize(
    ("build", "name", "said"),
    [(square, "x", {"x"}), (images, "3.weight", {"3.weight"}), (result, "y", {"x", "y"})],
)
def test_what_was_edited_is_named(build: Build, name: str, said: set[str]) -> None:
    torch.manual_seed(0)
    loss, tensors = build()
    tensors[name].data.mul_(3)
    report = explorer.explore(loss)
    messages = [one.message for one in report.findings if one.code == CODE]
    assert messages
    assert any(all(word.rpartition(".")[2] in message for word in said) for message in messages), messages
    assert report.wrong
    assert not report.problems


@pytest.mark.parametrize(
    ("build", "name"),
    [(perceptron, "0.weight"), (perceptron, "2.bias"), (perceptron, "4.bias"), (images, "1.bias")],
)
def test_an_edit_that_changes_no_gradient_is_not_told(build: Build, name: str) -> None:
    """Nobody saved these: the first layer's weight (its input wants no gradient), and biases."""
    torch.manual_seed(0)
    loss, tensors = build()
    loss.backward(retain_graph=True)
    before = {key: one.grad.clone() for key, one in tensors.items() if one.grad is not None}
    tensors[name].data.mul_(3)
    for one in tensors.values():
        one.grad = None
    found = altered(loss)
    loss.backward()
    assert all(torch.equal(tensors[key].grad, one) for key, one in before.items())  # type: ignore[arg-type]
    assert found == []


def test_the_loss_itself_may_be_edited() -> None:
    """``loss.data`` averaged over processes, say: no formula uses it."""
    torch.manual_seed(0)
    loss, _ = perceptron()
    loss.data.div_(4)
    assert altered(loss) == []


def test_an_activation_replaced_on_purpose_is_not_told() -> None:
    """Straight-through by hand: what comes after used the replaced values too."""
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    h = first(torch.randn(7, 6, requires_grad=True)).tanh() * torch.randn(5)
    h.data = h.data.sign()
    assert altered(second(h).square().mean()) == []


def test_rounding_by_hand_is_never_an_error() -> None:
    """Levels of a quantiser: told as a doubt where nothing computed afterwards speaks for them."""
    torch.manual_seed(0)
    first, second = nn.Linear(6, 5), nn.Linear(5, 4)
    for after in (lambda h: second(h).square().mean(), lambda h: torch.cumprod(h, 0).sum()):
        with explorer.watch() as watch:
            h = first(torch.randn(7, 6, requires_grad=True)).sigmoid()
            h.data = (h.data * 10).round() / 10
            after(h).backward()
        assert watch.report is not None
        found = [one for one in watch.report.findings if one.code == CODE]
        assert not watch.report.wrong
        assert all(one.severity == "warning" and "on purpose" in one.message for one in found)


def test_what_lies_on_a_grid() -> None:
    torch.manual_seed(0)
    for levels in (1, 7, 15, 255):
        assert on_a_grid(((torch.rand(8) * levels).round() / levels - 0.5).tolist())
    for _ in range(100):
        assert not on_a_grid(torch.randn(8).tolist())
    assert not on_a_grid([1.0, 1.0, 1.0, 1.0])
    assert not on_a_grid([1.0, 2.0])
    rows = torch.tensor([[0.04, -1.0, -0.93]]) + 5e-5 * torch.rand(6, 3)  # all but the same
    assert not on_a_grid(rows.flatten().tolist())
    assert not on_a_grid([float("nan"), *torch.randn(8).tolist(), float("inf")])
    assert on_a_grid([0.0, 1.0, float("nan"), 2.0, 4.0, 5.0, float("-inf"), 3.0, 6.0])


def test_a_mean_over_nothing_leaves_the_check_of_forward_values_whole() -> None:
    torch.manual_seed(0)
    mask = torch.ones(6, 5)
    mask[3] = 0
    with explorer.watch() as watch:
        hidden = torch.randn(6, 5, requires_grad=True) * mask
        pooled = hidden.sum(1) / mask.sum(1)
        pooled.pow(2).mean().backward()
    assert watch.report is not None
    assert watch.report.problems == ()


def test_a_value_replaced_before_its_use_is_not_told_by_what_was_recorded() -> None:
    x = torch.linspace(-1.3, 2.1, 9, requires_grad=True)
    with explorer.watch() as watch:
        y = x.sin()
        y.data = y.data.mul(100).round() / 100
        (y * y).sum().backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert watch.report is not None
    assert [one.code for one in watch.report.findings if one.code == CODE] == []


def test_a_watched_script_is_told_by_what_was_recorded() -> None:
    x = torch.tensor([0.5, 1.5], requires_grad=True)
    with explorer.watch() as watch:
        y = x.sin()
        loss = (y * y).sum()
        y.data.mul_(2)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    assert watch.report is not None
    assert [one.code for one in watch.report.findings if one.code == CODE]


HEALTHY: dict[str, Callable[[], Tensor]] = {}


def healthy(build: Callable[[], Tensor]) -> Callable[[], Tensor]:
    HEALTHY[build.__name__] = build
    return build


@healthy
def dropout_and_running_statistics() -> Tensor:
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout2d(0.4), nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4, momentum=0.9), nn.Flatten(), nn.Dropout(), nn.Linear(36, 2),
    )  # fmt: skip
    x = torch.randn(6, 2, 8, 8)
    model(x)
    return model(x).logsumexp(1).mean()


@healthy
def evaluation_then_training() -> Tensor:
    norm, layer = nn.BatchNorm1d(5), nn.Linear(5, 5)
    norm.eval()
    y = norm(layer(torch.randn(6, 5)))
    norm.train()
    with torch.no_grad():
        layer(torch.randn(6, 5))
    return (y.relu() @ torch.randn(5, 2)).square().sum()


@healthy
def mixed_precision() -> Tensor:
    model = nn.Sequential(
        nn.Linear(64, 128), nn.GELU(), nn.LayerNorm(128), nn.Linear(128, 64), nn.SiLU(), nn.Linear(64, 8)
    )
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = model(torch.randn(32, 64))
    return F.cross_entropy(y.float(), torch.arange(32) % 8)


@healthy
def half_convolutions() -> Tensor:
    model = nn.Sequential(nn.Conv2d(16, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 8, 3)).bfloat16()
    return model(torch.randn(4, 16, 10, 10).bfloat16().requires_grad_()).square().mean()


@healthy
def checkpointed() -> Tensor:
    layers = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Dropout(0.5), nn.Linear(6, 6))
    return checkpoint(layers, torch.randn(4, 6, requires_grad=True), use_reentrant=False).square().sum()  # type: ignore[no-any-return]  # torch's own


@healthy
def a_step_between() -> Tensor:
    """Two losses of one linear layer, made before the step: its weight is saved by neither."""
    layer = nn.Linear(4, 3)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
    x, labels = torch.randn(5, 4), torch.arange(5) % 3
    first, second = F.cross_entropy(layer(x), labels), F.cross_entropy(layer(2 * x), labels)
    first.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
    optimizer.step()
    return second


@healthy
def in_place_operations() -> Tensor:
    x = torch.randn(4, 6, requires_grad=True)
    y = x.mul(2).add_(1).sigmoid_().mul_(torch.randn(4, 6))
    z = y.clone()
    z[:, 2] = 0
    z[1:].tanh_()
    return (z @ torch.randn(6, 3)).softmax(-1).square().sum()


@healthy
def shared_and_tied() -> Tensor:
    words = nn.Embedding(11, 6)
    x = words(torch.arange(8) % 11)
    x = x + nn.LSTM(6, 6, batch_first=True)(x[None])[0][0]
    return F.cross_entropy(x @ words.weight.t(), torch.arange(8))


@healthy
def quantised_while_training() -> Tensor:
    x = torch.randn(9, 6, requires_grad=True)
    y = x + (x.round() - x).detach()
    return (y @ torch.randn(6, 2)).tanh().sum()


@healthy
def huge_and_tiny() -> Tensor:
    x = (torch.randn(50, 300) * torch.logspace(-18, 18, 300)).requires_grad_()
    return (x.tanh() @ torch.randn(300, 7)).square().log1p().sum() + F.layer_norm(x, (300,)).sum()


@healthy
def a_large_sum_that_cancels() -> Tensor:
    x = (torch.randn(3, 20_000) + 1000).requires_grad_()
    return (x - x.mean(1, keepdim=True)).square().mean().sqrt() + (x @ torch.randn(20_000, 2)).exp().clamp(
        max=1
    ).sum()


@healthy
def views_of_everything() -> Tensor:
    x = torch.randn(4, 6, 8, requires_grad=True)
    q, k, v = x.unflatten(-1, (2, 4)).transpose(1, 2).chunk(3, 2)
    y = torch.cat([(q @ k.mT).softmax(-1) @ v, torch.stack([q, k]).mean(0)], -1)
    return (y.permute(2, 0, 1, 3).flatten(2)[..., ::2].unbind(1)[1].expand(2, -1, -1) * 2).exp().log().sum()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", HEALTHY)
def test_nothing_is_told_of_a_healthy_model(name: str, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        loss = HEALTHY[name]()
    finally:
        torch.set_default_dtype(before)
    assert altered(loss) == []
    report = explorer.explore(loss)
    assert CODE not in [one.code for one in report.findings]
    assert not [one for one in report.problems if "forward" in one]


def test_the_check_can_be_switched_off_and_leaves_everything_alone() -> None:
    torch.manual_seed(0)
    loss, tensors = images()
    tensors["3.weight"].data.mul_(2)
    assert CODE not in [one.code for one in explorer.explore(loss, check="off").findings]
    before = {key: (one.clone(), one._version) for key, one in tensors.items()}
    state = torch.get_rng_state()
    altered(loss)
    assert torch.equal(state, torch.get_rng_state())
    assert all(
        torch.equal(one, before[key][0]) and one._version == before[key][1] for key, one in tensors.items()
    )
    loss.backward()


def test_a_saved_value_that_cannot_be_read_is_left_alone() -> None:
    x = torch.randn(3, requires_grad=True)

    def packed(tensor: Tensor) -> Any:
        return tensor.clone()

    with torch.autograd.graph.saved_tensors_hooks(packed, lambda tensor: tensor):
        y = x.exp().sin()
    x.data.mul_(2)
    assert [name for name, _ in altered((y * 2).sum()) if name == "ExpBackward0"] == []


def test_of_a_large_graph_a_sample_is_looked_at() -> None:
    x = torch.linspace(0.1, 1, 3).requires_grad_()
    made = [x.sin()]
    while len(made) < 5_500:
        made.append(made[-1].sin())
    loss = made[-1].sum()
    assert altered(loss) == []
    looked = sampled(trace([loss]).graph)
    assert len(looked) == SAMPLE
    for one in made[: 2 * STRETCH]:  # the stretch next to the leaves
        one.data.mul_(2)
    assert len(altered(loss)) >= STRETCH // 2


def test_a_small_graph_is_looked_at_in_full() -> None:
    graph = trace([perceptron()[0]]).graph
    assert set(sampled(graph)) == set(range(len(graph.nodes)))


@pytest.mark.parametrize(("check", "looked"), [("sample", SAMPLE), ("full", 5_502)])
def test_the_report_says_how_many_nodes_were_looked_at(check: explorer.report.CheckMode, looked: int) -> None:
    x = torch.linspace(0.1, 1, 3).requires_grad_()
    y = x
    for _ in range(5_500):
        y = y.sin()
    report = explorer.explore(y.sum(), check=check)
    found = report.check.consistency
    assert found is not None
    assert found.nodes == looked
    assert looked // 2 < found.compared <= looked
    told = "saved values compared with the forward at 2,000 of 5,502 nodes"
    assert (told in " ".join(str(report).split())) == (check == "sample")
    written = json.loads(report.to_json())["reports"][0]["check"]
    assert written["consistency"] == {"nodes": looked, "compared": found.compared}
    assert loads(report.to_json()).reports[0].check == report.check


def test_without_a_check_no_saved_value_was_looked_at() -> None:
    assert explorer.explore(square()[0], check="off").check.consistency is None


def test_what_was_left_when_the_reads_ran_out_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consistency, "WORK", 0)
    found = explorer.explore(perceptron()[0]).check.consistency
    whole = explorer.explore(perceptron()[0], check="full").check.consistency
    assert found is not None
    assert whole is not None
    assert found.compared == 1 < whole.compared
    assert found.nodes < whole.nodes


def test_non_finite_values_speak_for_nothing_and_hide_nothing() -> None:
    """Where some elements are not finite the others are still compared."""
    x = torch.tensor([0.0, 0.5, 1.0, 2.0], requires_grad=True)
    y = x * 1
    z = y.log().sin()
    loss = (z * torch.randn(4)).sum()
    assert altered(loss) == []
    y.data[1:].mul_(3)
    assert altered(loss)


def test_without_notes_what_cannot_be_known_is_a_doubt() -> None:
    """A leaf that nobody saved, or scores on the way, may have been edited as well as what was saved."""
    torch.manual_seed(0)
    x = torch.randn(4, 5, requires_grad=True)
    leaf = x.exp().exp()
    layer = nn.Linear(5, 3)
    scores = layer(x)
    scores.data[:, 1] = -1e9
    masked = F.cross_entropy(scores, torch.zeros(4, dtype=torch.long))
    x.data.mul_(2)
    for loss in (leaf.sum(), masked):
        found = [one for one in explorer.explore(loss).findings if one.code == CODE]
        assert all(one.severity == "warning" and "on purpose" in one.message for one in found)
