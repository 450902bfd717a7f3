"""Module paths and calls: recursion, failures, odd modules, and which modules ran."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hooks.forward import NodeContext, Observation, observe_forward
from hooks.modules import ModuleRuns


def context(seen: Observation, y: Tensor) -> NodeContext:
    """The context of the node that made `y`, which must be known."""
    found = seen.context_of(y.grad_fn)
    assert found is not None
    return found


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
        self.act = nn.Tanh()
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> list[Tensor]:
        a = self.act(self.layers[0](x))
        b = self.act(self.layers[1](a))
        return [a, b, b * 2]


def test_paths_and_calls_are_those_of_the_outermost_module() -> None:
    with observe_forward() as seen:
        for _ in range(2):
            a, b, c = Net()(torch.ones(2))
            assert [(context(seen, t).module, context(seen, t).module_call) for t in (a, b, c)] == [
                ("act", 0),
                ("act", 1),
                ("", 0),
            ]
            assert context(seen, c).root_class == "Net"
            c.sum().backward()
            assert context(seen, c.sum()).root is None


def test_calls_count_from_zero_again_in_the_next_graph_only() -> None:
    model = nn.Linear(2, 2)
    with observe_forward() as seen:
        first, second = model(torch.ones(2)), model(torch.ones(2))
        second.sum().backward(retain_graph=True)
        third = model(torch.ones(2))
        assert [context(seen, y).module_call for y in (first, second, third)] == [0, 1, 2]
        third.sum().backward()
        assert context(seen, model(torch.ones(2))).module_call == 0


def test_a_module_that_calls_itself_has_one_call_per_level() -> None:
    class Recursive(nn.Module):
        def forward(self, x: Tensor, depth: int) -> Tensor:
            return x * 2 if depth == 0 else self(x, depth - 1) + 1

    with observe_forward() as seen:
        y = Recursive()(torch.ones(1, requires_grad=True), 3)
        calls = []
        node: Any = y.grad_fn
        while hasattr(node, "next_functions") and "Accumulate" not in node.name():
            found = seen.context_of(node)
            assert found is not None
            calls.append(found.module_call)
            node = node.next_functions[0][0]
    assert calls == [0, 1, 2, 3]


class Raises(nn.Module):
    def __init__(self, problem: type[BaseException]) -> None:
        super().__init__()
        self.problem = problem
        self.broken = True

    def forward(self, x: Tensor) -> Tensor:
        if self.broken:
            raise self.problem("planted")
        return x * 2


@pytest.mark.parametrize("problem", [ValueError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_a_forward_that_raises_leaves_the_stack_sane(problem: type[BaseException]) -> None:
    inner = Raises(problem)
    model = nn.Sequential(nn.Sequential(inner), nn.Tanh())
    x = torch.ones(1, requires_grad=True)
    with observe_forward() as seen:
        with pytest.raises(problem, match="planted"):
            model(x)
        if problem is ValueError:
            assert context(seen, x * 1).root is None
        inner.broken = False
        y = model(x)
        assert context(seen, y).module == "1"
        below: Any = y.grad_fn
        found = seen.context_of(below.next_functions[0][0])
        assert found is not None
        assert found.module == "0.0"
        assert context(seen, y + 1).root is None


def test_an_exception_caught_inside_a_forward_pops_the_inner_module_only() -> None:
    class Careful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Raises(ValueError)

        def forward(self, x: Tensor) -> Tensor:
            try:
                return self.inner(x)
            except ValueError:
                return x + 1

    with observe_forward() as seen:
        found = context(seen, Careful()(torch.ones(1, requires_grad=True)))
    assert (found.module, found.root_class, found.function) == ("", "Careful", "forward")


def test_a_generator_forward_gives_its_nodes_the_generators_line() -> None:
    class Lazy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.step = nn.Tanh()

        def forward(self, x: Tensor) -> Iterator[Tensor]:
            for _ in range(3):
                x = self.step(x)
                yield x

    with observe_forward() as seen:
        lazy = Lazy()
        for number, y in enumerate(lazy(torch.ones(1, requires_grad=True))):
            found = context(seen, y)
            assert (found.function, found.module_call) == ("forward", number)
            assert context(seen, y * 2).root is None


def test_given_modules_keep_their_own_paths_inside_a_wrapper() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    wrapper = nn.Sequential(nn.Identity(), model)
    with observe_forward((model,)) as seen:
        assert context(seen, wrapper(torch.ones(2))).module == "1"
    with observe_forward() as seen:
        assert context(seen, wrapper(torch.ones(2))).module == "1.1"
    with observe_forward({"gen": model}) as seen:
        assert context(seen, wrapper(torch.ones(2))).module == "gen.1"


def test_modules_that_no_tree_lists_are_named_by_their_class() -> None:
    class Hides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = [nn.Linear(2, 2)]

        def forward(self, x: Tensor) -> Tensor:
            return self.hidden[0](x)

    with observe_forward() as seen:
        model = nn.Sequential(Hides())
        assert context(seen, model(torch.ones(2))).module == "0.<Linear>"
        model.append(nn.Tanh())
        assert context(seen, model(torch.ones(2))).module == "1"


def test_odd_modules_run_as_they_would() -> None:
    class Odd(nn.Module):
        def __getattr__(self, name: str) -> Any:
            if name in {"_modules", "_parameters", "_buffers"}:
                return super().__getattr__(name)
            raise LookupError(name)

        def named_modules(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("not here")

        def forward(self, x: Tensor) -> Tensor:
            return x * 2

    with observe_forward() as seen:
        assert context(seen, Odd()(torch.ones(1, requires_grad=True))).root_class == "Odd"


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
def test_script_modules_run_as_they_would() -> None:
    model = torch.jit.trace(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), torch.ones(1, 2))
    with observe_forward() as seen:
        y = model(torch.ones(1, 2))
        assert context(seen, y).function == "test_script_modules_run_as_they_would"
        y.sum().backward()


def test_replicas_have_the_paths_of_their_own_tree() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Tanh())
    with observe_forward() as seen:
        for replica in (model, copy.deepcopy(model)):
            found = context(seen, replica(torch.ones(2)))
            assert (found.module, found.module_call) == ("1", 0)


def test_which_modules_ran_and_how() -> None:
    model = Net()
    with observe_forward((model,)) as seen:
        model(torch.ones(2))
        with torch.no_grad():
            model.unused(torch.ones(2))
            model.act(torch.ones(2))
        with observe_forward() as later:
            model.act(torch.ones(2))
        assert later.ran == {"act": ModuleRuns(grad=1)}
    assert seen.ran == {
        "": ModuleRuns(grad=1),
        "layers.0": ModuleRuns(grad=1),
        "layers.1": ModuleRuns(grad=1),
        "act": ModuleRuns(grad=3, no_grad=1),
        "unused": ModuleRuns(no_grad=1),
    }
    assert seen.runs_of(model.unused) == ModuleRuns(no_grad=1)
    assert seen.runs_of(nn.Linear(1, 1)) == ModuleRuns()


def test_a_checkpoint_that_runs_again_in_backward_is_no_further_call() -> None:
    model = nn.Linear(2, 2)
    for reentrant in (False, True):
        with observe_forward((model,)) as seen:
            x = torch.ones(2, requires_grad=True)
            torch.utils.checkpoint.checkpoint(model, x, use_reentrant=reentrant).sum().backward()
            assert seen.runs_of(model).calls == 1
