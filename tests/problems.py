"""Small seeded models and losses that every stage is tried on.

A `Problem` builds itself anew each time, so that two runs can be compared bit by bit. Its roots may
be several, and need not be scalars: `Built.backward` gives each non-scalar root ones.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint


@dataclass
class Built:
    """One instance of a problem: what backward starts from, and what receives gradients."""

    roots: tuple[Tensor, ...]
    modules: tuple[nn.Module, ...] = ()
    leaves: Mapping[str, Tensor] = field(default_factory=dict)

    def backward(self, **options: Any) -> None:
        """Run the user's backward from all roots."""
        torch.autograd.backward(self.roots, [torch.ones_like(root) for root in self.roots], **options)

    def gradients(self) -> dict[str, Tensor | None]:
        """``.grad`` of every leaf and parameter, by name."""
        found = {name: leaf.grad for name, leaf in self.leaves.items()}
        for number, module in enumerate(self.modules):
            found |= {f"{number}.{name}": parameter.grad for name, parameter in module.named_parameters()}
        return found


PROBLEMS: dict[str, Callable[[], Built]] = {}


def problem(builder: Callable[[], Built]) -> Callable[[], Built]:
    """Register `builder` under its own name; it runs with the random generator seeded."""

    def seeded() -> Built:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return builder()

    if builder.__name__ in PROBLEMS:
        raise ValueError(f"problem {builder.__name__} is registered twice")
    PROBLEMS[builder.__name__] = seeded
    return seeded


def leaf(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A random leaf that requires a gradient."""
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


# ---------------------------------------------------------------- scalars


@problem
def xyz() -> Built:
    """f = x y z at (2, 3, 4): gradients 12, 8, 6."""
    x, y, z = (torch.tensor(value, requires_grad=True) for value in (2.0, 3.0, 4.0))
    return Built((x * y * z,), leaves={"x": x, "y": y, "z": z})


@problem
def sigmoid_circuit() -> Built:
    """CS231n's neuron: w = (2, -3, -3), x = (-1, -2); gradients -0.20, -0.39, 0.20 and 0.39, -0.59."""
    w0, w1, w2, x0, x1 = (torch.tensor(value, requires_grad=True) for value in (2.0, -3.0, -3.0, -1.0, -2.0))
    out = 1 / (1 + torch.exp(-(w0 * x0 + w1 * x1 + w2)))
    return Built((out,), leaves={"w0": w0, "w1": w1, "w2": w2, "x0": x0, "x1": x1})


@problem
def fan_out() -> Built:
    """y is used three times, twice by one node."""
    x = leaf(5)
    y = x.exp()
    return Built(((y * y + y).sum(),), leaves={"x": x})


# ---------------------------------------------------------------- models


@problem
def mlp() -> Built:
    """Two layers and cross entropy."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    return Built((functional.cross_entropy(model(torch.randn(6, 8)), torch.randint(4, (6,))),), (model,))


@problem
def cnn() -> Built:
    """Convolution, batch norm, max pooling."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 3)
    )
    return Built(
        (functional.cross_entropy(model(torch.randn(5, 1, 8, 8)), torch.randint(3, (5,))),), (model,)
    )


@problem
def residual() -> Built:
    """A residual block: the skip joins two consumers."""
    body = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU())
    x = leaf(2, 3, 6, 6)
    return Built(((body(x) + x).relu().mean(),), (body,), {"x": x})


@problem
def transformer() -> Built:
    """One encoder layer with dropout off."""
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return Built((model(torch.randn(2, 5, 8)).pow(2).mean(),), (model,))


@problem
def attention() -> Built:
    """Scaled dot-product attention on its own."""
    q, k, v = leaf(2, 2, 5, 4), leaf(2, 2, 5, 4), leaf(2, 2, 5, 4)
    out = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    return Built((out.sum(),), leaves={"q": q, "k": k, "v": v})


@problem
def lstm() -> Built:
    """float32: one opaque oneDNN node per layer."""
    model = nn.LSTM(4, 5, batch_first=True)
    return Built((model(torch.randn(2, 3, 4))[0].sum(),), (model,))


@problem
def lstm_double() -> Built:
    """float64: decomposed into many nodes."""
    model = nn.LSTM(4, 5, batch_first=True).double()
    return Built((model(torch.randn(2, 3, 4, dtype=torch.float64))[0].sum(),), (model,))


