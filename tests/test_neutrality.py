"""Nothing a script can observe changes because it is explored: not one bit of it."""

from __future__ import annotations

import random
import subprocess
import sys
import textwrap
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from torch import nn

import explorer
from explorer import journal
from explorer.watching import Watch
from tests.exploration import same_bits
from tests.problems import PROBLEMS
from tests.training import TRAININGS

COMMAND = [str(Path(sys.executable).with_name("explore"))]


def differences(left: Any, right: Any, path: str = "") -> Iterator[str]:
    """Where two observations differ, each difference a line; nothing where all bits are equal."""
    if type(left) is not type(right):
        yield f"{path}: {type(left).__name__} became {type(right).__name__}"
    elif isinstance(left, torch.Tensor):
        if not same_bits(left, right) or left.requires_grad != right.requires_grad:
            yield f"{path}: {left!r} became {right!r}"
    elif isinstance(left, Mapping):
        if list(map(str, left)) != list(map(str, right)):
            yield f"{path}: the keys {list(left)} became {list(right)}"
        for key, here, there in zip(left, left.values(), right.values(), strict=False):
            yield from differences(here, there, f"{path}.{key}")
    elif isinstance(left, (list, tuple)):
        if len(left) != len(right):
            yield f"{path}: {len(left)} became {len(right)}: {left!r} {right!r}"
        for place, (here, there) in enumerate(zip(left, right, strict=False)):
            yield from differences(here, there, f"{path}[{place}]")
    elif left != right and not (left != left and right != right):
        yield f"{path}: {left!r} became {right!r}"


def assert_same(left: Any, right: Any) -> None:
    found = list(differences(left, right))
    assert not found, "\n".join(found[:10])


def undisturbed(watch: Watch) -> None:
    """Nothing of ours failed while it watched."""
    assert watch.problems == []
    for report in watch.reports:
        assert report.problems == ()


def trained(name: str) -> Any:
    """All of one training that can be observed, with its warnings and every generator's state."""
    random.seed(1)
    numpy.random.seed(1)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        seen = TRAININGS[name]()
    said = [(str(one.message), one.category.__name__, one.filename, one.lineno) for one in told]
    return [seen, said, list(random.getstate()[1]), numpy.random.get_state()[1].tolist()]  # type: ignore[index] # a tuple by default


@pytest.mark.parametrize("name", TRAININGS)
def test_training_under_watch(name: str) -> None:
    trained(name)  # what torch says or imports once per process
    plain = trained(name)
    with explorer.watch() as watch:
        watched = trained(name)
    assert_same(plain, watched)
    assert watch.calls > 0
    undisturbed(watch)
    assert_same(plain, trained(name))


@pytest.mark.parametrize("name", TRAININGS)
def test_training_with_a_light_record(name: str, tmp_path: Path) -> None:
    """Where most calls are not explored, only measured by layer."""
    trained(name)
    plain = trained(name)
    with explorer.watch(check="off", every=4, log=tmp_path / "a.jsonl") as watch:
        watched = trained(name)
    assert_same(plain, watched)
    undisturbed(watch)
    (run,) = journal.read(tmp_path / "a.jsonl")
    assert len(run.steps) == watch.calls > 0


def ran(name: str) -> Any:
    """One backward of a problem, with hooks of the user's on everything, and all that can be seen of it."""
    built = PROBLEMS[name]()
    calls: list[Any] = []

    def note(where: str) -> Any:
        return lambda *given: calls.append([where, [one for one in given if not isinstance(one, nn.Module)]])

    leaves = {**built.leaves}
    for number, module in enumerate(built.modules):
        leaves |= {f"{number}.{key}": parameter for key, parameter in module.named_parameters()}
        module.register_forward_hook(note("forward"))
    for key, leaf in leaves.items():
        leaf.register_hook(note(f"leaf {key}"))
        leaf.register_post_accumulate_grad_hook(
            lambda leaf, key=key: calls.append([f"after {key}", leaf.grad])
        )
    for place, root in enumerate(built.roots):
        if root.grad_fn is not None:
            root.grad_fn.register_prehook(note(f"before root {place}"))
            root.grad_fn.register_hook(note(f"root {place}"))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        built.backward()
    gradients = [leaf.grad for leaf in leaves.values() if leaf.grad is not None]
    return [
        list(built.roots),
        built.gradients(),
        calls,
        [str(one.message) for one in told],
        [dict(module.named_buffers()) for module in built.modules],
        [sys.getrefcount(gradient) for gradient in gradients],
        shared(gradients),
        [(leaf._version, leaf.is_leaf, len(leaf._backward_hooks or ())) for leaf in leaves.values()],
        torch.get_rng_state(),
    ]


