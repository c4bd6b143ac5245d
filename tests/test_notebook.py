"""The notebooks run from top to bottom."""

import base64
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
NOTEBOOK, SWEEP = NOTEBOOKS / "debian.ipynb", NOTEBOOKS / "sweep.ipynb"


def outputs_of(notebook):
    return [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]


def shown(notebook, kind):
    """What a notebook shows of a kind, such as image/png."""
    return [output.data[kind] for output in outputs_of(notebook) if kind in output.get("data", {})]


def recalls(notebook):
    """Of the report's table of a sweep: Recall@20 at every width, by the annealing."""
    (table,) = shown(notebook, "text/markdown")
    rows = re.findall(r"^\| `(none|linear|two_phase)` \| ([\d. |]+) \|$", table, re.MULTILINE)
    return {name: [float(cell) for cell in cells.split("|")] for name, cells in rows}


@pytest.mark.slow
def test_the_notebook_trains_draws_and_recommends():
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": NOTEBOOK.parent}}).execute()
    outputs = outputs_of(notebook)
    assert len(shown(notebook, "image/png")) == 2
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


@pytest.mark.slow
def test_the_notebook_of_a_sweep_goes_on_reports_and_draws():
    notebook = nbformat.read(SWEEP, as_version=4)
    held = recalls(notebook)
    NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": NOTEBOOKS}}).execute()
    outputs = outputs_of(notebook)
    assert not [output for output in outputs if output.get("name") == "stderr"]
    printed = "".join(output.get("text", "") for output in outputs)
    assert printed == "9 of 9 jobs are done\n9 of 9 jobs are done, 9 from before\n"
    assert len(shown(notebook, "image/png")) == 2
    found = recalls(notebook)
    for name, values in found.items():
        assert values == pytest.approx(held[name], abs=0.02)
        assert values == sorted(values)  # more bits are better
    for name in ("linear", "two_phase"):  # as the text says
        assert all(soft > hard for soft, hard in zip(found[name], found["none"], strict=True))


def test_the_notebook_of_a_sweep_is_committed_as_it_ran():
    notebook = nbformat.read(SWEEP, as_version=4)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for output in outputs_of(notebook) if output.output_type == "error"]
    pictures = [base64.b64decode(picture) for picture in shown(notebook, "image/png")]
    assert len(pictures) == 2
    assert max(map(len, pictures)) < 100_000
    assert {name: len(values) for name, values in recalls(notebook).items()} == dict.fromkeys(
        ("none", "linear", "two_phase"), 3
    )
    assert not re.search(r"/(tmp|home|root)/", SWEEP.read_text("utf-8"))
