"""Context of nodes: every node named with the right line and module, and nothing of the user's changed."""

from __future__ import annotations

import gc
import sys
import threading
import warnings
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from hooks import creation
from hooks.forward import Observation, observe_forward

HERE = __file__


def line() -> int:
    """The caller's line number."""
    return sys._getframe(1).f_lineno


def nodes_of(*roots: Tensor) -> list[Any]:
    """Every node below `roots`."""
    found: dict[Any, None] = {}
    waiting = [root.grad_fn for root in roots]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in found:
            found[node] = None
            waiting += [target for target, _ in node.next_functions]
    return list(found)


def below(roots: Tensor, stop: Tensor) -> list[Any]:
    """Nodes below `roots` but not at or below `stop`, leaves apart."""
    known = set(nodes_of(stop))
    return [n for n in nodes_of(roots) if n not in known and "AccumulateGrad" not in n.name()]


class Twice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0] * 2


def attend(x: Tensor) -> Tensor:
    module = nn.MultiheadAttention(4, 2, batch_first=True)
    return module(x, x, x, need_weights=True)[0]


CASES = {
    "linear": lambda x: nn.functional.linear(x, torch.ones(4, 4, requires_grad=True)),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", x, x),
    "attention": attend,
    "custom function": Twice.apply,
    "gelu, split, cat": lambda x: torch.cat(nn.functional.gelu(x).split(1, 1)),
    "in place on a view": lambda x: (y := x.clone(), y[0].mul_(2), y)[2],
}


@pytest.mark.parametrize("name", CASES)
def test_every_node_of_an_operation_has_the_line_of_its_call(name: str) -> None:
    with observe_forward() as seen:
        x = torch.ones(2, 3, 4, requires_grad=True) * 1.0
        y = CASES[name](x)
        made = below(y, x)
    assert made
    code = attend if name == "attention" else CASES[name]
    for node in made:
        context = seen.context_of(node)
        assert context is not None
        assert context.file == HERE
        if code.__name__ == "<lambda>" or name == "attention":
            first = code.__code__.co_firstlineno
            assert context.line in (first, first + 2), node.name()


def test_hidden_nodes_of_checkpoint_are_on_its_inner_line() -> None:
    def inner(v: Tensor) -> Tensor:
        return (v @ v).relu()

    with observe_forward() as seen:
        x = torch.rand(3, 3, requires_grad=True) * 1.0
        y = checkpoint(inner, x, use_reentrant=False)
        for node in below(y, x):
            context = seen.context_of(node)
            assert context is not None
            assert (context.function, context.line) == ("inner", inner.__code__.co_firstlineno + 1)
        z = checkpoint(inner, x, use_reentrant=True)
        here = line() - 1
        context = seen.context_of(z.grad_fn)
        assert context is not None
        assert context.line == here
        (y.sum() + z.sum()).backward()


def test_nodes_of_a_double_backward_are_on_the_line_that_called_backward() -> None:
    with observe_forward() as seen:
        x = torch.rand(3, requires_grad=True)
        y = x.tanh().sum()
        (g,) = torch.autograd.grad(y, x, create_graph=True)
        here = line() - 1
        made = below(g, y)
        assert any("BackwardBackward" in node.name() for node in made)
        for node in made:
            context = seen.context_of(node)
            assert context is not None
            assert context.line == here


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_scripted_code_is_on_the_line_that_called_it() -> None:
    scripted = torch.jit.trace(lambda v: (v * 3).sin(), torch.ones(2))
    with observe_forward() as seen:
        x = torch.ones(2, requires_grad=True) * 1.0
        y = scripted(x)
        here = line() - 1
        made = below(y, x)
    assert made
    assert {seen.context_of(node).line for node in made} == {here}  # type: ignore[union-attr] # None would fail too


@pytest.mark.parametrize("file", ["<stdin>", "<ipython-input-3-abc>", "cell ünïcode.py"])
def test_sources_that_are_no_files_keep_their_string(file: str) -> None:
    space: dict[str, Any] = {"x": torch.ones(2, requires_grad=True)}
    with observe_forward() as seen:
        exec(compile("\n\ny = x.exp()", file, "exec"), space)
        context = seen.context_of(space["y"].grad_fn)
    assert context is not None
    assert (context.file, context.line, context.operation) == (file, 3, "exp")


@pytest.mark.skipif(sys.version_info < (3, 11), reason="columns are kept from 3.11")
def test_operation_is_named_as_the_source_spells_it() -> None:
    with observe_forward() as seen:
        x = torch.rand(3, 3, requires_grad=True)
        cases = {
            "matmul": x @ x,
            "add": x + 1,
            "getitem": x[0],
            "neg": -x,
            "softmax": x.softmax(0),
            "Twice": Twice.apply(x),
            "layer_norm": nn.functional.layer_norm(x, (3,)),
        }
        for name, y in cases.items():
            context = seen.context_of(y.grad_fn)
            assert context is not None
            assert context.operation == name


