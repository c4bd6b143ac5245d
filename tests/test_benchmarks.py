"""The scripts of benchmarks/ run, on little: a figure whose command is broken cannot be had again. How fast is not
asked here."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import ROOT, environment

ON_DEBIAN = {
    "frontier": "--sets debian --bits 224 --threads 1 --batch 32 --seconds 0.01 --only l2q float hnsw",
    "fitting": "--sets debian --fits bpr",
    "rivals": "--sets debian --models ease l2q_plus",
    "quantization": "--sets debian --models spectral --bits 256",
    "exports": "--generated 2000 --users 20 --engines faiss duckdb",
    "first_stage": "--items 20000 --threads 1 --queries 50 --without hnsw",
    "retrieval": "--quick --threads 1 --repeats 1",
}


def script(name: str, words: list[str], cwd: Path) -> str:
    """What ``python benchmarks/NAME.py *words`` prints."""
    ended = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / f"{name}.py"), *words],
        cwd=cwd,
        env=environment(cwd),
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.mark.slow
@pytest.mark.parametrize("name", ON_DEBIAN)
def test_a_benchmark_runs_and_keeps_what_it_has_measured(tmp_path, name):
    assert script(name, [*ON_DEBIAN[name].split(), "--json", "found.json"], tmp_path)
    text = (tmp_path / "found.json").read_text()
    records = [json.loads(line) for line in text.splitlines()] if name == "fitting" else json.loads(text)
    assert len(records) > 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("frontier", "--json {}/frontier.json --plot drawn.png"),
        ("first_stage", "--json {}/first_stage.json --plot drawn.png"),
        ("fitting", "--json {}/fitting.jsonl --plot drawn.png"),
        ("curves", "--parts drawn.png"),
        ("curves", "--rows drawn.png"),
    ],
)
def test_a_picture_is_drawn_of_stored_records(tmp_path, name, words):
    (tmp_path / "outputs").symlink_to(ROOT / "outputs")
    script(name, words.format("outputs/benchmarks").split(), tmp_path)
    assert (tmp_path / "drawn.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_plan_is_made_of_stored_measurements(tmp_path):
    assert "10^10" in script(
        "scale", ["--plan", "--json", str(ROOT / "outputs/benchmarks/scale.jsonl")], tmp_path
    )


@pytest.mark.slow
def test_the_page_of_other_models_has_the_stored_records(tmp_path):
    words = ["--markdown", "--json", str(ROOT / "outputs" / "benchmarks" / "rivals.json")]
    page = (ROOT / "docs" / "results" / "rivals.md").read_text("utf-8")
    assert (
        script("rivals", words, tmp_path)
        == page.split("<!-- rivals -->\n")[1].split("<!-- end of rivals -->")[0]
    )
