"""Short pieces of training as people write them; each returns everything of it that can be observed.

A `Training` is run twice, plain and observed, and must return the same bits both times. What it
returns: numbers, strings, tensors and nested lists and dicts of them.
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from tests.groups import group_of_one

Training = Callable[[], Any]
TRAININGS: dict[str, Training] = {}
STEPS = 10


def training(run: Training) -> Training:
    """Register `run` under its own name; it runs with the generator seeded, and returns its state too."""

    def seeded() -> Any:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            seen = run()
            return [seen, torch.get_rng_state()]

    if run.__name__ in TRAININGS:
        raise ValueError(f"training {run.__name__} is registered twice")
    TRAININGS[run.__name__] = seeded
    return seeded


def state(model: nn.Module, *optimizers: torch.optim.Optimizer) -> dict[str, Any]:
    """Parameters and buffers, gradients (with whether they are views), and the optimizers' state."""
    return {
        "model": dict(model.state_dict()),
        "gradients": {name: parameter.grad for name, parameter in model.named_parameters()},
        "views": [p.grad is not None and p.grad._is_view() for p in model.parameters()],
        "versions": [p._version for p in model.parameters()],
        "optimizers": [optimizer.state_dict() for optimizer in optimizers],
    }


def small_cnn() -> nn.Module:
    """Convolution, BatchNorm with its buffers, dropout with its random numbers."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.3), nn.Flatten(), nn.Linear(144, 3)
    )


def fit(model: nn.Module, optimizer: torch.optim.Optimizer, shape: tuple[int, ...]) -> list[float]:
    """`STEPS` steps of classification on random data."""
    losses = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(torch.randn(shape)), torch.randint(3, shape[:1]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


# ---------------------------------------------------------------- optimizers


@training
def momentum() -> Any:
    model = small_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    return [fit(model, optimizer, (4, 1, 8, 8)), state(model, optimizer)]


@training
def adam_kept_gradients() -> Any:
    """``set_to_none=False``: the gradient tensors stay the same objects all along."""
    model = small_cnn()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01, foreach=True)
    losses, same = [], []
    before: list[Tensor | None] = [None]
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=False)
        loss = functional.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.randint(3, (4,)))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        gradients = [parameter.grad for parameter in model.parameters()]
        same.append([new is old for new, old in zip(gradients, before, strict=False)])
        before = list(gradients)
        losses.append(loss.item())
    return [losses, same[1:], state(model, optimizer)]


@training
def lbfgs() -> Any:
    """A closure that is called several times a step."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1))
    x, y = torch.randn(20, 3), torch.randn(20, 1)
    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=4, line_search_fn="strong_wolfe")
    calls = 0

    def closure() -> Tensor:
        nonlocal calls
        calls += 1
        optimizer.zero_grad()
        loss = (model(x) - y).pow(2).mean()
        loss.backward()
        return loss

    losses = [torch.as_tensor(optimizer.step(closure)).detach() for _ in range(3)]  # type: ignore[arg-type] # torch's stubs want a float, its documentation a tensor
    return [losses, calls, state(model, optimizer)]