def test_nodes_made_before_have_no_context() -> None:
    early = torch.ones(1, requires_grad=True) * 2
    with observe_forward() as seen:
        assert seen.context_of(early.grad_fn) is None


# -- neutrality ---------------------------------------------------------------------------------


def train(observed: bool) -> tuple[list[Tensor], list[str]]:
    torch.manual_seed(3)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.2, batch_first=True)
    head = nn.Linear(16, 1)
    kept: list[Tensor] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(2):
            x = torch.randn(2, 5, 16)
            if observed:
                with observe_forward():
                    out = head(layer(x))
                    loss = nn.functional.mse_loss(out, torch.zeros(5))
                    loss.backward()
            else:
                out = head(layer(x))
                loss = nn.functional.mse_loss(out, torch.zeros(5))
                loss.backward()
            kept += [
                out,
                loss,
                torch.rand(1),
                *(p.grad.clone() for p in layer.parameters() if p.grad is not None),
            ]
    return kept, [str(w.message) for w in caught] + [w.filename for w in caught]


def test_results_random_numbers_and_warnings_are_bitwise_the_same() -> None:
    plain, said = train(False)
    seen, heard = train(True)
    assert len(said) > 0
    assert said == heard
    assert all(torch.equal(a, b) for a, b in zip(plain, seen, strict=True))


def test_a_failing_backward_prints_nothing_more() -> None:
    class Failing(Twice):
        @staticmethod
        def backward(ctx: Any, *grads: Tensor) -> Tensor:
            raise KeyError("mine")

    y = None
    with observe_forward(), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        y = Failing.apply(torch.ones(1, requires_grad=True))
        with pytest.raises(KeyError, match="mine"):
            y.backward()
    assert caught == []


def test_a_view_made_again_while_its_values_are_looked_at_does_not_deadlock() -> None:
    with observe_forward() as seen:
        base = torch.ones(2, 3, requires_grad=True) * 1.0
        view = base[0]
        view.mul_(2)
        assert base.grad_fn is not None
        assert view.grad_fn is not None
        assert seen.context_of(view.grad_fn) is not None


def test_the_in_place_error_keeps_its_own_hint() -> None:
    def broken() -> str:
        x = torch.ones(2, requires_grad=True)
        y = x.exp()
        y += 1
        with pytest.raises(RuntimeError) as error:
            y.sum().backward()
        return str(error.value)

    plain = broken()
    with observe_forward():
        assert broken() == plain


def test_the_users_own_anomaly_mode_works_as_ever() -> None:
    with observe_forward() as seen:
        assert not torch.is_anomaly_enabled()
        assert torch.is_anomaly_check_nan_enabled()
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            with torch.autograd.detect_anomaly():
                assert torch.is_anomaly_enabled()
                x = torch.zeros(1, requires_grad=True)
                y = x.sqrt() * 0
                here = line() - 1
                with pytest.raises(RuntimeError, match="returned nan"):
                    y.backward()
        said = "".join(str(w.message) for w in caught)
        assert "Anomaly Detection has been enabled" in said
        assert f"line {here}, in test_the_users_own" in said
        assert not torch.is_anomaly_enabled()
        context = seen.context_of(y.grad_fn)
        assert context is not None
        assert context.line == here


def test_anomaly_mode_that_outlives_the_observation_stays() -> None:
    try:
        with observe_forward():
            torch.autograd.set_detect_anomaly(True, check_nan=False)
        assert torch.is_anomaly_enabled()
        assert not torch.is_anomaly_check_nan_enabled()
    finally:
        torch.autograd.set_detect_anomaly(False)
    with observe_forward():
        pass
    assert not torch.is_anomaly_enabled()


def attached() -> tuple[Any, ...]:
    module = torch.nn.modules.module
    return (
        torch.fx.traceback.format_stack,
        torch.is_anomaly_enabled,
        torch.set_anomaly_enabled,
        torch.is_anomaly_enabled(),
        torch.is_anomaly_check_nan_enabled(),
        torch.autograd._engine_run_backward,  # type: ignore[attr-defined] # private door
        dict(module._global_forward_pre_hooks),
        dict(module._global_forward_hooks),
        dict(module._global_forward_hooks_always_called),
        torch.overrides._len_torch_function_stack(),  # type: ignore[attr-defined] # private count
    )


@pytest.fixture(autouse=True)
def _nothing_left() -> Iterator[None]:
    before = attached()
    yield
    assert attached() == before


