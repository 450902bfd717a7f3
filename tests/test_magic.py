"""The cell magic ``%%explore`` in a real IPython shell, and in a notebook run by a kernel."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

from explorer.magic import run
from explorer.watching import Watch

CELL = """\
import torch
w = torch.tensor([1.0, 2.0], requires_grad=True)
loss = (w * w).sum()
loss.backward()
answer = 6 * 7
answer
"""


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """Cells after a run of a notebook by this very interpreter."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        ' "display_name": "Python 3", "language": "python"}'
    )
    sources = [
        "%load_ext explorer",
        f"%%explore -o {folder}/a.svg\n{CELL}",
        "print(answer, w.grad.tolist())",
        "%%explore\nanswer + 1",
        f"%%explore --page --check off\n{CELL}",
        f"%%explore --call 0\n{CELL}",
        "from explorer import magic; magic.PATIENCE = 0\n%reload_ext explorer",
        f"%%explore\n{CELL}",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(source) for source in sources])
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.create_kernel_manager()
    client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    done = client.execute()
    done.metadata["folder"] = str(folder)
    return done


def said(cell: nbformat.NotebookNode) -> str:
    return "".join(
        output.get("text", "") or output.get("data", {}).get("text/plain", "") for output in cell.outputs
    )


def test_a_cell_runs_as_it_is_and_is_drawn(executed: Any) -> None:
    cell = executed.cells[1]
    bundles = [output.data for output in cell.outputs if "data" in output]
    assert "42" in [bundle["text/plain"] for bundle in bundles]
    (drawn,) = [bundle for bundle in bundles if "image/svg+xml" in bundle]
    assert set(drawn) == {"text/plain", "image/svg+xml", "image/png"}
    assert ">w<" in drawn["image/svg+xml"]
    assert "42 [2.0, 4.0]" in said(executed.cells[2])
    assert (Path(executed.metadata["folder"]) / "a.svg").read_text().startswith("<svg")


def test_a_cell_without_backward_is_told(executed: Any) -> None:
    assert "43" in said(executed.cells[3])
    assert "the cell called no backward()" in said(executed.cells[3])


def test_a_page_on_request(executed: Any) -> None:
    bundles = [output.get("data", {}) for output in executed.cells[4].outputs]
    pages = [bundle["text/html"] for bundle in bundles if "text/html" in bundle]
    assert len(pages) == 1
    assert "sandbox=" in pages[0]


def test_a_wrong_option_runs_nothing(executed: Any) -> None:
    assert "--call takes a number from 1" in said(executed.cells[5])
    assert "42" not in said(executed.cells[5])


def test_a_long_backward_shows_its_progress(executed: Any) -> None:
    assert "explore: done" in said(executed.cells[7])
    assert "explore: " not in said(executed.cells[1])


def test_a_sanitised_page_of_it_holds_the_pictures(executed: Any) -> None:
    drawn = nbformat.v4.new_notebook(cells=[executed.cells[1], executed.cells[7]])  # without the page
    page, _ = HTMLExporter(sanitize_html=True).from_notebook_node(drawn)
    assert page.count("<img ") == 2
    assert "srcdoc" not in page


def test_ipython_is_not_imported_by_us() -> None:
    code = "import sys, explorer, explorer.magic; sys.exit('IPython' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_progress_counts_every_node() -> None:
    import torch

    told: list[tuple[int, int]] = []
    x = torch.ones(3, requires_grad=True)
    with Watch(progress=lambda done, of: told.append((done, of))):
        (x * 2).sum().backward()
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_a_progress_that_fails_harms_nothing() -> None:
    import torch

    def broken(done: int, of: int) -> None:
        raise RuntimeError("no display")

    x = torch.ones(3, requires_grad=True)
    with Watch(progress=broken) as watch:
        (x * 2).sum().backward()
    assert x.grad is not None
    assert watch.report.check.checked == 3
    assert any("no display" in problem for problem in watch.report.problems)


class Shell:
    """What the magic needs of IPython's shell: it runs a cell."""

    def run_cell(self, cell: str) -> None:
        exec(cell, {})


def test_the_backward_told_and_beside_quotients_on_request() -> None:
    shown: list[Any] = []
    cell = "import torch\nw = torch.tensor(3.0, requires_grad=True)\n(w * w).backward()\n"
    run(Shell(), "--explain --numeric", cell, lambda content, **_: shown.append(content))
    report, explained, table = shown
    assert report.graph.nodes
    assert "to w, twice: ∂(w·w)/∂w = w = 3, so 1 × 3 = 3 each time" in explained["text/plain"]
    assert table["text/plain"].endswith("1 of 1 agree\n")
    shown.clear()
    run(Shell(), "", cell, lambda content, **_: shown.append(content))
    assert len(shown) == 1