@training
def optimizer_in_backward() -> Any:
    """Each parameter is stepped and its gradient dropped as soon as it has accumulated."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    steps = {p: torch.optim.SGD([p], lr=0.1, momentum=0.9) for p in model.parameters()}
    order: list[int] = []
    places = {p: place for place, p in enumerate(model.parameters())}

    def step(parameter: Tensor) -> None:
        order.append(places[parameter])  # type: ignore[index] # only parameters carry this hook
        steps[parameter].step()  # type: ignore[index]
        steps[parameter].zero_grad()  # type: ignore[index]

    handles = [p.register_post_accumulate_grad_hook(step) for p in model.parameters()]
    for _ in range(STEPS):
        functional.cross_entropy(model(torch.randn(5, 4)), torch.randint(3, (5,))).backward()
    for handle in handles:
        handle.remove()
    return [order, state(model, *steps.values())]


@training
def half_precision_with_scaling() -> Any:
    """bfloat16 autocast with a loss scale, unscaled and clipped by hand as GradScaler does."""
    model = small_cnn()
    optimizer = torch.optim.Adam(model.parameters())
    scaler = torch.amp.GradScaler("cpu", init_scale=256.0, growth_interval=3)
    scales = []
    for _ in range(STEPS):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = functional.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.randint(3, (4,)))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
        scales.append(scaler.get_scale())
    return [scales, state(model, optimizer)]


# ---------------------------------------------------------------- several backward calls


@training
def accumulation() -> Any:
    """Three backward calls a step, into the same ``.grad`` objects."""
    model = small_cnn()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    same = []
    for _ in range(3):
        optimizer.zero_grad()
        held: list[Tensor | None] = []
        for _ in range(3):
            loss = functional.cross_entropy(model(torch.randn(4, 1, 8, 8)), torch.randint(3, (4,))) / 3
            loss.backward()
            now = [parameter.grad for parameter in model.parameters()]
            same.append([new is old for new, old in zip(now, held, strict=False)])
            held = list(now)
        optimizer.step()
    return [same, state(model, optimizer)]


@training
def gan() -> Any:
    """Two models, two optimizers, a detached and an attached pass through both."""
    generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    critic = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    first = torch.optim.Adam(generator.parameters(), betas=(0.5, 0.9))
    second = torch.optim.Adam(critic.parameters(), betas=(0.5, 0.9))
    loss = nn.BCEWithLogitsLoss()
    for _ in range(5):
        fake = generator(torch.randn(6, 3))
        second.zero_grad()
        (
            loss(critic(torch.randn(6, 2)), torch.ones(6, 1)) + loss(critic(fake.detach()), torch.zeros(6, 1))
        ).backward()
        second.step()
        first.zero_grad()
        loss(critic(fake), torch.ones(6, 1)).backward()
        first.step()
    return [state(generator, first), state(critic, second)]


@training
def gradient_penalty() -> Any:
    """``create_graph=True`` through ``autograd.grad``, and a backward through its result."""
    model = nn.Sequential(nn.Linear(3, 6), nn.Softplus(), nn.Linear(6, 1))
    optimizer = torch.optim.Adam(model.parameters())
    norms = []
    for _ in range(4):
        x = torch.randn(5, 3, requires_grad=True)
        out = model(x).sum()
        (slope,) = torch.autograd.grad(out, x, create_graph=True)
        optimizer.zero_grad()
        (out + (slope.norm(dim=1) - 1).pow(2).mean()).backward()
        optimizer.step()
        norms.append([slope.detach(), x.grad])
    return [norms, state(model, optimizer)]


@training
def create_graph_backward() -> Any:
    """``backward(create_graph=True)``: ``.grad`` carries a graph, which is differentiated again."""
    x = torch.randn(4, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch warns of the cycle that this makes
        x.sin().pow(3).sum().backward(create_graph=True)
    gradient = x.grad
    assert gradient is not None
    node = gradient.grad_fn.name() if gradient.grad_fn is not None else ""
    (second,) = torch.autograd.grad(gradient.sum(), x)
    x.grad = None
    return [gradient.detach(), node, second]


@training
def retained_graph_and_inputs() -> Any:
    """The same graph three times: kept, restricted to some inputs, and freed."""
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
    x = torch.randn(3, 4, requires_grad=True)
    loss = model(x).pow(2).sum()
    loss.backward(retain_graph=True)
    loss.backward(inputs=[x, model[0].weight], retain_graph=True)
    some = torch.autograd.grad(loss, [model[2].weight, x], retain_graph=True, allow_unused=True)
    loss.backward()
    failure = ""
    try:
        loss.backward()
    except RuntimeError as error:
        failure = str(error)
    return [x.grad, list(some), failure, state(model)]


# ---------------------------------------------------------------- hooks of the user's


@training
def hooks_in_order() -> Any:
    """Hooks on tensors, leaves, nodes and modules: which ran, in which order, on what."""
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    calls: list[Any] = []

    def note(name: str, change: float | None = None) -> Callable[..., Any]:
        def hook(*args: Any) -> Any:
            tensors = [arg for arg in args if isinstance(arg, Tensor)]
            calls.append([name, len(args), [tensor.detach().clone() for tensor in tensors]])
            return tensors[0] * change if change is not None else None

        return hook

    handles: list[Any] = [p.register_hook(note(name, 0.5)) for name, p in model.named_parameters()]
    handles += [
        p.register_post_accumulate_grad_hook(note(f"after {name}")) for name, p in model.named_parameters()
    ]
    handles.append(model[0].register_forward_pre_hook(note("before")))
    handles.append(model[2].register_full_backward_hook(note("module")))
    x = torch.randn(5, 3, requires_grad=True)
    hidden = model[1](model[0](x))
    hidden.register_hook(note("hidden", 2.0))
    hidden.retain_grad()
    hidden.grad_fn.register_prehook(note("node before"))
    hidden.grad_fn.register_hook(note("node after"))
    hidden.register_hook(note("hidden again"))
    loss = model[2](hidden).sum()
    torch.autograd.graph.register_multi_grad_hook(list(model.parameters()), note("all"))
    loss.backward()
    left = [len(p._backward_hooks or ()) for p in model.parameters()]
    for handle in handles:
        handle.remove()
    return [calls, left, hidden.grad, x.grad, state(model)]


@training
def saved_tensor_hooks() -> Any:
    """Packing and unpacking, counted: a look of ours must not unpack."""
    counts = [0, 0]

    def pack(tensor: Tensor) -> Any:
        counts[0] += 1
        return tensor.clone()

    def unpack(packed: Any) -> Tensor:
        counts[1] += 1
        return packed  # type: ignore[no-any-return]  # what pack gave

    x = torch.randn(4, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        loss = (x.exp() * x.sin()).sum()
    loss.backward()
    return [counts, x.grad]


@training
def grad_that_is_watched_while_it_accumulates() -> Any:
    """``.grad`` is the very tensor the backward made: nobody else holds it, nobody copied it."""
    made: list[int] = []

    class Make(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            fresh = torch.full((3,), 2.0)
            made.append(fresh.data_ptr())
            return fresh

    x = torch.randn(3, requires_grad=True)
    Make.apply(x).sum().backward()
    assert x.grad is not None
    return [x.grad, x.grad.data_ptr() == made[0]]


# ---------------------------------------------------------------- other ways to run


@training
def checkpoints() -> Any:
    """Both kinds, with dropout whose random numbers are drawn again."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Dropout(0.4), nn.Tanh(), nn.Linear(6, 2))
    runs: list[str] = []
    handle = model[0].register_forward_hook(lambda *_: runs.append("forward"))
    losses = []
    for reentrant in (True, False):
        x = torch.randn(3, 4, requires_grad=True)
        out = checkpoint(model, x, use_reentrant=reentrant)
        loss = out.pow(2).sum() + checkpoint_sequential(model, 2, x, use_reentrant=reentrant).sum()
        loss.backward()
        losses.append([loss.detach(), x.grad, len(runs)])
    handle.remove()
    return [losses, state(model)]