@pytest.mark.parametrize("way", ["anomaly", "function"])
def test_everything_is_undone_in_any_order_and_after_an_exception(way: Any) -> None:
    before = attached()
    first, second = observe_forward(way=way), observe_forward(way=way)
    first.__enter__()
    seen = second.__enter__()
    first.__exit__(None, None, None)
    y = torch.ones(1, requires_grad=True) * 2
    assert seen.context_of(y.grad_fn) is not None
    second.__exit__(None, None, None)
    assert attached() == before
    with pytest.raises(ZeroDivisionError), observe_forward(way=way):
        raise ZeroDivisionError
    assert attached() == before


def test_nothing_is_held_once_the_graph_is_gone() -> None:
    with observe_forward():
        model = nn.Linear(3, 3)
        y = model(torch.ones(3)).sum()
        y.backward()
        gone = [weakref.ref(thing) for thing in (model, y, model.weight)]
        del model, y
        gc.collect()
        assert [ref() for ref in gone] == [None, None, None]


# -- threads, other ways, compile -----------------------------------------------------------------


def test_nodes_of_another_thread_have_its_own_line_and_module() -> None:
    models = [nn.Sequential(nn.Linear(2, 2), nn.Tanh()) for _ in range(4)]
    outputs: dict[int, Tensor] = {}
    barrier = threading.Barrier(4)

    def work(index: int) -> None:
        barrier.wait()
        outputs[index] = models[index](torch.ones(2))

    with observe_forward() as seen:
        threads = [threading.Thread(target=work, args=(index,)) for index in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for y in outputs.values():
            context = seen.context_of(y.grad_fn)
            assert context is not None
            assert (context.module, context.function, context.module_call) == ("1", "work", 0)


def test_function_way_attributes_hidden_nodes_and_double_backward() -> None:
    with observe_forward(way="function") as seen:
        assert seen.way == "function"
        model = nn.Sequential(nn.Linear(4, 4))
        x = torch.ones(2, 4, requires_grad=True) * 1.0
        y = model(x)
        here = line() - 1
        with torch.device("cpu"):
            z = torch.einsum("ij,kj->ik", y, y)
        made = below(y, x)
        assert len(made) >= 2
        for node in made:
            context = seen.context_of(node)
            assert context is not None
            assert (context.line, context.module) == (here, "0")
        assert all(seen.context_of(node).line == here + 3 for node in below(z, y))  # type: ignore[union-attr] # None fails
        assert seen.value_of(y.grad_fn) == tuple(y.flatten().tolist())
        (g,) = torch.autograd.grad(z.sum(), x, create_graph=True)
        assert all(seen.context_of(node) is not None for node in below(g, z))


def test_function_way_leaves_from_under_another_mode() -> None:
    observation = observe_forward(way="function")
    observation.__enter__()
    other = torch.device("cpu")
    with other:
        observation.__exit__(None, None, None)
        assert torch.overrides._len_torch_function_stack() == 1  # type: ignore[attr-defined] # private count


def test_creation_hook_is_used_where_anomaly_does_not_reach_us(monkeypatch: pytest.MonkeyPatch) -> None:
    callbacks: list[Any] = []

    class Hook:
        def __init__(self, callback: Any) -> None:
            self.callback = callback

        def __enter__(self) -> None:
            callbacks.append(self.callback)

        def __exit__(self, *details: object) -> None:
            callbacks.remove(self.callback)

    monkeypatch.setattr(torch.autograd.graph, "node_creation_hook", Hook, raising=False)
    monkeypatch.setattr("hooks.forward.anomaly_reaches_us", lambda: False)
    with observe_forward() as seen:
        assert seen.way == "creation hook"
        y = torch.ones(1, requires_grad=True) * 2
        callbacks[0](y.grad_fn)
        here = line() - 1
        context = seen.context_of(y.grad_fn)
        assert context is not None
        assert context.line == here
    assert callbacks == []


def test_detection_notices_a_torch_that_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    assert creation.anomaly_reaches_us()
    monkeypatch.setattr(creation, "TRACE_KEY", "renamed by a later torch")
    creation.anomaly_reaches_us.cache_clear()
    try:
        assert not creation.anomaly_reaches_us()
        monkeypatch.delattr(torch.autograd.graph, "node_creation_hook", raising=False)
        with observe_forward() as seen:
            assert seen.way == "function"
    finally:
        creation.anomaly_reaches_us.cache_clear()


@pytest.mark.filterwarnings("ignore")
def test_torch_compile_compiles_without_graph_breaks() -> None:
    counters = torch._dynamo.utils.counters
    torch._dynamo.reset()
    counters.clear()
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    seen: Observation
    with observe_forward() as seen:
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        for _ in range(2):
            y = compiled(torch.ones(2, 3))
            here = line() - 1
            assert "CompiledFunctionBackward" in y.grad_fn.name()
            context = seen.context_of(y.grad_fn)
            assert context is not None
            assert (context.file, context.line) == (HERE, here)
            y.sum().backward()
    assert not counters["graph_break"]
    assert counters["stats"]["unique_graphs"] == 1
    torch._dynamo.reset()
