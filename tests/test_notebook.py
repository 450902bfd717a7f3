"""The example notebook runs in a real kernel, draws itself, and survives conversion to a sanitised page."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from nbclient import NotebookClient
from nbconvert import HTMLExporter

NOTEBOOK = Path(__file__).parents[1] / "examples" / "notebook.ipynb"


@pytest.fixture(scope="module")
def executed(tmp_path_factory: pytest.TempPathFactory) -> nbformat.NotebookNode:
    """The notebook after a run of all its cells by this very interpreter, with nothing but it on PATH."""
    folder = tmp_path_factory.mktemp("kernel")
    (folder / "kernels" / "python3").mkdir(parents=True)
    (folder / "kernels" / "python3" / "kernel.json").write_text(
        f'{{"argv": ["{sys.executable}", "-m", "ipykernel_launcher", "-f", "{{connection_file}}"],'
        ' "display_name": "Python 3", "language": "python"}'
    )
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3")
    client.create_kernel_manager()
    client.km.kernel_spec_manager = KernelSpecManager(kernel_dirs=[str(folder / "kernels")])
    environment = {**os.environ, "PATH": ""}
    return client.execute(env=environment)


def outputs(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def test_every_report_is_drawn(executed: nbformat.NotebookNode) -> None:
    bundles = [output.data for output in outputs(executed) if "image/svg+xml" in output.get("data", {})]
    assert len(bundles) == 2
    for bundle in bundles:
        assert set(bundle) == {"text/plain", "image/svg+xml", "image/png"}
        assert "match" in bundle["text/plain"]
    ids = [bundle["image/svg+xml"].split('id="', 1)[1].split('"', 1)[0] for bundle in bundles]
    assert len(set(ids)) == 2


def test_what_the_cells_say(executed: nbformat.NotebookNode) -> None:
    plain = [
        output.data["text/plain"] for output in outputs(executed) if output.output_type == "execute_result"
    ]
    assert plain[1] == "True"
    assert "'0.weight'" in plain[3]
    streams = "".join(output.text for output in outputs(executed) if output.output_type == "stream")
    assert "call 2" in streams
    assert "0 of" not in streams


def test_a_sanitised_page_still_shows_the_pictures(executed: nbformat.NotebookNode) -> None:
    page, _ = HTMLExporter(sanitize_html=True).from_notebook_node(executed)
    assert page.count("<img ") == 2
    assert "srcdoc" not in page