@problem
def gru() -> Built:
    """A decomposed recurrence of six steps."""
    model = nn.GRU(3, 4)
    return Built((model(torch.randn(6, 2, 3))[0].pow(2).sum(),), (model,))


@problem
def tied_weights() -> Built:
    """Embedding and output layer share one weight."""
    embed, head = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    head.weight = embed.weight
    model = nn.ModuleDict({"embed": embed, "head": head})
    tokens = torch.randint(7, (3, 5))
    return Built((functional.cross_entropy(head(embed(tokens)).flatten(0, 1), tokens.flatten()),), (model,))


@problem
def sparse_embedding() -> Built:
    """A sparse, uncoalesced gradient: token 1 occurs three times."""
    model = nn.Embedding(10, 3, sparse=True)
    return Built((model(torch.tensor([1, 2, 1, 1, 5])).pow(2).sum(),), (model,))


# ---------------------------------------------------------------- unusual nodes


class Cube(torch.autograd.Function):
    """x³, saving its input and a plain value."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        ctx.power = 3
        return x**3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad * ctx.power * x**2


class SinCos(torch.autograd.Function):
    """Two outputs, of which users often need one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x)
        return x.sin(), x.cos()

    @staticmethod
    def backward(ctx: Any, grad_sin: Tensor, grad_cos: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return grad_sin * x.cos() - grad_cos * x.sin()


@problem
def custom_function() -> Built:
    """A Python Function."""
    x = leaf(4)
    return Built((Cube.apply(x).sum(),), leaves={"x": x})


@problem
def custom_unused_output() -> Built:
    """A Python Function one of whose outputs is unused."""
    x = leaf(4)
    return Built((SinCos.apply(x)[0].sum(),), leaves={"x": x})


@problem
def checkpoint_reentrant() -> Built:
    """One opaque node; the inner graph exists only during backward."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    x = leaf(3, 4)
    return Built((checkpoint(model, x, use_reentrant=True).sum(),), (model,), {"x": x})


@problem
def checkpoint_non_reentrant() -> Built:
    """Normal nodes, whose saved tensors are computed again."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
    x = leaf(3, 4)
    return Built((checkpoint(model, x, use_reentrant=False).sum(),), (model,), {"x": x})


@problem
def in_place_on_view() -> Built:
    """CopySlices, and a view whose grad_fn is rebuilt."""
    x = leaf(6)
    y = x.clone()
    y[:3].mul_(2.0)
    return Built((y.sin().sum(),), leaves={"x": x})


@problem
def unused_chunk() -> Built:
    """An unused output reaches every hook as None."""
    x = leaf(4, 6)
    first, _, third = x.chunk(3, dim=1)
    return Built(((first * third).sum(),), leaves={"x": x})


@problem
def foreach() -> Built:
    """Nodes of type CppFunction."""
    x, y = leaf(3), leaf(2)
    first, second = torch._foreach_exp([x, y])
    return Built((first.sum() + second.sum(),), leaves={"x": x, "y": y})


@problem
def complex_numbers() -> Built:
    """Complex gradients, some with a lazy conjugate."""
    z = leaf(5, dtype=torch.complex64)
    return Built(((z * z.conj()).abs().sum() + torch.view_as_real(z * z).sum(),), leaves={"z": z})


@problem
def half() -> Built:
    """bfloat16 in the middle, float32 at the ends."""
    x, w = leaf(4, 4), leaf(4, 4)
    return Built(((x.bfloat16() @ w.bfloat16()).float().tanh().sum(),), leaves={"x": x, "w": w})


@problem
def several_roots() -> Built:
    """Two roots, one of them not a scalar, sharing a part."""
    x = leaf(4)
    h = x.tanh()
    return Built((h.sum(), h * 2), leaves={"x": x})


@problem
def leaf_root() -> Built:
    """A root that is itself a leaf, beside a result."""
    x = leaf(3)
    return Built(((x * 2).sum(), x), leaves={"x": x})


@problem
def empty() -> Built:
    """No elements at all."""
    x = leaf(0, 3)
    return Built((x.exp().sum(),), leaves={"x": x})


@problem
def not_finite() -> Built:
    """sqrt at 0: an infinite gradient, then nan."""
    x = torch.tensor([0.0, 1.0, 4.0], requires_grad=True)
    return Built(((x * 0).sqrt().sum(),), leaves={"x": x})
