"""The gallery: every script's four columns agree, say what its docstring promises, and check out."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import nbformat
import pytest
import torch
from IPython.core.interactiveshell import InteractiveShell
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from traitlets.config import Config

from explorer import pipeline
from explorer.comparison import Row, agrees
from explorer.render import dot
from explorer.script import load

GALLERY = Path(__file__).parents[1] / "examples" / "gallery"

OUTPUT = {
    "01_product": ["f = 24", "3 of 3 agree"],
    "02_sigmoid": ["f = 0.73", "gates: -0.53 -0.53 -0.20 0.20; σ(1 − σ) = 0.20", "5 of 5 agree"],
    "03_neuron": ["y = -0.664, loss = 2.769", "in one line: -1.861, -3.721, 1.861", "4 of 4 agree"],
    "04_two_layers": ["17 of 17 agree", "loss before 8.3499, after 3.4539"],
    "05_softmax": [
        "p = 0.090, 0.245, 0.665",
        "loss = 1.408",
        "through the Jacobian: 0.090, -0.755, 0.665",
        "3 of 3 agree",
    ],
    "06_convolution": ["3 of 16 pixels get a gradient", "46 of 46 agree"],
    "07_batch_norm": ["the columns of ∂L/∂x sum to 0: True", "21 of 21 agree"],
    "08_attention": ["the first query's gradient is 0: True", "36 of 36 agree"],
    "09_residual_block": ["270 of 270 agree"],
    "10_gpt_block": ["378 of 378 agree"],
    "11_optimizers": ["gradient descent: f = 19 before", "Adam: f = 19 before", "6 of 6 agree"],
}
"""What each script prints."""

GRADIENTS = {
    "01_product": {"x": 12.0, "y": 8.0, "z": 6.0},
    "02_sigmoid": {"w0": -0.20, "w1": -0.39, "w2": 0.20, "x0": 0.39, "x1": -0.59},
    "03_neuron": {"w[0]": -1.861, "w[1]": -3.721, "w[2]": 1.861, "b": -1.861},
    "05_softmax": {"z[0]": 0.090, "z[1]": -0.755, "z[2]": 0.665},
}
"""Gradients that the docstrings spell, to the digits they spell."""


@pytest.fixture(autouse=True)
def defaults() -> Iterator[None]:
    """The scripts compute in float64 from seeds of their own; the next test must not notice."""
    before = torch.get_default_dtype()
    with torch.random.fork_rng(devices=()):
        yield
    torch.set_default_dtype(before)


def run(path: Path) -> tuple[pipeline.Exploration, list[Row]]:
    exploration = pipeline.explore_script(load(str(path)))
    assert exploration.error is None
    assert exploration.problems == []
    return exploration, list(exploration.outcome.namespace["rows"])


def four_agree(rows: list[Row]) -> bool:
    """Whether every row has all four columns, equal as far as float64 goes."""
    return all(
        None not in (row.by_hand, row.pytorch, row.engine, row.numeric) and agrees(row, 1e-9, 1e-6)
        for row in rows
    )


def test_every_script_of_the_gallery_is_here() -> None:
    assert {path.stem for path in GALLERY.glob("*.py")} == set(OUTPUT)


@pytest.mark.parametrize("name", OUTPUT)
def test_the_four_columns_agree_and_every_node_is_confirmed(
    name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    exploration, rows = run(GALLERY / f"{name}.py")
    printed = capfd.readouterr()
    assert exploration.outcome.code == 0
    assert printed.err == ""
    for line in OUTPUT[name]:
        assert line in printed.out
    assert "DIFFER" not in printed.out
    assert len(rows) > 0
    assert four_agree(rows)
    for report in exploration.session.reports:
        assert report.problems == ()
        assert report.check.statuses == {"match": len(report.graph.nodes)}
        assert not [finding for finding in report.findings if finding.severity == "error"]


@pytest.mark.parametrize("name", GRADIENTS)
def test_the_numbers_of_the_docstring(name: str) -> None:
    _, rows = run(GALLERY / f"{name}.py")
    digits = 2 if name == "02_sigmoid" else 3
    assert {row.name: round(row.pytorch or 0.0, digits) for row in rows} == GRADIENTS[name]


@pytest.mark.parametrize("name", ["04_two_layers", "09_residual_block", "10_gpt_block"])
def test_the_counts_of_the_docstring(name: str) -> None:
    _, rows = run(GALLERY / f"{name}.py")
    promised = re.search(r"[Aa]ll (\d+) gradients", (GALLERY / f"{name}.py").read_text())
    assert promised is not None
    assert len(rows) == int(promised[1])


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("05_softmax", "share - one for share, one in zip(p, y", "one - share for share, one in zip(p, y"),
        ("07_batch_norm", "- G.mean(0) - normed", "- normed"),
        ("10_gpt_block", "d_middle + d_norm, d_g1", "d_norm, d_g1"),
        ("09_residual_block", "x + engine_norm(", "x * 1.001 + engine_norm("),
        (
            "01_product",
            "numeric_gradients(product, point)",
            "numeric_gradients(lambda x, y, z: x * y + z, point)",
        ),
    ],
)
def test_a_mistake_in_one_column_is_noticed(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    script = (GALLERY / f"{name}.py").read_text()
    assert right in script
    (tmp_path / "mistaken.py").write_text(script.replace(right, wrong))
    _, rows = run(tmp_path / "mistaken.py")
    assert not four_agree(rows)
    assert not all(map(agrees, rows))


@pytest.fixture(scope="module")
def notebooks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, nbformat.NotebookNode]:
    """The notebooks on several topics, after a run of all their cells by a kernel of this interpreter."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        ' "display_name": "Python 3", "language": "python"}'
    )
    executed = {}
    for path in sorted(GALLERY.glob("[a-z]*.ipynb")):
        client = NotebookClient(nbformat.read(path, as_version=4), timeout=120, kernel_name="python3")
        client.create_kernel_manager()
        client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
        executed[path.stem] = client.execute(env={**os.environ, "PATH": ""})
    return executed


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InteractiveShell]:
    """IPython in this very process: a kernel for every notebook would be slow."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    hooks = sys.excepthook, sys.displayhook
    config = Config()
    config.HistoryManager.enabled = False
    try:
        own = InteractiveShell.instance(config=config)  # type: ignore[no-untyped-call] # IPython leaves it untyped
        own.display_formatter.active_types = own.display_formatter.format_types
        yield own
    finally:
        InteractiveShell.clear_instance()
        sys.excepthook, sys.displayhook = hooks


def run_cells(notebook: nbformat.NotebookNode, shell: InteractiveShell) -> list[tuple[str, int]]:
    """What each code cell prints or evaluates to, and how many pictures it draws."""
    shown: list[dict[str, str]] = []

    def show(value: object) -> None:
        if value is not None:
            shown.append(shell.display_formatter.format(value)[0])

    shell.display_trap.hook = show
    found = []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        shown.clear()
        printed = StringIO()
        with redirect_stdout(printed):
            result = shell.run_cell(cell.source)
        assert result.success, printed.getvalue()
        if cell.source.endswith(";"):  # IPython's own way to show nothing
            shown.clear()
        plain = "".join(data["text/plain"] for data in shown if "image/svg+xml" not in data)
        found.append((printed.getvalue() + plain, sum("image/svg+xml" in data for data in shown)))
    return found


def stored(notebook: nbformat.NotebookNode) -> list[tuple[str, int]]:
    """The same of the outputs that the notebook holds."""
    found = []
    for cell in notebook.cells:
        if cell.cell_type == "code":
            drawn = [output for output in cell.outputs if "image/svg+xml" in output.get("data", {})]
            said = [output for output in cell.outputs if output not in drawn]
            text = "".join(output.get("text") or output.data["text/plain"] for output in said)
            found.append((text, len(drawn)))
    return found


NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:e[-+]\d+)?")


def the_same(one: str, other: str) -> bool:
    """Whether two texts differ in nothing but the last digits of numbers."""
    numbers = [list(map(float, NUMBER.findall(text))) for text in (one, other)]
    words = [" ".join(NUMBER.sub("#", text).split()) for text in (one, other)]
    return words[0] == words[1] and numbers[0] == pytest.approx(numbers[1], rel=2e-3, abs=1e-9)


def test_the_same_sees_what_differs() -> None:
    assert the_same("x = 0.1234 is #1", "x = 0.12341  is #1")
    assert not the_same("x = 0.1234", "x = 0.1334")
    assert not the_same("x = 0.1234 agree", "x = 0.1234 DIFFER")


@pytest.mark.parametrize("name", OUTPUT)
def test_every_topic_has_a_notebook_that_runs_and_holds_what_it_shows(
    name: str, shell: InteractiveShell
) -> None:
    """After a change, ``jupyter nbconvert --execute --inplace`` writes the outputs anew."""
    path = GALLERY / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    assert path.stat().st_size < 150_000
    found, held = run_cells(notebook, shell), stored(notebook)
    assert sum(pictures for _, pictures in found) >= 1
    assert [pictures for _, pictures in found] == [pictures for _, pictures in held]
    for (text, _), (kept, _) in zip(found, held, strict=True):
        assert the_same(text, kept), text
    said = "".join(text for text, _ in found)
    agreed = re.search(r"(\d+) of (\d+) agree", said)
    assert agreed is not None
    assert agreed[1] == agreed[2]
    assert "DIFFER" not in said
    assert "did not settle" not in said


DRAWN = {"chain_rule": 2, "network": 2}
"""How many reports each notebook draws."""


def test_every_notebook_draws_its_graphs(notebooks: dict[str, nbformat.NotebookNode]) -> None:
    assert set(notebooks) == set(DRAWN)
    for name, notebook in notebooks.items():
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        bundles = [output.data for output in outputs if "image/svg+xml" in output.get("data", {})]
        assert len(bundles) == DRAWN[name]
        assert all("match" in bundle["text/plain"] for bundle in bundles)


def said(notebook: nbformat.NotebookNode) -> str:
    """What the cells printed and evaluated to, in words."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "\n".join(output.get("text") or output.data["text/plain"] for output in outputs)


