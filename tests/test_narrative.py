"""The narrated backward: compared whole where it is short, by its promises where it is long."""

from __future__ import annotations

from dataclasses import replace

import torch

from explorer.graph import Source
from explorer.narrative import NOTES, captions, explain
from explorer.report import Verdict
from explorer.values import fill
from tests.small_reports import hand_made, report_of

XYZ = """\
The backward of loss ran 5 of 5 nodes. Each receives the gradient of loss by its
output, multiplies it by the derivative of that output by each input, and sends
the products on: upstream × local = downstream. Numbers are rounded to four
digits.

Forward, from the inputs to the result:
  q = x + y = 3  (recomputed)
  loss = q·z = -12  (recomputed)

Backward, from the result to the inputs:

1. MulBackward0, which made loss = q·z
    ∂loss/∂loss = 1: backward begins here
    to q: ∂(q·z)/∂q = z = -4, so 1 × (-4) = -4
    to z: ∂(q·z)/∂z = q = 3, so 1 × 3 = 3
    [Where results go is fixed in the node's next_functions: one place per
     differentiable input, naming the node that made that input.]

2. AddBackward0, which made q = x + y
    ∂loss/∂q = -4
    to x: ∂(x + y)/∂x = 1, so (-4) × 1 = -4
    to y: ∂(x + y)/∂y = 1, so (-4) × 1 = -4

3. AccumulateGrad of z
    z.grad += ∂loss/∂z = 3
    [AccumulateGrad stands for a leaf, a tensor the program made itself. It
     multiplies nothing: it adds what arrives to .grad, which is why .grad must
     be cleared between steps.]

4. AccumulateGrad of x
    x.grad += ∂loss/∂x = -4

5. AccumulateGrad of y
    y.grad += ∂loss/∂y = -4

The gradients of the leaves:
  ∂loss/∂z = 3
  ∂loss/∂x = -4
  ∂loss/∂y = -4
"""

REPORT = hand_made(
    {0: "MulBackward0", 1: "AddBackward0", 2: "AccumulateGrad", 3: "AccumulateGrad", 4: "AccumulateGrad"},
    ((0, 0, 1, 0), (0, 1, 2, 0), (1, 0, 3, 0), (1, 1, 4, 0)),
    {1: "q", 2: "z", 3: "x", 4: "y"},
    {0: 1.0, 1: -4.0, 2: 3.0, 3: -4.0, 4: -4.0},
    {2: -4.0, 3: -2.0, 4: 5.0},
)


def flat(text: str) -> str:
    return " ".join(text.split())


def test_x_y_z_told_whole() -> None:
    assert explain(REPORT) == XYZ


def test_lines_keep_to_the_width() -> None:
    for width in (40, 60, 100):
        assert max(map(len, explain(REPORT, width).splitlines())) <= width


def test_uses_are_added_and_each_note_is_said_once() -> None:
    x = torch.tensor(2.0, requires_grad=True)
    y = x * x
    report, saved = report_of(y * y + y.reshape(1).sum() + 1, x=x)
    text = flat(explain(report, forward=fill(report.graph, report.forward, saved)))
    assert "= 4 + 4 + 1 = 9" in text
    for key in ("next_functions", "accumulate", "fan-out", "constant", "view"):
        assert text.count(NOTES[key]) == 1, key


