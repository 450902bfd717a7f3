"""Every rule against torch and against finite differences of the function itself."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from explorer.check import Checker
from explorer.convert import leaf_of, value_of
from explorer.engine.compare import GRAVITY
from explorer.engine.elementwise import Missing
from explorer.engine.registry import Site, apply_rule, rule_for, rule_names
from explorer.graph import TensorSpec
from explorer.trace import trace
from hooks.nodes import Event, capture
from hooks.saved import read
from tests.engine.coverage import op_db_names
from tests.engine.problems import inputs_of, problems
from tests.engine.test_double_backward import TWICE
from tests.engine.test_sequences import LAYER

torch.manual_seed(0)
PROBLEMS = problems()


def _upstream(result: torch.Tensor) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(result.shape, generator=generator, dtype=torch.float64).to(result.dtype)


@pytest.mark.parametrize("name", PROBLEMS)
def test_agrees_with_torch(name: str) -> None:
    torch.manual_seed(1)
    node, function, _ = PROBLEMS[name]
    result = function(*inputs_of(PROBLEMS[name]))
    found = trace([result])
    assert node in {one.name for one in found.graph.nodes}
    checker = Checker(found, "full")
    watching = capture(found.live, checker.observe)
    with watching:
        result.backward(_upstream(result))
    assert watching.problem == ""
    verdicts, summary = checker.finish()
    bad = {found.graph.nodes[v.node].name: v for v in verdicts if v.status != "match"}
    roots = {place for place, _ in found.graph.roots}
    assert not {key: v for key, v in bad.items() if v.node not in roots or v.status != "unchecked"}
    assert summary.end_to_end == "full"
    assert summary.wrong_share == 0.0


NO_DERIVATIVE = {
    "to": "rounds to float32 on the way",
    "embedding": "the padding row's gradient is 0 by convention",
    "embedding scaled": "scaling by frequency is a convention",
}


@pytest.mark.parametrize("name", [name for name in PROBLEMS if name not in NO_DERIVATIVE])
def test_agrees_with_finite_differences(name: str) -> None:
    """A formula misread twice cannot pass: central differences of the function along each input."""
    torch.manual_seed(1)
    node, function, _ = PROBLEMS[name]
    tensors = inputs_of(PROBLEMS[name])
    torch.manual_seed(2)
    result = function(*tensors)
    engine = _engine_gradients(result, tensors)
    upstream = _upstream(result)
    step = 1e-6
    for place, tensor in enumerate(tensors):
        numbers = []
        flat = tensor.detach().reshape(-1)
        for i in range(flat.numel()):
            sides = []
            for sign in (1, -1):
                moved = flat.clone()
                moved[i] += sign * step
                torch.manual_seed(2)
                with torch.no_grad():
                    arguments = [
                        t.detach() if k != place else moved.reshape(tensor.shape)
                        for k, t in enumerate(tensors)
                    ]
                    sides.append(float((function(*arguments) * upstream).sum()))
            numbers.append((sides[0] - sides[1]) / (2 * step))
        assert engine[place] == pytest.approx(numbers, rel=2e-6, abs=2e-7), (node, place)


def _engine_gradients(result: torch.Tensor, tensors: list[torch.Tensor]) -> list[list[float]]:
    """The gradients by the engine alone: torch's graph and saved values, none of its gradients."""
    found = trace([result])
    graph = found.graph
    gradients = {graph.roots[0]: leaf_of(_upstream(result))}
    for index in graph.order:
        node = graph.nodes[index]
        if node.kind == "leaf":
            continue
        saved = {}
        for key, value in read(found.live[index]).items():
            saved[key] = Missing(value.problem) if value.problem else value_of(value.value)
        targets = {
            edge.source_slot: (edge.target, edge.target_slot) for edge in graph.edges if edge.source == index
        }
        specs = [None] * graph.arity[index]
        for slot, (target, target_slot) in targets.items():
            specs[slot] = graph.nodes[target].outputs[target_slot]
        rule = rule_for(node.name)
        assert rule is not None, node.name
        incoming = [gradients.get((index, slot)) for slot in range(len(node.outputs))]
        for slot, gradient in enumerate(
            apply_rule(rule, Site(node.name, saved, specs, node.outputs), incoming)
        ):
            if gradient is not None and slot in targets:
                before = gradients.get(targets[slot])
                gradients[targets[slot]] = gradient if before is None else before + gradient
    leaves = {found.live[node.id].variable.data_ptr(): node.id for node in graph.leaves()}
    return [gradients[(leaves[tensor.data_ptr()], 0)].values() for tensor in tensors]