def test_what_the_notebooks_say(notebooks: dict[str, nbformat.NotebookNode]) -> None:
    chain, network = said(notebooks["chain_rule"]), said(notebooks["network"])
    assert "5 of 5 agree" in chain
    assert "x.grad += ∂f/∂x = 12" in chain
    assert "sum of all 5: 135" in chain  # b·c = a⁴ + a³, and 4·27 + 3·9 = 135
    # ln p = (−2.408, −1.408, −0.408), G = (0, −1, 0); of p − y the largest is e^−1.408 − 1 = 0.2447 − 1
    assert "element [0, 1]: -1 − 0.2447×(-1) = -0.7553" in network
    assert "\nTrue\n" in network
    assert "[" + ", ".join(["True"] * 10) + "]" in network
    before, after = map(float, re.search(r"loss (\S+) before, (\S+) after", network).groups())  # type: ignore[union-attr] # it is there, or the test fails
    assert after < before


def test_the_picture_of_the_circuit_shows_the_published_numbers() -> None:
    """CS231n's figure: per wire the value above and the gradient below (as printed, two digits)."""
    exploration, _ = run(GALLERY / "02_sigmoid.py")
    (report,) = exploration.session.reports
    drawn = dot.source(report)
    wires = re.findall(r"<b>([^<]*)</b></font></td></tr><hr/><tr><td[^>]*><font[^>]*><i>([^<]*)</i>", drawn)
    published = {
        ("2.00", "-0.20"), ("-1.00", "0.39"), ("-2.00", "0.20"), ("-3.00", "-0.39"), ("-2.00", "-0.59"),
        ("6.00", "0.20"), ("4.00", "0.20"), ("-3.00", "0.20"), ("1.00", "0.20"), ("-1.00", "-0.20"),
        ("0.37", "-0.53"), ("1.37", "-0.53"), ("0.73", "1.00"),
    }  # fmt: skip
    assert {(value.replace("−", "-"), gradient.replace("−", "-")) for value, gradient in wires} == published
    assert "upstream × local = downstream&#10;" in drawn
