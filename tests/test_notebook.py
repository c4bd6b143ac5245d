"""The notebook runs from top to bottom."""

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOK = Path(__file__).parents[1] / "notebooks" / "debian.ipynb"


@pytest.mark.slow
def test_the_notebook_trains_draws_and_recommends():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert len([output for output in outputs if "image/png" in output.get("data", {})]) == 2
    assert not [output for output in outputs if output.get("name") == "stderr"]
    printed = "".join(output.get("text", "") for output in outputs)
    assert "16,600 users x 5,219 items" in printed
    recall = float(printed.partition("Recall@20 ")[2].split()[0])
    assert 0.55 < recall < 0.7
    for name in ("blender", "gimp", "ffmpeg"):
        (line,) = [line for line in printed.splitlines() if line.startswith(f"{name}: ")]
        assert len(line.split(", ")) == 8


def test_the_notebook_is_committed_without_its_outputs():
    cells = [cell for cell in nbformat.read(NOTEBOOK, as_version=4).cells if cell.cell_type == "code"]
    assert cells
    assert not [cell for cell in cells if cell.outputs or cell.execution_count]