@training
def backward_in_a_thread() -> Any:
    """Two threads, each with a model of its own."""
    models = [nn.Linear(3, 2), nn.Linear(3, 2)]
    inputs = [torch.randn(4, 3), torch.randn(4, 3)]

    def work(model: nn.Module, x: Tensor) -> None:
        for _ in range(5):
            model(x).pow(2).sum().backward()

    threads = [threading.Thread(target=work, args=pair) for pair in zip(models, inputs, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return [state(model) for model in models]


@training
def compiled() -> Any:
    """torch.compile with AOTAutograd: how many graphs were compiled, and how many breaks."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    fast = torch.compile(model, backend="aot_eager")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    nodes = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = fast(torch.randn(5, 4)).pow(2).sum()
        nodes.append(loss.grad_fn.next_functions[0][0].name())
        loss.backward()
        optimizer.step()
    counters = torch._dynamo.utils.counters
    seen = [nodes, dict(counters["graph_break"]), dict(counters["stats"]), state(model, optimizer)]
    torch._dynamo.reset()
    return seen


@training
def functional_gradients() -> Any:
    """torch.func inside a training step."""
    model = nn.Linear(3, 1)
    x = torch.randn(5, 3)
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def loss(weights: dict[str, Tensor], row: Tensor) -> Tensor:
        return torch.func.functional_call(model, weights, (row,)).pow(2).sum()

    each = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0))(weights, x)
    matrix = torch.func.hessian(lambda v: v.sin().prod())(x[0])
    jacobian = torch.autograd.functional.jacobian(lambda v: v.sin(), x[0])
    model(x).pow(2).sum().backward()
    return [each, matrix, jacobian, state(model)]


@training
def data_parallel() -> Any:
    """DistributedDataParallel over gloo, a group of one."""
    with group_of_one():
        layers = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
        model = nn.parallel.DistributedDataParallel(layers)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        return [fit(model, optimizer, (5, 4)), state(model, optimizer)]


@training
def anomaly_mode_of_the_users_own() -> Any:
    """The flag as the user set it, before, in and after; and a NaN found by it."""
    flags = [torch.is_anomaly_enabled()]
    x = torch.zeros(3, requires_grad=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that it slows things down
        with torch.autograd.detect_anomaly():
            flags += [torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()]
            failure = ""
            try:
                (x.sqrt() * 0).sum().backward()
            except RuntimeError as error:
                failure = str(error)
    return [[*flags, torch.is_anomaly_enabled()], failure, x.grad]


@training
def warned_and_printed() -> Any:
    """The warnings of a step, from which lines, and what it printed."""
    sink = io.StringIO()
    with warnings.catch_warnings(record=True) as told, contextlib.redirect_stdout(sink):
        warnings.simplefilter("always")
        x = torch.randn(3, requires_grad=True)
        y = (x * 2).sum()
        print(y.grad is None)
        functional.mse_loss(x[:, None], x).backward()
        print(x, y)
        warnings.warn("mine", stacklevel=1)
    return [[(str(one.message), one.lineno, one.filename) for one in told], sink.getvalue(), x.grad]


@training
def failing_backward() -> Any:
    """What a failing backward raises, and how far it came."""

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            raise ArithmeticError("planted")

    model = nn.Linear(3, 3)
    x = torch.randn(2, 3)
    out = []
    try:
        model(Fails.apply(model(x).tanh())).sum().backward()
    except ArithmeticError as error:
        out.append(f"{error}")
    y = model(x).exp()
    y.add_(1)
    try:
        y.sum().backward()
    except RuntimeError as error:
        out.append(str(error).splitlines()[0])
    return [out, state(model)]
