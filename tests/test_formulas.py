"""Formulas against what the installed torch itself has: its node classes and its generated header."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from explorer.formulas import arguments, entry, formulas, inputs, meaning, operation, parse

HAND_WRITTEN = {
    "AccumulateGrad",
    "CopyBackwards",
    "CopySlices",
    "DelayedError",
    "Error",
    "NotImplemented",
    "SendRpcBackward",
    "UndefinedGrad",
    "UndefinedGradBackward",
}


def header_names() -> list[str]:
    """The names in the generated header that ships in the wheel."""
    spec = find_spec("torch")
    assert spec is not None
    assert spec.origin is not None
    header = Path(spec.origin).parent / "include/torch/csrc/autograd/generated/Functions.h"
    if not header.exists():
        pytest.skip("this torch ships no headers")
    return re.findall(r'std::string name\(\) const override \{ return "(\w+)"', header.read_text())


def test_at_least_95_percent_of_generated_nodes_have_a_formula() -> None:
    names = header_names()
    with_formula = [name for name in names if formulas(name)]
    assert len(names) > 500
    assert len(with_formula) >= 0.95 * len(names), sorted(set(names) - set(with_formula))


def test_only_hand_written_nodes_have_a_sentence_instead() -> None:
    names = [name for name in dir(torch._C._functions) if not name.startswith("__")]
    assert {name for name in names if not formulas(name)} <= HAND_WRITTEN
    assert all(meaning(name) for name in names if not formulas(name))
    assert meaning("MulBackward0") == ""


def test_the_entry_is_that_of_the_node_torch_makes() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    cases = {
        "add.Tensor": x + 1,
        "mul.Tensor": x * 3,
        "rsub.Scalar": torch.rsub(x, 1.0),
        "pow.Tensor_Scalar": x**3,
        "pow.Scalar": 2**x,
        "pow.Tensor_Tensor": x**x,
        "clamp": x.clamp(0.0, 1.0),
        "sum.dim_IntList": x.reshape(1, 1).sum(1),
        "log1p": x.log1p(),
        "max.dim": x.reshape(1, 1).max(1).values,
    }
    for name, tensor in cases.items():
        assert tensor.grad_fn is not None
        assert operation(tensor.grad_fn.name()).startswith(name + "("), tensor.grad_fn.name()


def test_saved_names_are_symbols_of_the_formula_or_its_signature() -> None:
    x = torch.ones(2, 2, requires_grad=True)
    node = torch.addmm(x, x, x).grad_fn
    assert node is not None
    assert inputs(node.name()) == ("self", "mat1", "mat2")
    assert {"mat1", "mat2", "alpha", "beta"} <= set(arguments(operation(node.name())))


def test_a_file_with_every_form_it_uses() -> None:
    text = """
# a comment
- name: foo.Tensor(Tensor self, Tensor[] others, int[2] n=[1, 2]) -> (Tensor, Tensor)
  self, others: "grad.defined() ?
      one(grad)
      : two(grad)"
  n: non_differentiable
  output_differentiability: [True, False]
  result0: auto_linear

- name: never(Tensor self) -> Tensor
  self: non_differentiable

- name: foo.Scalar(Tensor self) -> Tensor
  dispatch:
    Default:
      # why
      self: grad * 2
    AutogradNestedTensor:
      self: grad * 3

- name: bar_forward(Tensor self) -> Tensor
  self: not_implemented("bar")
"""
    found = parse(text)
    whole = "grad.defined() ? one(grad) : two(grad)"
    assert {name: dict(item.formulas) for name, item in found.items()} == {
        "FooBackward0": {"self": whole, "others": whole},
        "FooBackward1": {"self": "grad * 2"},
        "FooBackwardAutogradNestedTensor0": {"self": "grad * 3"},
        "BarBackward0": {"self": 'not_implemented("bar")'},
    }


@pytest.mark.parametrize(
    "text", ["", "nothing of the kind", "- name: broken(", "- name: x\n  self:", '- name: "']
)
def test_a_file_of_another_kind_gives_nothing(text: str) -> None:
    assert parse(text) == {}


def test_views_copies_foreach_and_namespaces_lead_to_the_same_entry() -> None:
    assert entry("ViewBackward0_copy") is entry("ViewBackward0")
    assert entry("torch::autograd::generated::SinBackward0") is entry("SinBackward0")
    assert formulas("ForeachSinBackward0") == formulas("SinBackward0")
    assert formulas("ForeachAddBackward0List") == formulas("AddBackward0")


def test_reading_is_fast_and_needs_no_torch() -> None:
    program = (
        "import sys, time; start = time.perf_counter(); from explorer.formulas import formulas;"
        "assert formulas('MulBackward0'); assert not {'torch', 'yaml'} & set(sys.modules);"
        "print(time.perf_counter() - start)"
    )
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root, timeout=60
    )
    assert float(done.stdout) < 1.0  # 0.03 s on an idle core