SINGLE = {
    "Col2ImBackward0": lambda x: functional.fold(x, (4, 5), (2, 2), stride=1),
    "CeluBackward1": lambda x: functional.celu_(x * 1.0, 0.7),
    "EluBackward1": lambda x: functional.elu_(x * 1.0, 0.7),
    "LeakyReluBackward1": lambda x: functional.leaky_relu_(x * 1.0, 0.1),
    "NativeDropoutBackward0": lambda x: torch.native_dropout(x, 0.3, True)[0],
}


@pytest.mark.parametrize("node", SINGLE)
def test_other_rules_agree_with_torch(node: str) -> None:
    torch.manual_seed(1)
    x = torch.randn(1, 4, 12, dtype=torch.float64, requires_grad=True)
    result = SINGLE[node](x)
    verdicts = checked_by_name((result * torch.rand_like(result)).sum())
    assert verdicts.get(node) == "match", verdicts


def checked_by_name(loss: torch.Tensor) -> dict[str, str]:
    """The gravest status per node name after one checked backward."""
    found = trace([loss])
    checker = Checker(found, "full")
    watching = capture(found.live, checker.observe)
    with watching:
        torch.autograd.backward(loss)
    assert watching.problem == ""
    verdicts = sorted(checker.finish()[0], key=lambda one: GRAVITY[one.status])
    return {found.graph.nodes[one.node].name: one.status for one in verdicts}


ELSEWHERE = {
    "FusedRmsNormBackward0": "torch makes it on a GPU alone: `test_fused_rms_norm` asks the rule without it",
    LAYER: "tests.engine.test_sequences",
    "SparseAddmmBackward0": "tests.engine.test_sparse",
    "RegisterPostBackwardFunctionBackward": "FSDP2: tests.hooks.test_wrappers",
    "Identity": "tests.engine.test_odd_mathematics",
}


@pytest.mark.parametrize("weighted", [True, False])
def test_fused_rms_norm(weighted: bool) -> None:
    torch.manual_seed(1)
    x = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(3, 4, dtype=torch.float64, requires_grad=True)
    scale = (x.square().mean((1, 2), keepdim=True) + 1e-5).rsqrt()
    g = torch.randn(2, 3, 4, dtype=torch.float64)
    (x * scale * (weight if weighted else 1)).backward(g)
    saved = {"input": leaf_of(x.detach()), "result1": leaf_of(scale.detach()), "normalized_shape": (3, 4)}
    saved["weight"] = leaf_of(weight.detach()) if weighted else None
    specs = [TensorSpec(tuple(one.shape), "float64") for one in (x, weight)]
    rule = rule_for("FusedRmsNormBackward0")
    assert rule is not None
    found = apply_rule(rule, Site("FusedRmsNormBackward0", saved, specs, specs[:1]), [leaf_of(g)])
    assert x.grad is not None
    assert found[0].values() == pytest.approx(x.grad.flatten().tolist())
    if weighted:
        assert weight.grad is not None
        assert found[1].values() == pytest.approx(weight.grad.flatten().tolist())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quotients_just_below_an_integer(dtype: torch.dtype) -> None:
    """Torch rounds a/b before it truncates: 17.99999999 is 18 to it, and the engine claims neither."""
    torch.manual_seed(0)
    b = torch.rand(400, dtype=torch.float64) * 3 + 0.1
    a = torch.randint(-40, 40, (400,)) * b * (1 + 1e-9 * torch.randn(400))
    for function in (torch.fmod, torch.remainder):
        inputs = [a.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()]
        verdicts = checked_by_name(function(*inputs).float().sum())
        assert "mismatch" not in verdicts.values(), verdicts


def test_every_rule_is_met() -> None:
    """Each rule's node occurs in this file or in three samples of each of torch's own operations."""
    met = {node for node, _, _ in (*PROBLEMS.values(), *TWICE.values())} | set(SINGLE) | set(op_db_names(3))
    rules: dict[object, set[str]] = {}
    for name in rule_names():
        rule = rule_for(name)
        assert rule is not None
        rules.setdefault(rule.function, set()).add(name)
    assert not [min(names) for names in rules.values() if not names & (met | set(ELSEWHERE))]


def test_a_planted_wrong_rule_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    from explorer.engine import registry

    rule = registry._RULES["MulBackward0"]
    wrong = registry.Rule(rule.names, lambda n, g: [g * n.other * 1.00001, g * n.self])
    monkeypatch.setitem(registry._RULES, "MulBackward0", wrong)
    a, b = torch.randn(3, requires_grad=True), torch.randn(3, requires_grad=True)
    loss = (a * b).sum()
    found = trace([loss])
    checker = Checker(found)
    events: list[Event] = []
    with capture(found.live, lambda event: (events.append(event), checker.observe(event))):
        loss.backward()
    verdicts, _ = checker.finish()
    statuses = {found.graph.nodes[v.node].name: v.status for v in verdicts}
    assert statuses["MulBackward0"] == "mismatch"