def test_a_layer_is_told_by_shape_with_one_element_worked_out() -> None:
    layer = torch.nn.Linear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]))
        layer.bias.zero_()
    out = layer(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    report, saved = report_of((out * out).sum(), W=layer.weight, b=layer.bias)
    text = flat(explain(report, forward=fill(report.graph, report.forward, saved)))
    assert "which made v2 [2, 3] = b + mat1·v4" in text or "= b + mat1·v" in text
    # x = [[1, 2], [3, 4]] and G = 2·out, out = x·Wᵀ = [[5, 11, 17], [11, 25, 39]]
    assert "element [1, 2]: 2×34 + 4×78 = 380" in text
    assert "element [2]: 34 + 78 = 112" in text
    assert text.count(NOTES["transpose"]) == 1
    assert text.count(NOTES["broadcast"]) == 1


def test_the_text_of_a_line_is_told_once_in_a_row_and_the_root_has_its_name() -> None:
    x = torch.randn(3, requires_grad=True)
    loss = (x * x).exp().sum()
    report, _ = report_of(loss, x=x)
    lines = [Source("train.py", 7, "loss = (x * x).exp().sum()")] * 3
    nodes = tuple(
        replace(node, source=line, module="head") if node.kind == "op" else node
        for node, line in zip(report.graph.nodes, (*lines, None), strict=True)
    )
    text = flat(explain(replace(report, graph=replace(report.graph, nodes=nodes))))
    assert text.count("(in head, line 7: loss = (x * x).exp().sum())") == 1
    assert text.count("(in head, line 7)") == 2
    assert "∂L/" not in text
    assert text.count(NOTES["G"]) == 1


def test_sixty_nodes_have_sixty_numbered_steps() -> None:
    x = torch.tensor(0.4, requires_grad=True)
    y = x
    for _ in range(29):
        y = torch.sin(y) * 1.1
    y = y + 1
    report, saved = report_of(y, x=x)
    assert len(report.graph.nodes) == 60
    text = explain(report, forward=fill(report.graph, report.forward, saved))
    steps = [line for line in text.splitlines() if line[:1].isdigit()]
    assert [line.split(".")[0] for line in steps] == [str(number) for number in range(1, 61)]
    assert "not known" not in text
    assert "ratio" not in text


def test_a_custom_function_is_explained_in_words() -> None:
    names = {0: "MineBackward", 1: "AccumulateGrad"}
    report = hand_made(names, ((0, 0, 1, 0),), {1: "x"}, {0: 2.0, 1: 7.0})
    node = replace(report.graph.nodes[0], kind="custom")
    report = replace(report, graph=replace(report.graph, nodes=(node, report.graph.nodes[1])))
    text = flat(explain(report))
    assert "a custom function: its own backward method" in text
    assert "2 × 3.5 = 7 (from the gradients: downstream / upstream)" in text


def test_what_did_not_run_or_failed_or_is_wrong_is_said() -> None:
    still = replace(REPORT, gradients=(None,) * 5)
    assert "backward did not run" in flat(explain(still))
    assert "Backward, from" not in explain(still)
    ended = replace(REPORT, error="RuntimeError: boom")
    assert "Backward ended early: RuntimeError: boom" in explain(ended)
    wrong = replace(REPORT, verdicts=(Verdict(0, "mismatch", "local: 1 is not 2"),))
    assert "The check disagrees here: mismatch. local: 1 is not 2" in explain(wrong)


def test_leaves_that_were_only_collected_come_after_what_sends_to_them() -> None:
    gradients = tuple(
        record if node.kind != "leaf" or record is None else replace(record, index=0)
        for node, record in zip(REPORT.graph.nodes, REPORT.gradients, strict=True)
    )
    titles = [line.split(",")[0] for line in explain(replace(REPORT, gradients=gradients)).splitlines()]
    steps = [title for title in titles if title[:1].isdigit()]
    assert steps == [
        "1. MulBackward0",
        "2. AccumulateGrad of z",
        "3. AddBackward0",
        "4. AccumulateGrad of x",
        "5. AccumulateGrad of y",
    ]


def test_captions_are_the_lines_of_the_narration_without_its_notes() -> None:
    x, y, z = (torch.tensor(float(value), requires_grad=True) for value in (1, 2, -4))
    report, _ = report_of((x + y) * z, x=x, y=y, z=z)
    lines = [line.strip() for line in explain(report, 10_000).splitlines()]
    told = captions(report)
    assert set(told) == {node for node, ran in enumerate(report.gradients) if ran is not None}
    assert all(line in lines for sent in told.values() for line in sent)
    assert not any(line.startswith("[") for sent in told.values() for line in sent)
    (first, *others) = told[report.graph.roots[0][0]]
    assert first.endswith("backward begins here")
    assert len(others) == 2


def test_equal_shares_are_told_together_after_the_first_time() -> None:
    a, b = (torch.tensor(float(value), requires_grad=True) for value in (2, 3))
    first = a * a
    report, saved = report_of((first + b) + (a + b), a=a, b=b)
    text = flat(explain(report, forward=fill(report.graph, report.forward, saved)))
    assert "to a, twice: ∂(a·a)/∂a = a = 2, so 1 × 2 = 2 each time" in text
    assert text.count("a sum's slope is 1 by each term, so each gets 1") == 2
    assert text.count("= 1, so 1 × 1 = 1") == 2  # the first sum, in full


def test_a_change_in_place_is_told_where_it_is_met() -> None:
    x = torch.randn(3, requires_grad=True)
    report, _ = report_of((x * 2).relu().sum(), x=x)
    changing = ["y += 1", "y.relu_()", "y[0] = 3.0", "self.total[:, 1] *= 2"]
    harmless = ["y = x + 1 == 2", "y = f(a=1)", "y = x.relu()", "if y[0] == 3:"]
    for code in changing + harmless:
        nodes = tuple(replace(node, source=Source("train.py", 7, code)) for node in report.graph.nodes)
        text = flat(explain(replace(report, graph=replace(report.graph, nodes=nodes))))
        assert text.count(NOTES["in-place"]) == (code in changing), code


def test_what_is_shown_of_vectors_is_said() -> None:
    x = torch.randn(3, requires_grad=True)
    report, _ = report_of(x * 2, torch.tensor([1.0, 2.0, 3.0]), x=x)
    text = flat(explain(report))
    assert "loss has 3 elements: what is told is the gradient of their sum" in text
    assert "told by shape and size" in text
    assert "told by shape and size" not in explain(REPORT)


def test_unnamed_leaves_and_a_variable_called_v_are_not_mixed_up() -> None:
    v, other = (torch.tensor(float(value), requires_grad=True) for value in (2, 3))
    report, _ = report_of(v.exp() * other.sin())
    text = explain(report)
    leaves = {node.id for node in report.graph.leaves()}
    assert all(f"leaf{number}.grad +=" in text for number in leaves)
    report, _ = report_of(v.exp() * other.sin(), v=v, other=other)
    assert "t1 = e^v" in explain(report)