def shared(tensors: list[torch.Tensor]) -> list[int]:
    """For each tensor the place of the first one with the same memory, and whether it is a view."""
    places: dict[int, int] = {}
    found = []
    for place, tensor in enumerate(tensors):
        strided = tensor.layout is torch.strided
        memory = tensor.untyped_storage().data_ptr() if strided and tensor.numel() else -1 - place
        found += [places.setdefault(memory, place), int(tensor._is_view())]
    return found


@pytest.mark.parametrize("name", PROBLEMS)
@pytest.mark.parametrize("check", ["off", "full"])
def test_a_problem_under_watch(name: str, check: Any) -> None:
    """Values, strides, hooks and their order, warnings, buffers, references, memory, generators."""
    plain = ran(name)
    with explorer.watch(check=check, every=1) as watch:
        watched = ran(name)
    assert_same(plain, watched)
    undisturbed(watch)


@pytest.mark.parametrize("name", PROBLEMS)
def test_exploring_leaves_a_graph_as_it_was(name: str) -> None:
    built, other = PROBLEMS[name](), PROBLEMS[name]()
    before = torch.get_rng_state()
    explorer.explore(*other.roots)
    assert torch.equal(before, torch.get_rng_state())
    assert all(gradient is None for gradient in other.gradients().values())
    built.backward()
    other.backward()
    assert_same(built.gradients(), other.gradients())


SCRIPT = """
import random, sys, warnings
sys.path.insert(0, {root!r})
import torch
from tests.training import TRAININGS
torch.set_num_threads(1)
torch.manual_seed(3)
results = {{name: TRAININGS[name]() for name in {names!r}}}
torch.save(results, sys.argv[1])
print("rng", int(torch.get_rng_state().sum()), random.random() != 2, torch.is_anomaly_enabled())
warnings.warn("told once")
"""


def test_trainings_as_a_script(tmp_path: Path) -> None:
    names = [name for name in TRAININGS if name not in ("compiled", "data_parallel")]
    root = str(Path(__file__).resolve().parent.parent)
    script = tmp_path / "user.py"
    script.write_text(textwrap.dedent(SCRIPT).format(root=root, names=names))
    plain = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "plain")], capture_output=True, text=True
    )
    assert plain.returncode == 0, plain.stderr
    watched = subprocess.run(
        [*COMMAND, "-q", "--call", "all", str(script), str(tmp_path / "watched")],
        capture_output=True,
        text=True,
    )
    assert (watched.returncode, watched.stdout) == (plain.returncode, plain.stdout), watched.stderr
    assert watched.stderr == plain.stderr
    left, right = (torch.load(tmp_path / name, weights_only=False) for name in ("plain", "watched"))
    assert_same(left, right)


def test_a_difference_is_noticed() -> None:
    """The comparison itself: every kind of change is told."""
    base = {"a": [torch.ones(2, 3), 1.0, "word"]}
    changed: list[Any] = [
        {"a": [torch.ones(3, 2).t(), 1.0, "word"]},
        {"a": [torch.ones(2, 3) * (1 + 2**-23), 1.0, "word"]},
        {"a": [torch.ones(2, 3), 1.0 + 2**-52, "word"]},
        {"a": [torch.ones(2, 3), 1.0]},
        {"b": [torch.ones(2, 3), 1.0, "word"]},
        {"a": [torch.ones(2, 3, requires_grad=True), 1.0, "word"]},
        {"a": [None, 1.0, "word"]},
    ]
    assert not list(differences(base, {"a": [torch.ones(2, 3), 1.0, "word"]}))
    for other in changed:
        assert list(differences(base, other)), other


def test_a_warning_given_once_is_given_once() -> None:
    """torch's own once-only warnings, and those of the default filter, come as often as without us."""

    def run() -> list[str]:
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("default")
            for _ in range(3):
                x = torch.ones(2, requires_grad=True)
                warnings.warn("each line once", stacklevel=1)
                x.sum().backward()
        return [str(one.message) for one in told]

    plain = run()
    with explorer.watch():
        watched = run()
    assert plain == watched == ["each line once"]
